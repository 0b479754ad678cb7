"""The ray engine: actors on the nodes of a Ray cluster, each with one share under way and one waiting. Who dies is replaced, and its shares done again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from darkroom.errors import RecipeError, RunError
from darkroom.jobs.engine.flow import Found, Lane, Share, flow
from darkroom.jobs.engine.joining import is_there, ray_at
from darkroom.jobs.engine.nodes import Told, code_here, same_code, same_folder, version
from darkroom.jobs.engine.work import Bench, Done, Failed, Item, Work

EACH = 2
"""Shares that a worker has: one that it does, one so that it need not wait."""
SILENT = 5.0
"""Seconds without a result after which the head is asked whether it is there."""
STARVED = 20.0
"""Seconds without any node that could work after which a cluster is given up."""
BUSY = 300.0
"""Seconds without any worker that has started, while nodes are there."""
STILLBORN = 5
"""Workers in a row that died before they could say a word."""
LEFT = "What was finished is kept; the same command goes on from there when the cluster is back, and --engine local needs none."


class Cluster:
    """A Ray cluster, ours or one that runs. Use it in a `with`: a Ray of our own ends with it, of another one only our actors."""

    name = "ray"

    def __init__(self, ray: Any, address: str, workers: int, own: bool) -> None:
        self.ray, self.address, self.workers, self.own = ray, address, workers, own
        self.actors: Actors | None = None
        self.code = code_here()
        self.seen: set[Path] = set()
        self.gone = False
        """Whether there is nothing left to say goodbye to."""
        self.head = address if address.startswith("ray://") else ray.get_runtime_context().gcs_address

    @classmethod
    def join(cls, address: str, workers: int) -> Cluster:
        """See `open_engine`."""
        ray, own = ray_at(address, workers)
        cluster = cls(ray, address, workers, own)
        try:
            if address != "ray":
                same_code(ray, cluster.code, address)
            if workers > (room := cluster.room("CPU")):
                raise RecipeError(f"--workers {workers}: the cluster has {room} CPUs, and a worker takes one. Ask for at most {room}.")
        except BaseException:
            cluster.__exit__()
            raise
        return cluster

    @property
    def hands(self) -> int:
        return self._count(holds=False, gpus=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.gone:
            return
        self._dismiss()
        if self.own:
            with suppress(Exception):  # a cluster that is gone cannot be left
                self.ray.shutdown()

    def reaches(self, folder: Path) -> None:
        if self.address != "ray" and folder not in self.seen:
            same_folder(self.ray, folder, self.address)
            self.seen.add(folder)

    def each(self, work: Work[Item, Done], items: Iterable[Item], lane: Lane[Item] | None = None, ordered: bool = True) -> Iterator[Done]:
        """See `Engine.each`."""
        crew = self._crew(work)
        crew.take(work)
        with closing(flow(crew, work, items, lane, ordered)) as found:
            yield from found

    def room(self, kind: str) -> int:
        """How many CPUs or GPUs the living nodes have in all."""
        return int(sum(node["Resources"].get(kind, 0) for node in self.ray.nodes() if node["Alive"]))

    def _crew(self, work: Work[Any, Any]) -> Actors:
        """The actors that are there if they will do: those that hold models take GPUs."""
        gpus = work.holds and self.room("GPU") > 0
        if self.actors is None or self.actors.gpus != gpus or self.actors.holds != work.holds:
            self._dismiss()
            self.actors = Actors(self, self._count(work.holds, gpus), work.holds, gpus)
        return self.actors

    def _count(self, holds: bool, gpus: bool) -> int:
        """Workers: as asked, else one a GPU, or one a node for models without GPUs, or one a CPU."""
        if self.workers or not holds:
            return self.workers or max(1, self.room("CPU"))
        if gpus:
            return self.room("GPU")
        return max(1, sum(bool(node["Alive"] and node["Resources"].get("CPU", 0) >= 1) for node in self.ray.nodes()))

    def _dismiss(self) -> None:
        if self.actors is not None:
            with suppress(Exception):
                self.actors.dismiss()
        self.actors = None


@dataclass(eq=False)
class Worker:
    """An actor, and what it has to do."""

    place: int
    actor: Any
    ready: bool = False
    shares: int = 0


@dataclass
class Actors:
    """So many actors that do shares of one work after another."""

    cluster: Cluster
    count: int
    holds: bool
    gpus: bool
    workers: list[Worker] = field(default_factory=list)
    waiting: deque[Share] = field(default_factory=deque)
    flying: dict[Any, tuple[Worker, Share | None]] = field(default_factory=dict)
    """By Ray's reference to the result; without a share it is a new worker's first word."""
    stillborn: int = 0
    heard: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.ray = self.cluster.ray
        self.lanes, self.ahead = self.count, 2 * EACH * self.count
        self.threads = _threads() if self.holds else 0
        self.workers = [self._hired(place) for place in range(self.count)]

    def take(self, work: Work[Any, Any]) -> None:
        """This work from now on."""
        self.work = self.ray.put(work)
        self.heard = time.monotonic()

    def give(self, share: Share) -> None:
        self.waiting.append(share)

    def back(self) -> list[tuple[Share, Found | None]]:
        while True:
            self._deal()
            done, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=1.0)
            found = [one for ref in done if (one := self._got(ref)) is not None]
            if found:
                return found
            self._check_life()

    def drop(self) -> None:
        """Whoever still works on what nobody waits for is ended and replaced, when there is more to do."""
        if self.cluster.gone:
            return
        self.waiting.clear()
        busy = {worker.place for worker, share in self.flying.values() if share is not None}
        for place in busy:
            self.ray.kill(self.workers[place].actor)
        self.flying = {ref: (worker, share) for ref, (worker, share) in self.flying.items() if share is None}
        for place in busy:
            self.workers[place] = self._hired(place)

    def dismiss(self) -> None:
        for worker in self.workers:
            self.ray.kill(worker.actor)
        self.workers, self.flying = [], {}

    def _hired(self, place: int) -> Worker:
        actor = self.ray.remote(num_cpus=1, num_gpus=int(self.gpus), max_restarts=0, scheduling_strategy="SPREAD")(Desk)
        worker = Worker(place, actor.remote(str(Path.cwd()), self.threads))
        self.flying[worker.actor.hello.remote()] = (worker, None)
        return worker

    def _deal(self) -> None:
        """Shares to those that have room."""
        for share in list(self.waiting):
            worker = self._free(share)
            if worker is not None:
                self.waiting.remove(share)
                worker.shares += EACH if share.whole is not None else 1
                self.flying[worker.actor.do.remote(self.work, share.items)] = (worker, share)

    def _free(self, share: Share) -> Worker | None:
        """The one whose lane it is, or the idlest; for a share that may kill its worker one that has nothing else."""
        room = 0 if share.whole is not None else EACH - 1
        able = [worker for worker in self.workers if worker.ready and worker.shares <= room and share.lane in (None, worker.place)]
        return min(able, key=lambda worker: worker.shares, default=None)

    def _got(self, ref: Any) -> tuple[Share, Found | None] | None:
        """What came of a share; None for a first word, and for a share of a worker whose death has been told."""
        worker, share = self.flying.pop(ref)
        try:
            found = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:  # it lives, and could not even read what it was sent
            found = Failed.of(error.cause if isinstance(error.cause, Exception) else RuntimeError(_last_line(error)))
        except self.ray.exceptions.RayError as error:
            self._bury(worker, share, error)
            return None if share is None else (share, None)
        self.heard, self.stillborn = time.monotonic(), 0
        if share is None:
            self._check_code(found)
            worker.ready = True
            return None
        worker.shares -= EACH if share.whole is not None else 1
        return share, found

    def _bury(self, worker: Worker, share: Share | None, error: Exception) -> None:
        """Another in its place, once."""
        self._check_head()
        if share is None:
            self.stillborn += 1
            if self.stillborn >= STILLBORN:
                why = f"{STILLBORN} workers in a row could not be started, the last because: {_last_line(error)}"
                raise RunError(f"--engine {self.cluster.address}: {why}") from None
        if self.workers[worker.place] is worker:
            self.workers[worker.place] = self._hired(worker.place)

    def _check_code(self, told: Told) -> None:
        if self.cluster.address != "ray" and told != self.cluster.code:
            raise RunError(f"--engine {self.cluster.address}: a node has come with another Darkroom ({version(told)}). Install the same on each node.")

    def _check_head(self) -> None:
        """Raises RunError where the head is gone: whoever asks it for anything then waits for a minute, and is ended by ray."""
        if not is_there(self.cluster.head):
            self.cluster.gone = True
            raise RunError(f"--engine {self.cluster.address}: the cluster's head ({self.cluster.head}) is gone. {LEFT}")

    def _check_life(self) -> None:
        """Raises RunError where nobody is left who could ever do what waits."""
        quiet = time.monotonic() - self.heard
        if quiet > SILENT:
            self._check_head()
        if quiet < STARVED or any(worker.ready and worker.shares for worker in self.workers):
            return
        if not self.cluster.room("CPU"):
            raise RunError(f"--engine {self.cluster.address}: the cluster has lost all its workers' nodes. {LEFT}")
        if quiet > BUSY:
            raise RunError(f"--engine {self.cluster.address}: no worker could be started in {BUSY:.0f} seconds; all CPUs or GPUs may be taken. {LEFT}")


class Desk:
    """What runs in an actor."""

    def __init__(self, folder: str, threads: int) -> None:
        self.bench = Bench()
        if os.path.isdir(folder):  # noqa: PTH112 (relative paths mean what they mean to the asker)
            os.chdir(folder)
        if threads:  # Ray sets one; the last bits depend on it
            os.environ["OMP_NUM_THREADS"] = str(threads)
            import torch

            torch.set_num_threads(threads)

    def hello(self) -> Told:
        """Who it is."""
        return code_here()

    def do(self, work: Work[Item, Done], items: Sequence[Item]) -> Found:
        """A share."""
        return self.bench.tried(work, items)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
