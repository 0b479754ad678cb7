"""`--processes N`: what one process learns, whichever of them is killed and by however many it is gone on with; and one clear message where it cannot be."""

import os
import signal
import sys
import threading
import time
import types

import psutil
import pytest
import torch

from darkroom.cli.main import run
from darkroom.errors import DatasetError, OutputError, RecipeError, RunError
from darkroom.jobs import processes
from darkroom.jobs.processes import resume_together, train_together
from darkroom.jobs.train import Stopped, resume_training
from darkroom.train.crew import Crew
from darkroom.train.launch import asked, said
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


def test_the_first_cause_is_told_not_what_it_caused(acted, monkeypatch):
    monkeypatch.setattr(processes, "HEARSAY", 90.0)  # a busy machine may begin the other one late
    with pytest.raises(OutputError, match="disk full"):
        acted("say('CrewLost', 'lost the others', 2) if rank else (time.sleep(0.5), say('OutputError', 'disk full', 2))")


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ([(-6, ""), (-9, "")], 1),  # a library crashed of the connection that kill -9 had cut
        ([(-6, ""), (2, "DatasetError")], 1),
        ([(2, "CrewLost"), (-11, "")], 1),
        ([(1, ""), (-11, "")], 1),
        ([(-15, ""), (-6, "")], 0),
    ],
)
def test_of_several_ends_the_cause_is_told(ends, first, monkeypatch):
    monkeypatch.setattr(processes, "HEARSAY", 0.0)
    crew = [types.SimpleNamespace(code=code, kind=kind) for code, kind in ends]
    assert processes._culprit(crew) is crew[first]


def test_one_that_does_not_end_is_made_to(acted, monkeypatch):
    """It would take five minutes by itself."""
    monkeypatch.setattr(processes, "GRACE", 0.3)
    began = time.monotonic()
    with pytest.raises(RunError, match=r"Process 1 of 3 .* killed by SIGKILL.*Nothing was trained yet"):
        acted(
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(0.2 if rank == 1 else 300); os.kill(os.getpid(), signal.SIGKILL)",
            3,
        )
    assert time.monotonic() - began < 60


def test_a_fault_of_ours_keeps_its_last_words(acted):
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2 .* ended with code 1.*ZeroDivisionError"):
        acted("time.sleep(300) if rank == 0 else 1 / 0")


def test_ctrl_c_reaches_the_first_alone(acted, tmp_path, monkeypatch):
    """The second one stops when the first has heard, as at the end of a step; it would have told of a Ctrl-C of its own."""
    monkeypatch.setattr(processes, "GRACE", 90.0)
    ours = signal.getsignal(signal.SIGINT)

    def press() -> None:
        while signal.getsignal(signal.SIGINT) is ours or len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    line = f"from pathlib import Path; at = Path({str(tmp_path)!r}); "
    line += "signal.signal(signal.SIGINT, lambda *_: ((at / f'heard{rank}').touch(), say('Stopped', 'saved', 130))); (at / f'ready{rank}').touch(); "
    line += "[time.sleep(0.02) for _ in iter(lambda: rank == 0 or not (at / 'heard0').exists(), False)]; say('Stopped', 'with it', 130)"
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. Nothing was trained yet"):
        acted(line)
    assert (tmp_path / "heard0").exists() and not (tmp_path / "heard1").exists()


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


def test_one_card_is_not_for_several_processes(recipe, tmp_path, monkeypatch):
    """Under --processes and under torchrun."""
    named = recipe.model_copy(update={"device": "cuda:1"})
    words = r'device = "cuda:1" is one card, and of several processes each takes its own. Set device = "cuda", and choose cards with CUDA_VISIBLE_DEVICES'
    with pytest.raises(RecipeError, match=words):
        train_together(named, tmp_path / "run", 2)
    assert asked(named) is named
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=words):
        asked(named)


def test_processes_on_the_cpu_of_a_machine_with_cards_meet_over_gloo(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")
    assert asked(recipe) is recipe and not said("ACCELERATE_USE_CPU")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert asked(recipe).device == "cpu" and said("ACCELERATE_USE_CPU")
    seen = []
    monkeypatch.setattr("accelerate.PartialState", lambda cpu, timeout: seen.append(cpu) or types.SimpleNamespace(process_index=0, num_processes=2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Crew.join() == Crew(0, 2) and seen == [True]


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
        told = launcher.communicate(timeout=300)[1].decode()
        assert launcher.returncode == code, told
        assert (number == signal.SIGKILL) or "The last whole checkpoint is of step" in told
        psutil.wait_procs(crew, timeout=120)
        assert not any(member.is_running() for member in crew)
        saved, logged = Run(folder).checkpoints()[-1].step, Run(folder).read_log()[-1]["step"]
        assert saved == logged < STEPS
