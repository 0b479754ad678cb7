"""A ControlNet is learned beside a U-Net that stays as it is, and is the one that `generate` and diffusers open."""

import shutil

import pytest
import torch
from PIL import Image, ImageOps

from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, RecipeError
from darkroom.jobs.generate import draw_files
from darkroom.jobs.train import resume_training, run_training
from darkroom.methods import ControlNet
from darkroom.sampling.control import edges
from darkroom.sampling.request import Control, Request, read_request
from darkroom.train.run import Run

pytest.importorskip("cv2")


def controlled(quick, **method):
    tree = quick.model_dump(mode="json")
    tree["method"] = {"kind": "controlnet", **method}
    tree["optimizer"]["rate"] = 1e-4
    return type(quick).from_tree(tree, "test")


def test_fresh_it_changes_nothing_and_belongs_to_its_seed(quick, trainer_for):
    trainer = trainer_for(controlled(quick))
    batch, t = trainer.feed.batch(0), torch.tensor([300, 700])
    with torch.no_grad():
        guided = trainer.predict(batch.latents, t, batch)
        added = {"text_embeds": batch.text.pooled, "time_ids": batch.ids}
        plain = trainer.model.unet(batch.latents, t, batch.text.states, added_cond_kwargs=added).sample
    assert torch.equal(guided, plain)
    states = [ControlNet().attach(trainer.model, seed).state() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_it_reads_each_picture_as_it_is_shown(quick, trainer_for):
    recipe = controlled(quick)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"flip": True})})
    trainer = trainer_for(recipe)
    for number in range(4):
        for each, condition in zip(trainer.feed.shown(number), trainer.feed.batch(number).condition, strict=True):
            picture = each.fit.apply(each.photo.read())
            found = edges(ImageOps.mirror(picture) if each.flipped else picture)
            assert torch.equal((condition * 255).round().byte().permute(1, 2, 0), torch.from_numpy(__import__("numpy").array(found)))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_its_gradients_are_diffusers(quick, trainer_for, checkpointing):
    """train_controlnet_sdxl.py's step, written out: residuals into the U-Net, mean squared error."""
    from diffusers import ControlNetModel

    from darkroom.train import loop

    recipe = controlled(quick)
    recipe = recipe.model_copy(update={
        "objective": recipe.objective.model_copy(update={"min_snr": 0.0}),
        "train": recipe.train.model_copy(update={"gradient_checkpointing": checkpointing}),
    })  # fmt: skip
    trainer = trainer_for(recipe)
    twin = ControlNetModel.from_config(trainer.attached.network.config)
    twin.load_state_dict(trainer.attached.network.state_dict())
    batch, shown = trainer.feed.batch(0), trainer.feed.shown(0)
    drawn = trainer._draw(0, shown, batch.latents)
    noisy = trainer.schedule.add_noise(batch.latents, drawn.noise, drawn.t)
    added = {"text_embeds": batch.text.pooled, "time_ids": batch.ids}
    down, mid = twin(noisy, drawn.t, batch.text.states, batch.condition, added_cond_kwargs=added, return_dict=False)
    out = trainer.model.unet(
        noisy, drawn.t, batch.text.states, added_cond_kwargs=added, down_block_additional_residuals=down, mid_block_additional_residual=mid
    ).sample
    torch.nn.functional.mse_loss(out, trainer.schedule.target(batch.latents, drawn.noise, drawn.t)).backward()
    with loop.checkpointing(recipe, trainer.model, trainer.attached.own):
        trainer._learn(0)
    mine = dict(trainer.attached.network.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_trained_gone_on_with_and_drawn_from(quick, tmp_path):
    run = run_training(controlled(quick), tmp_path / "run")
    assert sorted(path.name for path in run.product.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    shutil.copytree(run.folder, tmp_path / "cut")
    cut = Run.open(tmp_path / "cut")
    shutil.rmtree(cut.product)
    for later in cut.checkpoints()[1:]:
        shutil.rmtree(later.folder)
    name = "diffusion_pytorch_model.safetensors"
    assert (resume_training(cut.folder).product / name).read_bytes() == (run.product / name).read_bytes()
    asked = read_request(run.folder / "previews" / "000006_0.png")
    assert asked.controls[0].prepare == "edge"
    draw_files([(asked, tmp_path / "again.png")], "cpu", "fp32")
    assert list(read_picture(tmp_path / "again.png").getdata()) == list(read_picture(run.folder / "previews/000006_0.png").getdata())
    bare = Request(prompt=asked.prompt, seed=asked.seed, steps=asked.steps, guidance=asked.guidance, controls=(Control(model=str(run.product), image=asked.controls[0].image, prepare="edge", weight=0.0),))  # fmt: skip  # noqa: E501
    draw_files([(bare, tmp_path / "bare.png")], "cpu", "fp32")
    assert list(read_picture(tmp_path / "bare.png").getdata()) == list(read_picture(run.folder / "previews/000000_0.png").getdata()), "fresh: as the base"


def test_pairs(quick, cats, tmp_path, trainer_for):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    files = sorted(cats.glob("*.png"))
    for file in files:
        Image.new("RGB", read_picture(file).size, (200, 10, 10)).save(pairs / f"{file.stem}.png")
    recipe = controlled(quick, condition="as_is", pairs=str(pairs))
    condition = trainer_for(recipe).feed.batch(0).condition
    assert condition.shape == (2, 3, 64, 64)
    assert torch.equal(condition[0, :, 0, 0], torch.tensor([200, 10, 10]) / 255)
    (pairs / f"{files[0].stem}.png").unlink()
    with pytest.raises(DatasetError, match="holds no picture called"):
        run_training(recipe, tmp_path / "run")
    Image.new("RGB", (10, 10)).save(pairs / f"{files[0].stem}.png")
    with pytest.raises(DatasetError, match="A pair has one size"):
        run_training(recipe, tmp_path / "run2")
    with pytest.raises(RecipeError, match="set both, or neither"):
        controlled(quick, condition="as_is")
