"""Ctrl-C at any moment of a training: what is told says what is on the disk, where, and the command that begins or goes on."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.cli.main import run as command
from darkroom.jobs import processes, train
from darkroom.jobs.processes import resume_together
from darkroom.jobs.stopping import at_once, resuming, standing
from darkroom.jobs.train import resume_training, run_training
from darkroom.train.feed import Feed
from darkroom.train.run import Run


@pytest.fixture
def recipe(quick):
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "4 steps", "save_every": "2 steps"}
    return type(quick).from_tree(tree, "test")


class Interrupting:
    """Presses Ctrl-C as often as told when the work comes to a place."""

    def __init__(self, what: str, done: int, times: int = 1) -> None:
        self.at, self.times = (what, done), times

    def say(self, text: str) -> None:
        pass

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        if (what, done) == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_before_the_first_step(recipe, tmp_path):
    """While pictures are encoded: there is a run folder, and `darkroom resume` begins it."""
    folder = tmp_path / "run"
    words = rf"Stopped\. Nothing was trained yet; the run folder {folder} holds its recipe\. Begin again with: darkroom resume {folder}$"
    with pytest.raises(KeyboardInterrupt, match=words):
        run_training(recipe, folder, Interrupting("encoding", 1))
    with pytest.raises(KeyboardInterrupt, match=words):
        resume_training(folder, Interrupting("previews", 1))
    assert resume_training(folder).finished
    assert [row["step"] for row in Run(folder).read_log() if row["step"]] == [1, 2, 3, 4]


def test_before_there_is_a_folder(recipe, tmp_path, monkeypatch):
    """While the model is opened, or is gone on with."""
    words = r"Stopped\. Nothing was trained yet, and there is no run folder\. Give the same command again\."
    monkeypatch.setattr(train, "open_base", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=words):
        train.prepare(recipe)
    with pytest.raises(KeyboardInterrupt, match=words):
        run_training(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_at_once_after_some_steps(recipe, tmp_path):
    """A second Ctrl-C does not wait for the step to be saved."""
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=r"There is no checkpoint yet: the step that was taken is lost\. Begin again with: darkroom resume"):
        run_training(recipe, folder, Interrupting("training", 1, times=2))
    with pytest.raises(KeyboardInterrupt, match=rf"last whole checkpoint is of step 2 \({folder}/steps/000002\)\. Go on with: darkroom resume {folder}$"):
        resume_training(folder, Interrupting("training", 3, times=2))
    assert Run(folder).read_log()[-1]["step"] == 3
    with pytest.raises(KeyboardInterrupt, match=r"last whole checkpoint is of step 2"):
        resume_training(folder, Interrupting("encoding", 1))


def test_the_command_line_says_it(recipe, tmp_path, monkeypatch, capfd):
    """130, one message, no traceback; `--json` too."""
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    monkeypatch.setattr(Feed, "encode_all", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    folder = tmp_path / "a run"
    assert command(["train", str(tmp_path / "recipe.toml"), "--out", str(folder)]) == 130
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith("darkroom: Stopped. Nothing was trained yet; the run folder") and f"darkroom resume '{folder}'" in said
    assert "Traceback" not in said
    assert command(["resume", str(folder), "--json"]) == 130
    told = capfd.readouterr().out
    assert '"kind": "Stopped"' in told and "Nothing was trained yet" in told


def test_words_that_were_said_already_stay():
    with pytest.raises(KeyboardInterrupt, match=r"^Stopped at row 3$"), at_once():
        raise KeyboardInterrupt("Stopped at row 3")


def test_a_crew_that_had_not_begun(recipe, tmp_path, monkeypatch):
    """The first of two is stopped before a step; the launcher says what it finds, and by how many it may go on."""
    Run.create(tmp_path / "run", recipe, {})
    monkeypatch.setattr(processes, "DARKROOM", (sys.executable, "-S", "-c", "import os, time; time.sleep(60 * int(os.environ['RANK'])); os._exit(130)"))
    words = rf"Stopped\. Nothing was trained yet; the run folder {tmp_path}/run holds its recipe\. Begin again with: darkroom resume \S+ --processes 2"
    monkeypatch.setattr(processes, "GRACE", 0.2)
    with pytest.raises(KeyboardInterrupt, match=words):
        resume_together(tmp_path / "run", 2)


def test_while_the_command_itself_is_loaded():
    """No traceback of imports."""
    code = "import os, signal, sys; sys.meta_path.insert(0, type('F', (), {'find_spec': lambda self, name, *_: os.kill(os.getpid(), signal.SIGINT) "
    code += "if name == 'darkroom.cli.train' else None})()); from darkroom.__main__ import main; sys.argv = ['darkroom', 'recipes']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "darkroom: Stopped. Nothing was begun.\n")


def test_while_the_job_is_loaded(recipe, tmp_path, monkeypatch, capfd):
    """Between the command line and the preflight torch is imported, which takes seconds."""
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    monkeypatch.setattr(train, "prepare", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert command(["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]) == 130
    assert "Nothing was trained yet, and there is no run folder. Give the same command again." in capfd.readouterr().err


def test_a_run_that_is_finished(recipe, tmp_path):
    run = Run.create(tmp_path / "run", recipe, {"result": {}})
    run.product.write_bytes(b"learned")
    assert standing(run.folder) == f"The run is finished; what it learned is {run.product}."


def test_a_folder_that_is_no_run(tmp_path):
    assert standing(tmp_path) == standing(None)
    assert re.fullmatch(r"darkroom resume 'a b' --processes 3 \(any number will do\)", resuming(Path("a b"), 3))
