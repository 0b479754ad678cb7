"""`--processes N`: what one process learns, whichever of them is killed and by however many it is gone on with; and one clear message where it cannot be."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

from darkroom.cli.main import run
from darkroom.errors import DatasetError, OutputError, RecipeError, RunError
from darkroom.jobs import processes
from darkroom.jobs.processes import resume_together, train_together
from darkroom.jobs.train import Stopped, resume_training
from darkroom.train.run import Run
from support.crews import STEPS, Impatient, brief, compared, full, killed


@pytest.fixture
def recipe(quick):
    return brief(quick)


@pytest.mark.parametrize("change", [lambda recipe: recipe, pytest.param(full, marks=pytest.mark.slow)], ids=["lora", "full"])
def test_two_of_which_one_is_killed_then_one_then_three_learn_what_one_learns(recipe, tmp_path, change):
    """Gone on with by one process until Ctrl-C, and ended by three, for which a batch is too small."""
    asked, folder = change(recipe), tmp_path / "run"
    at = killed(asked, folder)
    with pytest.raises(Stopped):
        resume_training(folder, Impatient(at + 2))
    assert Run(folder).checkpoints()[-1].step == at + 2
    compared(resume_together(folder, 3), asked, tmp_path / "one")


def test_a_whole_model_begun_by_two_and_ended_by_one_is_what_one_learns(recipe, tmp_path):
    killed(full(recipe), tmp_path / "run")
    compared(resume_training(tmp_path / "run"), full(recipe), tmp_path / "one")


# ---- what is told, by processes that only act ---------------------------------------------------------------------------------------------------------------

STAGE = "import json, os, signal, sys, time; rank = int(os.environ['RANK']); "
SAY = "say = lambda kind, words, code: (print(json.dumps({'kind': kind, 'error': words})), sys.stdout.flush(), os._exit(code)); "


@pytest.fixture
def acted(monkeypatch, recipe, tmp_path):
    """Call with a line of Python: every process runs it instead of Darkroom."""

    def act(line: str, count: int = 2) -> None:
        monkeypatch.setattr(processes, "DARKROOM", (sys.executable, "-S", "-c", STAGE + SAY + line))
        train_together(recipe, tmp_path / "run", count)

    return act


def test_a_mistake_is_told_once_and_as_what_it_is(acted):
    with pytest.raises(DatasetError, match=r"^no pictures\.$"):
        acted("say('DatasetError', 'no pictures.', 2)")


def test_the_first_cause_is_told_not_what_it_caused(acted):
    with pytest.raises(OutputError, match="disk full"):
        acted("say('CrewLost', 'lost the others', 2) if rank else (time.sleep(0.5), say('OutputError', 'disk full', 2))")


def test_one_that_does_not_end_is_made_to(acted, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.3)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"Process 1 of 3 .* killed by SIGKILL.*Nothing was trained yet"):
        acted(
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(0.2 if rank == 1 else 60); os.kill(os.getpid(), signal.SIGKILL)",
            3,
        )
    assert time.monotonic() - began < 5


def test_a_fault_of_ours_keeps_its_last_words(acted):
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2 .* ended with code 1.*ZeroDivisionError"):
        acted("time.sleep(60) if rank == 0 else 1 / 0")


def test_ctrl_c_reaches_the_first_alone(acted):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    line = "signal.signal(signal.SIGINT, lambda *_: say('Stopped', 'saved', 130)); time.sleep(60 if rank == 0 else 1.5); say('Stopped', 'with it', 130)"
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. Nothing was trained yet"):
        acted(line)


def test_counts_that_cannot_be(recipe, monkeypatch, tmp_path):
    with pytest.raises(RecipeError, match="one process or more"):
        train_together(recipe, tmp_path / "run", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="is one of 2 processes already"):
        train_together(recipe, tmp_path / "run", 2)
    monkeypatch.delenv("WORLD_SIZE")
    fused = recipe.model_copy(update={"train": recipe.train.model_copy(update={"fused": True})})
    with pytest.raises(RecipeError, match=r"train\.fused=false"):
        train_together(fused, tmp_path / "run", 2)


def test_the_command_line_tells_a_mistake_once(tmp_path, capfd):
    """Two real processes, no pictures: one message, exit code 2, no traceback, no run folder."""
    (tmp_path / "empty").mkdir()
    code = run(["train", "demo", "--images", str(tmp_path / "empty"), "--subject", "TOK cat", "--out", str(tmp_path / "run"), "--processes", "2"])
    said = capfd.readouterr()
    assert code == 2 and said.out == "" and said.err.count("darkroom: ") == 1 and "Traceback" not in said.err, said.err
    assert str(tmp_path / "empty") in said.err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ctrl_c_and_a_killed_launcher_lose_nothing(recipe, tmp_path):
    """The launcher asked by Ctrl-C (130), and another killed -9: each leaves a checkpoint of the step it was at, and no process."""
    import subprocess

    (tmp_path / "recipe.toml").write_text(recipe.model_copy(update={"train": recipe.train.model_copy(update={"keep": 0})}).to_toml())
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        folder = tmp_path / f"run{number}"
        command = [sys.executable, "-m", "darkroom", "train", str(tmp_path / "recipe.toml"), "--out", str(folder), "--processes", "2"]
        launcher = subprocess.Popen(command, stderr=subprocess.PIPE)
        crew = []
        while len(Run(folder).read_log()) < 2:
            time.sleep(0.01)
            crew = psutil.Process(launcher.pid).children()
        launcher.send_signal(number)
        told = launcher.communicate(timeout=60)[1].decode()
        assert launcher.returncode == code, told
        assert (number == signal.SIGKILL) or "The last whole checkpoint is of step" in told
        psutil.wait_procs(crew, timeout=30)
        assert not any(member.is_running() for member in crew)
        saved, logged = Run(folder).checkpoints()[-1].step, Run(folder).read_log()[-1]["step"]
        assert saved == logged < STEPS
