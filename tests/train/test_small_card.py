"""Whole trainings with rounded frozen weights and blocks that wait in host memory: exact, resumed exactly, and the model is as it was."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from darkroom.errors import RecipeError
from darkroom.jobs.train import resume_training, run_training
from darkroom.train.run import Run


def small(quick, **train):
    tree = quick.model_dump(mode="json")
    tree["train"] |= train
    return type(quick).from_tree(tree, "test")


def test_fp8_and_swapped_blocks_are_exact_and_leave_the_model_alone(quick, tmp_path):
    plain = run_training(quick, tmp_path / "plain").product.read_bytes()
    run = run_training(small(quick, quantise="fp8", swap_blocks=4), tmp_path / "small")
    assert run.product.read_bytes() != plain, "rounded weights teach a little otherwise"
    shutil.copytree(run.folder, tmp_path / "cut")
    cut = Run.open(tmp_path / "cut")
    cut.product.unlink()
    for later in cut.checkpoints()[1:]:
        shutil.rmtree(later.folder)
    assert resume_training(cut.folder).product.read_bytes() == run.product.read_bytes()
    swapped = run_training(small(quick, swap_blocks=4), tmp_path / "swapped")
    bits = load_file(swapped.product), load_file(tmp_path / "plain" / "adapter.safetensors")
    assert all(torch.equal(bits[0][name], bits[1][name]) for name in bits[1]), "swapping changes no bit"
    assert run_training(quick, tmp_path / "again").product.read_bytes() == plain
    told = run.facts["result"]["memory"]
    assert told["measured_mib"] > 0 and 0.3 < told["ratio"] < 3, told


@pytest.mark.parametrize("train", [{"quantise": "nf4"}, {"swap_blocks": 2}])
def test_what_learns_cannot_be_rounded_or_sent_away(quick, train):
    tree = quick.model_dump(mode="json")
    tree["train"] |= train
    tree["method"] = {"kind": "full"}
    with pytest.raises(RecipeError, match=next(iter(train))):
        type(quick).from_tree(tree, "test")
    with pytest.raises(RecipeError, match=r"train\.quantise rounds weights that a ControlNet"):
        type(quick).from_tree(tree | {"method": {"kind": "controlnet"}, "train": tree["train"] | {"quantise": "fp8"}}, "test")
