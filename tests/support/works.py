"""Work for tests of the engines: what a worker does must be a class of a module that it can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from darkroom.errors import ModelError
from darkroom.jobs.engine import Engine, Work, open_engine


def with_ray() -> None:
    """Pass the test over where there is no Ray. It is not imported: how it starts is settled then."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install ray")


@contextmanager
def ray_here(workers: int = 2) -> Iterator[Engine]:
    """A Ray of our own; the test is passed over where there is none."""
    with_ray()
    with open_engine("ray", workers) as engine:
        yield engine


def desks() -> list[psutil.Process]:
    """The workers of this process's own Ray."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::Desk"):
                found.append(child)
    return found


@dataclass(frozen=True)
class Squares(Work[int, int]):
    share: int = 8
    pause: float = 0.0

    def open(self) -> Callable[[Sequence[int]], list[int]]:
        return self._do

    def _do(self, items: Sequence[int]) -> list[int]:
        time.sleep(self.pause)
        return [item * item for item in items]


@dataclass(frozen=True)
class Batches(Work[int, tuple[int, int, int]]):
    """Of each item the first one of its share, how many there are, and the process."""

    share: int = 8
    mark: str = ""

    def open(self) -> Callable[[Sequence[int]], list[tuple[int, int, int]]]:
        return lambda items: [(items[0], len(items), os.getpid()) for _ in items]


@dataclass(frozen=True)
class Deadly(Work[int, int]):
    """Some items kill their process; with a folder only the first time that they are tried."""

    killers: tuple[int, ...]
    once: Path | None = None
    share: int = 8

    def open(self) -> Callable[[Sequence[int]], list[int]]:
        return lambda items: [self._do(item) for item in items]

    def _do(self, item: int) -> int:
        if item in self.killers and not (self.once and (self.once / f"{item}").exists()):
            if self.once:
                (self.once / f"{item}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    def died(self, item: int) -> int:
        return -item


@dataclass(frozen=True)
class Untold(Deadly):
    """The same, and nothing was said of what dies."""

    died = Work.died


@dataclass(frozen=True)
class Failing(Work[int, int]):
    """Raises at some item."""

    at: int
    kind: str = "model"
    share: int = 8

    def open(self) -> Callable[[Sequence[int]], list[int]]:
        return self._do

    def _do(self, items: Sequence[int]) -> list[int]:
        if self.at in items:
            raise ModelError("stone.safetensors: is no model. Name one.") if self.kind == "model" else OddError(1, 2)
        return list(items)


class OddError(Exception):
    """One that does not survive pickling."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


@dataclass(frozen=True)
class Threads(Work[int, int]):
    """A model, as far as the engine knows."""

    share: int = 4
    holds: bool = True

    def open(self) -> Callable[[Sequence[int]], list[int]]:
        import torch

        return lambda items: [torch.get_num_threads() for _ in items]


@dataclass
class Watched:
    """A source of items that knows how many were taken from it."""

    count: int
    taken: int = field(default=0)

    def __iter__(self) -> Iterator[int]:
        for item in range(self.count):
            self.taken += 1
            yield item
