"""`train.sharding`: a model divided among processes learns what one learns, and its checkpoints are gone on with by any number of them; gloo, CPU."""

import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from darkroom.errors import OutputError, RecipeError, RunError
from darkroom.jobs.processes import train_together
from darkroom.jobs.runs import list_runs
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.methods import FullTuning
from darkroom.methods.sharded import Sharded
from darkroom.train import crew
from darkroom.train.crew import Crew
from darkroom.train.forecast import forecast
from darkroom.train.fused import by_chance
from darkroom.train.launch import asked, check_precision
from darkroom.train.loop import Trainer
from darkroom.train.parted import read_rows, read_whole, write_parts
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run
from darkroom.train.sharding import _accelerates, _blocks
from support.crews import begun_by_two_ended_by_three, brief, compared, full, killed


@pytest.fixture
def recipe(quick):
    return full(brief(quick), sharding="fsdp", save_every="8 steps")


# ---- processes ----------------------------------------------------------------------------------------------------------------------------------------------


def test_divided_among_two_of_which_one_is_killed_and_ended_by_one(recipe, tmp_path):
    """20 steps, equal to one process to 1e-6; what is read back is what each of the two wrote a part of."""
    at = killed(recipe, tmp_path / "run", 9)
    saved = Run(tmp_path / "run").checkpoints()[-1]
    assert saved.parted and len(saved.facts["parts"]) == 2 and saved.step == at
    assert [info.state for info in list_runs(tmp_path)] == ["interrupted"]
    compared(resume_training(tmp_path / "run"), recipe, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method": {"text_encoders": True, "ema": 0.8, "rates": {"mid_block": 0.5, "down_blocks.0": 0.0}}, "accumulate": 2, "gradient_checkpointing": True},
    ],
    ids=["plain", "all at once"],
)
def test_two_of_which_one_is_killed_then_one_then_three_learn_what_one_learns(quick, tmp_path, change):
    recipe = full(brief(quick), **{"sharding": "fsdp", "save_every": "8 steps", **change})
    begun_by_two_ended_by_three(recipe, tmp_path / "run", tmp_path / "one")


@pytest.mark.slow
def test_bf16_weights_are_rounded_alike(quick, tmp_path):
    """Rounding by chance belongs to the place in the whole weight: after a step at a large rate hardly a number is rounded otherwise."""
    tree = full(brief(quick), {"weights": "bf16"}, sharding="fsdp", precision="bf16", length="2 steps").model_dump(mode="json")
    tree["optimizer"] |= {"kind": "lion", "rate": 1e-3}
    tree["optimizer"] = {key: value for key, value in tree["optimizer"].items() if key not in ("eps", "betas")}
    recipe = Recipe.from_tree(tree, "test")
    one, two = run_training(recipe, tmp_path / "one"), train_together(recipe, tmp_path / "two", 2)
    alone, together = (load_file(run.product / "unet" / "diffusion_pytorch_model.safetensors") for run in (one, two))
    differ = sum(int((alone[name] != together[name]).sum()) for name in alone) / sum(tensor.numel() for tensor in alone.values())
    assert differ < 0.05, f"{differ:.1%}; of draws of their own half of all numbers would"


# ---- one process, as a group of one -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def group():
    """torch.distributed with this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def laid(group, recipe):
    """A trainer whose model is divided, among one."""
    model, plan = prepare(recipe)
    attached = Sharded(FullTuning(ema=0.5), model, _blocks)
    yield Trainer(recipe, plan, model, attached)
    attached.detach()


def test_a_step_changes_the_twin_and_the_model_is_shown_it_while_it_is_looked_at(laid):
    unet = laid.model.unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    laid.step(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items()), "the base's own tensors are not touched"
    learned = {rows.key[1]: shadow for rows, shadow in zip(laid.attached.learned, laid.attached.average.shadows, strict=True)}
    noisy, said = torch.zeros(1, 4, 8, 8), laid.feed.batch(0)
    added = {"text_embeds": said.text.pooled[:1], "time_ids": said.ids[:1]}
    with laid.attached.whole(), torch.no_grad():
        unet(noisy, torch.tensor([1]), said.text.states[:1], added_cond_kwargs=added)
        assert all(torch.equal(tensor, learned[name]) for name, tensor in unet.state_dict().items()), "the average"
        assert not any(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items() if name.endswith("conv1.weight"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


def test_units_are_gathered_one_by_one(group, model, monkeypatch):
    """ResNets, transformer blocks and samplers, then what is left; by accelerate's words, others."""
    found = []
    original = torch.distributed.fsdp.fully_shard
    monkeypatch.setattr(torch.distributed.fsdp, "fully_shard", lambda module, **options: found.append((module, options)) or original(module, **options))
    Sharded(FullTuning(), model, _blocks).detach()
    whole = sum(parameter.numel() for parameter in model.unet.parameters())
    assert len(found) > 10 and all(options["reshard_after_forward"] for _, options in found[:-1])
    assert max(sum(p.numel() for p in module.parameters()) for module, _ in found[:-1]) < whole / 4
    for name, value in (("AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP"), ("TRANSFORMER_CLS_TO_WRAP", "ResnetBlock2D"), ("RESHARD_AFTER_FORWARD", "false")):
        monkeypatch.setenv(f"FSDP_{name}", value)
    monkeypatch.setenv("FSDP_VERSION", "2")
    units, reshard = _accelerates()
    assert {type(unit).__name__ for unit in units("unet", model.unet)} == {"ResnetBlock2D"} and not reshard
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer")
    with pytest.raises(RecipeError, match=r"LlamaDecoderLayer.*The U-Net has BasicTransformerBlock"):
        _accelerates()[0]("unet", model.unet)


def test_a_divided_checkpoint_is_read_whole_and_by_parts(laid, tmp_path):
    laid.step(0)
    tensors, facts = laid.state()
    write_parts(tmp_path / "state", tensors, laid.crew)
    whole = read_whole(tmp_path)
    assert whole.keys() == tensors.keys()
    mine = {name: tensor.clone() for name, tensor in read_rows(tmp_path, laid).items()}
    assert all(torch.equal(whole[name], mine[name]) for name in whole)
    laid.step(1)
    laid.load_state(mine, facts)
    again, _ = laid.state()
    assert all(torch.equal(again[name].to_local() if hasattr(again[name], "to_local") else again[name], mine[name]) for name in mine)


def test_a_whole_checkpoint_is_read_by_parts(laid, tmp_path):
    """And the step after it is the same."""
    laid.step(0)
    tensors, facts = laid.state()
    plain = {name: (tensor.to_local() if hasattr(tensor, "to_local") else tensor).clone() for name, tensor in tensors.items()}
    save_file(plain, tmp_path / "state.safetensors")
    expected = laid.step(1)
    laid.load_state(read_rows(tmp_path, laid), facts)
    assert laid.step(1) == expected


def test_a_part_that_is_missing_or_cut_short_is_told(laid, recipe, tmp_path):
    run = Run.create(tmp_path / "run", recipe, {})
    part = run.begin(2)
    tensors, facts = laid.state()
    parts = write_parts(part / "state", tensors, laid.crew)
    assert run.checkpoints() == [], "a checkpoint that is being written is none"
    saved = run.end(2, {**facts, "parts": parts}, lambda place: None)
    assert run.checkpoints() == [saved] and saved.parted
    file = next((saved.folder / "state").glob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(RunError, match=rf"not of the {len(whole)} bytes that were written. Delete"):
        saved.load()
    shutil.rmtree(saved.folder / "state")
    assert run.checkpoints() == []
    with pytest.raises(RunError, match="this checkpoint is damaged"):
        read_rows(saved.folder, laid)


def test_a_part_that_another_machine_wrote_and_this_one_does_not_see_makes_no_checkpoint(laid, recipe, tmp_path, monkeypatch):
    """A disk that is not shared, or tells late: the marker would otherwise name the parts that happened to be seen."""

    class Elsewhere(Crew):
        name = "process 0 of 2 on alpha"

        def told(self, words: str) -> list[str]:
            return [words, json.dumps(["process 1 of 2 on beta", {"shard-00002-model-00001-of-00001.safetensors": 1234}])] if "shard" in words else [words]

    monkeypatch.setattr(crew, "SETTLING", 0.3)
    tensors, _ = laid.state()
    with pytest.raises(OutputError, match=r"shard-00002\S+: process 1 of 2 on beta wrote 1234 bytes, and they are not here. No checkpoint was made"):
        write_parts(tmp_path / "state", tensors, Elsewhere())
    late = tmp_path / "state" / "shard-00002-model-00001-of-00001.safetensors"
    monkeypatch.setattr(crew, "SETTLING", 60.0)
    threading.Timer(0.5, late.write_bytes, [b"x" * 1234]).start()
    assert write_parts(tmp_path / "state", tensors, Elsewhere())[late.name] == 1234, "one that comes later is waited for"


def test_what_could_not_be_written_takes_no_room(laid, recipe, tmp_path, monkeypatch):
    """The disk is full: nothing of the checkpoint stays that would keep it full."""
    run = Run.create(tmp_path / "run", recipe, {})
    tensors, _ = laid.state()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter._write_data", full)
    part = run.begin(2)
    (part / "big").write_bytes(b"0" * 1000)
    with pytest.raises(OutputError, match=r"could not write its part of the checkpoint.*No space left"), run.writing(2):
        write_parts(part / "state", tensors, laid.crew)
    assert not part.exists() and run.checkpoints() == []


def test_the_checkpoint_of_another_method_is_refused(laid, tmp_path):
    tensors, facts = laid.state()
    plain = {name: (tensor.to_local() if hasattr(tensor, "to_local") else tensor).clone() for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in plain.items() if "ema." not in name}, tmp_path / "state.safetensors")
    with pytest.raises(RunError, match="belongs to another recipe or base"):
        laid.load_state(read_rows(tmp_path, laid), facts)


def test_rows_are_rounded_as_they_are_in_the_whole():
    value = torch.randn(12, 5)
    whole = by_chance(value, 3)
    parts = [by_chance(value[first : first + 4], 3, first * 5) for first in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole) and not torch.equal(by_chance(value[4:8], 3), whole[4:8])


# ---- memory -------------------------------------------------------------------------------------------------------------------------------------------------


def test_what_learns_is_divided_in_the_forecast(recipe, model):
    one, four, eight = (forecast(recipe, model, (32, 32), count) for count in (1, 4, 8))
    for part in ("gradients", "optimizer"):
        assert getattr(four, part) == pytest.approx(getattr(one, part) / 4, rel=0.01) and getattr(eight, part) == pytest.approx(
            getattr(one, part) / 8, rel=0.01
        )
    assert eight.total < four.total and four.again(recipe).total == four.total


# ---- what is refused ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": {"kind": "lora"}}, "learns a small part beside it"),
        ({"method": {"kind": "inversion"}}, "learns a small part beside it"),
        ({"train": {"fused": True, "max_grad_norm": 0}}, "Set train.fused = false"),
        ({"optimizer": {"kind": "adafactor"}}, "averages of whole rows and columns. Take adamw"),
        ({"optimizer": {"kind": "adamw8bit"}}, "in blocks of 256 numbers"),
        ({"optimizer": {"kind": "prodigy"}}, "from all weights together"),
        ({"train": {"precision": "fp16"}}, 'Set train.precision = "bf16"'),
        ({"train": {"quantise": "nf4"}}, "learns them"),
        ({"train": {"swap_blocks": 2}}, "learns them"),
        ({"method": {"kind": "full", "ema": 0.9, "ema_on_host": True}}, "ema_on_host"),
    ],
)
def test_what_does_not_go_with_sharding(recipe, settings, words):
    tree = recipe.model_dump(mode="json")
    for table, values in settings.items():
        tree[table] = values if "kind" in values else tree[table] | values
    with pytest.raises(RecipeError, match=words):
        Recipe.from_tree(tree, "test")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron-LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism_config"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "Set fsdp_version: 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "train.gradient_checkpointing = true"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_IGNORED_MODULES": "conv_in"}, "method.rates"),
    ],
)
def test_what_accelerate_is_configured_for_and_darkroom_is_not(recipe, monkeypatch, said, words):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=words):
        asked(recipe)


def test_accelerates_fsdp_is_the_recipes(quick, monkeypatch):
    whole = full(brief(quick))
    assert asked(whole) is whole
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert asked(whole).train.sharding == "fsdp"
    with pytest.raises(RecipeError, match=r'method.kind = "lora" learns a small part.*distributed_type: MULTI_GPU'):
        asked(quick)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    check_precision(torch.bfloat16)
    with pytest.raises(RecipeError, match=r'mixed_precision = "bf16": the recipe computes in float32 here'):
        check_precision(torch.float32)
