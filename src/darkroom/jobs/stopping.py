"""Ctrl-C while something learns: the step is finished and saved, and what is told is how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a training, after its state was saved."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"Stopped at step {step}; everything is saved. Go on with: darkroom resume {run}")


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
