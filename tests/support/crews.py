"""Trainings in several processes that are killed on the way, and what they must have learned all the same."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from darkroom.errors import RunError
from darkroom.jobs.processes import resume_together, train_together
from darkroom.jobs.train import Stopped, resume_training, run_training
from darkroom.train.run import Run

STEPS = 20


def brief(quick):
    """20 steps at SDXL's rate; batches of 2, of which a crew of three cannot give everybody a picture.

    AdamW's eps lies above the last bits of gradients: where there is next to none (attention to half a picture), 1e-8 makes whole steps of them, and a whole
    model is up to 2e-6 apart (docs/log.md). tests/train/test_crew.py has the default.
    """
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": f"{STEPS} steps", "save_every": "4 steps", "save_dtype": "fp32"}
    tree["optimizer"] |= {"rate": 1e-4, "eps": 1e-6}
    tree["data"] |= {"batch_size": 2, "resolution": 32, "flip": True}
    return type(quick).from_tree(tree, "test")


def full(recipe, method=(), **train):
    """The same of a whole model."""
    tree = recipe.model_dump(mode="json")
    tree["method"] = {"kind": "full", **dict(method)}
    tree["train"] |= {"keep": 2, **train}
    return type(recipe).from_tree(tree, "test")


class Murderer(threading.Thread):
    """Kills one of this process's children with -9, drawn by chance, once the run's log has so many rows."""

    def __init__(self, folder: Path, rows: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.rows, self.seed, self.killed, self.when = folder, rows, seed, 0, 0.0

    def run(self) -> None:
        while len(Run(self.folder).read_log()) < self.rows:
            time.sleep(0.01)
        found = members()
        victim = random.Random(self.seed).choice(sorted(found, key=lambda child: child.pid))
        self.killed, self.when = victim.pid, time.monotonic()
        victim.kill()


def members() -> list[psutil.Process]:
    """The processes of a training that this one has started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # another child, that has just ended
            if "darkroom" in child.cmdline():
                found.append(child)
    return found


class Impatient:
    """Presses Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def say(self, text: str) -> None:
        pass

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "training" and done == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def weights(run: Run) -> dict:
    if run.product.is_file():
        return load_file(run.product)
    files = [file for part in ("unet", "text_encoder", "text_encoder_2") for file in (run.product / part).glob("*.safetensors")]
    return {f"{file.parent.name}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def killed(asked, folder: Path, rows: int = 7) -> int:
    """Train in two processes, of which one is killed after so many rows of the log. Returns the step of the last checkpoint."""
    murderer = Murderer(folder, rows, seed=3)
    murderer.start()
    with pytest.raises(RunError, match=rf"of 2 \(pid \d+\) was killed by SIGKILL.*checkpoint is of step \d+ .*darkroom resume {folder} --processes 2") as told:
        train_together(asked, folder, 2)
    assert time.monotonic() - murderer.when < 60 and str(murderer.killed) in str(told.value)
    assert not members(), "all are gone"
    return Run(folder).checkpoints()[-1].step


def compared(run: Run, asked, alone: Path) -> None:
    """With one process that was never stopped."""
    expected = run_training(asked, alone)
    one, many = weights(expected), weights(run)
    assert one.keys() == many.keys()
    apart = max(float((one[name] - many[name]).abs().max()) for name in one)
    print(f"{asked.method.kind}: {apart:.1e} apart")
    assert apart < 1e-6
    assert [row["step"] for row in run.read_log()] == list(range(1, STEPS + 1))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(expected.read_log(), run.read_log(), strict=True)) < 1e-5


def begun_by_two_ended_by_three(recipe, folder, alone):
    """Two begin a divided training, one of them is killed; one process goes on until Ctrl-C, three end it. They learn what one learns in `alone`.

    A batch of two is too small for three: the third computes along, and counts for nothing.
    """
    at = killed(recipe, folder, 9)
    with pytest.raises(Stopped):
        resume_training(folder, Impatient(at + 2))
    assert not Run(folder).checkpoints()[-1].parted, "one process writes all of it"
    compared(resume_together(folder, 3), recipe, alone)
    assert len(Run(folder).checkpoints()[-1].facts["parts"]) == 3
