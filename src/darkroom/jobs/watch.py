"""How a job tells what it is doing, whoever listens."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """What a face gives to a job. A plain `Silent` does nothing."""

    def say(self, text: str) -> None:
        """A line for the person."""

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Work `what` has come to `done` of `total`."""


class Silent:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Nothing."""

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""
