"""What a step is made of: true sizes, own draws, equal gradients with and without checkpointing."""

import pytest
import torch

from darkroom.train.loop import checkpointing


@pytest.fixture
def changed(quick, trainer_for):
    def make(**changes):
        recipe = quick
        for table, values in changes.items():
            recipe = recipe.model_copy(update={table: getattr(recipe, table).model_copy(update=values)})
        return trainer_for(recipe)

    return make


def test_size_ids_are_true(changed):
    batch = changed().feed.batch(0)
    assert batch.ids.tolist() == [[256, 256, 0, 0, 64, 64]] * 2  # the file's size, the crop, the bucket
    assert batch.weight.tolist() == [1, 1]


def test_draws_belong_to_the_picture_not_to_its_place(changed):
    trainer = changed()
    drawn, again = (trainer._draw(3, trainer.feed.shown(3), trainer.feed.batch(3).latents) for _ in range(2))
    assert torch.equal(drawn.noise, again.noise) and torch.equal(drawn.t, again.t)
    assert not torch.equal(drawn.noise[0], drawn.noise[1])
    assert not torch.equal(drawn.noise, trainer._draw(4, trainer.feed.shown(4), trainer.feed.batch(4).latents).noise)


def test_checkpointing_and_accumulation_change_no_gradient(changed):
    def gradients(**changes):
        trainer = changed(**changes)
        trainer.optimizer.step = lambda *a, **k: None
        trainer.recipe.train.__dict__["max_grad_norm"] = 1e9
        with checkpointing(trainer.recipe, trainer.model):
            assert trainer.model.unet.is_gradient_checkpointing == trainer.recipe.train.gradient_checkpointing
            trainer.step(0)
        found = [p.grad.clone() for p in trainer.parameters]
        trainer.attached.detach()
        trainer.attached.detach = lambda: None
        return found

    plain = gradients()
    checkpointed = gradients(train={"gradient_checkpointing": True})
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["lora", "lycoris"])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_half_precision_trains_in_full(quick, tmp_path, method, precision, dtype):
    """The base in half precision, what is learned in float32: steps of 1e-4 would be rounded away."""
    from darkroom.jobs.train import run_training

    tree = quick.model_dump(mode="json")
    tree["train"] |= {"precision": precision, "length": "3 steps"}
    tree["method"] = {"kind": method, "rank": 2}
    run = run_training(type(quick).from_tree(tree, "test"), tmp_path / "run")
    assert run.facts["precision"] == dtype
    assert all(0 < row["loss"] < 1 for row in run.read_log())
    weights = {name: tensor for name, tensor in run.checkpoints()[-1].load()[0].items() if name.startswith("weights.")}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name or "up" in name)


def test_a_run_leaves_no_checkpointing_on_the_shared_model(quick, model, tmp_path):
    """The model outlives the run: the next one must not checkpoint because this one did."""
    from darkroom.jobs.train import run_training

    changes = {"train": quick.train.model_copy(update={"gradient_checkpointing": True}), "method": quick.method.model_copy(update={"text_encoders": True})}
    run_training(quick.model_copy(update=changes | {"base": "pocket"}), tmp_path / "run")
    from darkroom.jobs.base import open_base

    used = open_base(quick.base, quick.device, quick.train.precision, quick.base_config)
    for root in used.parts.values():
        assert not root.is_gradient_checkpointing and not root.training
