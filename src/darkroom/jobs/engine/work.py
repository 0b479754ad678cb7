"""What is asked of workers: one kind of work, opened once where it is done, and done a share at a time."""

from __future__ import annotations

import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from darkroom.errors import DarkroomError, RunError

Item = TypeVar("Item")
Done = TypeVar("Done")
Opened = Callable[[Sequence[Item]], Sequence[Done]]


class Work(ABC, Generic[Item, Done]):
    """One kind of work. Make it a frozen dataclass of a module: it travels by pickle, and equal works are one work, whose model is opened once.

    Share k is items[k * share : (k + 1) * share] whoever does it, so that a model's batches, and with them the last bits, are the same everywhere.
    """

    share: int = 16
    """Items that a worker gets at once."""
    holds: bool = False
    """Whether a model is held: then a worker takes a GPU where there are any, and the local engine stays in this process unless workers are asked for."""

    @abstractmethod
    def open(self) -> Opened[Item, Done]:
        """Called once in a worker. What it returns does a share: as many results as items, in their order."""

    def died(self, item: Item) -> Done:
        """What came of an item whose worker died of it, also when it was done alone."""
        raise RunError(f"{_named(item)}: its worker was killed each time, the last time with this alone. Take it out, or give workers more memory.")


@dataclass(frozen=True)
class Failed:
    """A share that ended in an error, as it travels."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """The error itself; a fault of ours with what the worker's stack was, and as text where it does not survive travelling."""
        told = "".join(traceback.format_exception(error))
        ours = isinstance(error, DarkroomError)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # classes with another __init__ fail in any way they like
            error = DarkroomError(str(error)) if ours else RuntimeError(f"{type(error).__name__}: {error}")
        if not ours:
            error.add_note(f"In a worker:\n{told}")
        return cls(error)


class Bench:
    """Where shares are done: keeps what the last work opened, for the next share of an equal one."""

    def __init__(self) -> None:
        self.work: Work[Any, Any] | None = None
        self.opened: Opened[Any, Any] | None = None

    def do(self, work: Work[Item, Done], items: Sequence[Item]) -> list[Done]:
        """One share. Raises what the work raises."""
        if self.opened is None or self.work != work:
            self.work = self.opened = None  # the old model goes before the new one comes
            self.opened = work.open()
            self.work = work
        found = list(self.opened(items))
        if len(found) != len(items):
            raise AssertionError(f"{type(work).__name__}: {len(found)} results for {len(items)} items")
        return found

    def tried(self, work: Work[Item, Done], items: Sequence[Item]) -> list[Done] | Failed:
        """The same, with an error as a value."""
        try:
            return self.do(work, items)
        except Exception as error:
            return Failed.of(error)


def _named(item: object) -> str:
    text = str(item)
    return text if len(text) <= 200 else f"{text[:200]} ..."
