"""Ctrl-C while something learns: the step is finished and saved, and what is told is where the run stands and how to go on."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.train.run import Run


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a training, after its state was saved."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"Stopped at step {step}; everything is saved. Go on with: {resuming(run)}")


@contextmanager
def polite() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C only asks: the step is finished and saved. A second one interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def at_once(run: Path | None = None, processes: int = 1) -> Iterator[None]:
    """Within the block a Ctrl-C that nobody has answered says where the run stands; None: there is no run yet."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if str(stopped):
            raise
        raise KeyboardInterrupt(f"Stopped. {standing(run, processes)}") from None


def standing(folder: Path | None, processes: int = 1) -> str:
    """Where a run that was ended stands on the disk, and how it is begun or gone on with."""
    if folder is None or not (folder / "recipe.toml").is_file():
        return "Nothing was trained yet, and there is no run folder. Give the same command again."
    run = Run(folder)
    if run.finished:
        return f"The run is finished; what it learned is {run.product}."
    saved, taken = run.checkpoints(), max((row["step"] for row in run.read_log()), default=0)
    if saved:
        return f"The last whole checkpoint is of step {saved[-1].step} ({saved[-1].folder}). Go on with: {resuming(folder, processes)}"
    lost = f"There is no checkpoint yet: {_steps(taken)} lost." if taken else f"Nothing was trained yet; the run folder {folder} holds its recipe."
    return f"{lost} Begin again with: {resuming(folder, processes)}"


def resuming(folder: Path, processes: int = 1) -> str:
    """The command that goes on with a run."""
    return f"darkroom resume {shlex.quote(str(folder))}" + (f" --processes {processes} (any number will do)" if processes > 1 else "")


def _steps(taken: int) -> str:
    return "the step that was taken is" if taken == 1 else f"the {taken} steps that were taken are"
