"""Where work is done: on this machine, or on a Ray cluster. One small seam: shares of items go to workers, and results come back in order, the same everywhere.

with open_engine("ray") as engine:
    for report in engine.each(Looking(), tasks): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, Self

from darkroom.errors import RecipeError, did_you_mean
from darkroom.jobs.engine.flow import Lane
from darkroom.jobs.engine.local import Local
from darkroom.jobs.engine.work import Done, Item, Work

__all__ = ["Engine", "Local", "Work", "open_engine"]


class Engine(Protocol):
    """Where work is done. Use it in a `with`."""

    name: str
    workers: int
    """As asked for; 0: the engine decides."""

    @property
    def hands(self) -> int:
        """How many workers share what holds no model."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def reaches(self, folder: Path) -> None:
        """Make sure that workers see the folder under this path, with what lies in it now. Raises DatasetError, OutputError."""

    def each(self, work: Work[Item, Done], items: Iterable[Item], lane: Lane[Item] | None = None, ordered: bool = True) -> Iterator[Done]:
        """What the work makes of each item, in the order of items, which may be lazy: only so many shares are under way or held as keep the workers busy.

        A killed worker's share is done again by another; an item that kills its worker even alone becomes `work.died(item)`. What a work raises is raised
        here, at its place, as it is. With `lane` all items of one lane are done by one worker; without `ordered` results come as they are ready.
        """


def open_engine(text: str = "local", workers: int = 0) -> Engine:
    """The engine of this name: "local"; "ray", which starts a Ray of its own on this machine; "ray://HOST:PORT" or "HOST:PORT" of a cluster that runs.

    Raises RecipeError for an unknown name or where ray is not installed, RunError where the cluster cannot be used: unreachable, another version, no CPU.
    """
    if workers < 0:
        raise RecipeError(f"--workers {workers}: there are 1 or more, or 0 for as many as there is room for.")
    if text == "local":
        return Local(workers)
    if text != "ray" and not text.removeprefix("ray://").rpartition(":")[2].isdigit():
        near = did_you_mean(text, ("local", "ray"))
        raise RecipeError(f"--engine {text}: there is no such engine.{near} Known: local, ray, and the address of a cluster, as in ray://10.0.0.7:10001.")
    from darkroom.jobs.engine.cluster import Cluster

    return Cluster.join(text, workers)
