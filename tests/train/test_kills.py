"""Killed at any moment and gone on: the bytes are those of a run that was never stopped. `make kills` does it fifty times."""

from darkroom.jobs.train import run_training
from support.training_kills import digest, killed


def test_two_kills_change_no_byte(quick, tmp_path):
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "40 steps", "save_every": "4 steps", "accumulate": 2, "keep": 2}
    tree["data"] |= {"resolution": 32, "flip": True, "wording": {"dropout": 0.2}}
    recipe = type(quick).from_tree(tree, "test")
    told = killed(recipe, tmp_path, 2, within=0.5)
    assert told["kills"] == 2
    whole = run_training(recipe, tmp_path / "whole")
    assert digest(tmp_path / "killed") == digest(whole.folder)


def test_a_kill_before_the_run_was_one_is_no_dead_end(quick, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "facts.json").write_text("{}")
    (folder / ".recipe.toml.abc.part").write_text("")
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "1 steps"}
    assert run_training(type(quick).from_tree(tree, "test"), folder).finished
