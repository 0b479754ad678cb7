"""How a job tells what it is doing, whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable


class Watcher(Protocol):
    """What a face gives to a job. A plain `Silent` does nothing."""

    def say(self, text: str) -> None:
        """A line for the person."""

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Work `what` has come to `done` of `total`."""


@runtime_checkable
class Reader(Watcher, Protocol):
    """A watcher that can read a training's figures too."""

    def figures(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """What step `step` of `total` gave, by the names of log.jsonl: loss, rate, grad_norm, seconds, and validation or memory_mib where measured."""

    def picture(self, step: int, path: Path) -> None:
        """A preview was drawn after `step` steps."""


class Silent:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Nothing."""

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""


def tell_figures(watcher: Watcher, step: int, total: int, values: Mapping[str, float]) -> None:
    """A step's figures to a watcher that reads them; to any other, where the training is and its loss."""
    if isinstance(watcher, Reader):
        watcher.figures(step, total, values)
    else:
        held = f"  held out {values['validation']:.4f}" if "validation" in values else ""
        watcher.move("training", step, total, f"loss {values['loss']:.4f}{held}" if "loss" in values else "")


def tell_picture(watcher: Watcher, step: int, path: Path) -> None:
    """A preview to a watcher that looks at pictures."""
    if isinstance(watcher, Reader):
        watcher.picture(step, path)
