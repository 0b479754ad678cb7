"""One training of a run at a time; and what killed ones left in its folder, which never is taken for a checkpoint and does not stay."""

import shutil
import subprocess
import sys

import pytest
import torch

from darkroom.errors import RunError
from darkroom.files import write_json
from darkroom.jobs.train import resume_training, run_training
from darkroom.train import hold
from darkroom.train.hold import held
from darkroom.train.run import Run

HOLDING = """
import sys, time
from pathlib import Path
from darkroom.train.hold import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(quick, tmp_path):
    """A run with checkpoints of two steps, as far as their files go."""
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "4 steps", "save_every": "2 steps"}
    found = Run.create(tmp_path / "run", type(quick).from_tree(tree, "test"), {})
    for step in (2, 4):
        saved(found, step)
    return found


def saved(run, step):
    return run.save(step, {"a": torch.zeros(3)}, {}, lambda place: place.write_bytes(b"learned"))


def parted(run, step):
    """One that two processes wrote."""
    part = run.begin(step)
    (part / "state").mkdir()
    for name in ("one.safetensors", "two.safetensors"):
        (part / "state" / name).write_bytes(b"rows")
    return run.end(step, {"parts": {"one.safetensors": 4, "two.safetensors": 4}}, lambda place: place.write_bytes(b"learned"))


def test_two_do_not_train_one_run(run, monkeypatch):
    """The other one may be of a crew whose launcher was killed, and is saving."""
    monkeypatch.setattr(hold, "PATIENCE", 0.2)
    before = run.read_log()
    words = rf"{run.folder}: another process is training this run. Wait until it has ended, or stop it"
    with held(run.folder), pytest.raises(RunError, match=words), held(run.folder):
        raise AssertionError("both")
    assert run.read_log() == before
    with held(run.folder):
        assert sorted(path.name for path in run.folder.iterdir()) == ["facts.json", "recipe.toml", "steps"], "it leaves no file"


def test_one_that_was_killed_holds_nothing(run):
    other = subprocess.Popen([sys.executable, "-c", HOLDING, str(run.folder)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    other.kill()
    other.wait()
    with held(run.folder):
        pass


def test_a_resume_waits_for_none_and_says_so(quick, tmp_path, monkeypatch):
    """Through the whole job: nothing is restored, forgotten or written while another has the run."""
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "2 steps", "save_every": "1 steps"}
    run = run_training(type(quick).from_tree(tree, "test"), tmp_path / "run")
    run.product.unlink()
    log = (run.folder / "log.jsonl").read_bytes()
    monkeypatch.setattr(hold, "PATIENCE", 0.2)
    with held(run.folder), pytest.raises(RunError, match="another process is training this run"):
        resume_training(run.folder)
    assert (run.folder / "log.jsonl").read_bytes() == log and not run.product.exists()
    assert resume_training(run.folder).finished


def test_what_was_half_written_or_half_taken_away_does_not_stay(run):
    left = ["steps/.000003.part/state.safetensors", "steps/.000001.gone/state.json", ".facts.json.x1.part", ".model.x2.part/unet/a", ".crew-12"]
    left += ["previews/.000002_0.png.x3.part"]
    for name in left:
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_bytes(b"half")
    (run.folder / "notes.part").write_text("a person's own")
    run.sweep()
    assert sorted(path.name for path in run.folder.iterdir()) == ["facts.json", "notes.part", "previews", "recipe.toml", "steps"]
    assert sorted(path.name for path in (run.folder / "steps").iterdir()) == ["000002", "000004"] and not list((run.folder / "previews").iterdir())
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4]


def test_one_killed_while_it_took_a_checkpoint_away_does_so_again(run):
    """Steps are taken again where a person deleted later checkpoints."""
    shutil.copytree(run.folder / "steps" / "000002", run.folder / "steps" / ".000002.gone")
    run.prune(1)
    assert [path.name for path in (run.folder / "steps").iterdir()] == ["000004"]


def test_a_checkpoint_that_is_written_again_is_never_half_of_one(run, monkeypatch):
    """Killed at any removal: what there is under the step's name is whole, the old one or the new."""
    parted(run, 6)

    def half(folder, ignore_errors=False):
        for path in list(folder.rglob("one.safetensors")):
            path.unlink()
            raise SystemExit("killed")

    monkeypatch.setattr(shutil, "rmtree", half)
    part = run.unfinished(6)
    (part / "state").mkdir(parents=True)
    for name in ("one.safetensors", "two.safetensors"):
        (part / "state" / name).write_bytes(b"ROWS")
    with pytest.raises(SystemExit):
        run.end(6, {"parts": {"one.safetensors": 4, "two.safetensors": 4}}, lambda place: place.write_bytes(b"learned"))
    newest = run.checkpoints()[-1]
    assert newest.step in (4, 6) and newest.facts["step"] == newest.step


def test_killed_between_what_was_learned_and_the_receipt(quick, tmp_path):
    """It is gone on with as any other: nothing is trained, the receipt is closed, and what was learned stays the very file."""
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "2 steps", "save_every": "1 steps"}
    run = run_training(type(quick).from_tree(tree, "test"), tmp_path / "run")
    facts = run.facts
    learned, result, log = run.product.read_bytes(), facts.pop("result"), run.read_log()
    write_json(run.folder / "facts.json", facts)
    assert not run.finished
    again = resume_training(run.folder)
    assert again.finished and again.product.read_bytes() == learned and again.read_log() == log
    assert again.facts["result"]["adapter_sha256"] == result["adapter_sha256"]
    with pytest.raises(RunError, match="is finished"):
        resume_training(run.folder)
