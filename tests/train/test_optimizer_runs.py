"""Whole runs with the optimizers that keep more than tensors: gone on from a checkpoint to the same bytes, and saved as they are to be used."""

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file

from darkroom import pocket
from darkroom.jobs.train import resume_training, run_training
from darkroom.train.recipe import load_recipe

KINDS = {
    "adamw8bit": ("bitsandbytes", ()),
    "prodigy": ("prodigyopt", ("optimizer.rate=1", "optimizer.d0=1e-4")),
    "schedule_free": ("schedulefree", ("optimizer.schedule=constant", "optimizer.warmup=2")),
}


def recipe_of(kind, *settings):
    package, more = KINDS[kind]
    pytest.importorskip(package)
    usual = ("train.length=4 steps", "train.save_every=2 steps", "preview.every=100 steps", "preview.steps=1", "device=cpu", "method.rank=16",
             "data.batch_size=2", "train.accumulate=2", "data.flip=true", "objective.pyramid=4", "objective.timesteps.kind=logit_normal")  # fmt: skip
    return load_recipe("demo", (*usual, f"optimizer.kind={kind}", *more, *settings), data={"images": str(pocket.CATS / "train"), "subject": "TOK cat"})


def digest(folder):
    return hashlib.sha256((folder / "adapter.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_gone_on_to_the_same_bytes(kind, tmp_path):
    run_training(recipe_of(kind), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "adapter.safetensors").unlink()
    shutil.rmtree(tmp_path / "cut" / "steps" / "000004")
    resume_training(tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_schedule_free_saves_its_average_and_previews_do_not_disturb_it(tmp_path):
    plain = run_training(recipe_of("schedule_free"), tmp_path / "plain").folder
    watched = run_training(recipe_of("schedule_free", "preview.every=1 steps"), tmp_path / "watched").folder
    mine, other = (load_file(folder / "adapter.safetensors") for folder in (plain, watched))  # their headers differ, for the recipes do
    assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)
    learned = [value for name, value in sorted(load_file(plain / "steps/000004/state.safetensors").items()) if name.startswith("weights.")]
    saved = [value for name, value in sorted(load_file(plain / "adapter.safetensors").items()) if "alpha" not in name]
    assert sorted(tensor.numel() for tensor in learned) == sorted(tensor.numel() for tensor in saved)
    total = [sum(float(tensor.double().square().sum()) for tensor in tensors) for tensors in (learned, saved)]
    assert total[0] != pytest.approx(total[1], rel=1e-12), "what was saved is where learning stood, not the average"
    assert torch.isfinite(torch.tensor(total)).all()
