"""The local engine: processes of this machine, a few shares at a time; or this very process for work that holds a model, and for little work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from darkroom.jobs.engine.flow import Found, Lane, Share, flow
from darkroom.jobs.engine.work import Bench, Done, Failed, Item, Work

ALONE = 3
"""Fewer shares than this are done in this process: to start others takes longer."""


@dataclass
class Local:
    """This machine. Nothing is started before there is work, and nothing is left when it is done: a plain `Local()` needs no closing."""

    workers: int = 0
    """Processes; 0: as many as there are cores, and none for work that holds a model."""
    name: str = "local"
    bench: Bench = field(default_factory=Bench)

    @property
    def hands(self) -> int:
        return self.workers or os.cpu_count() or 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bench = Bench()

    def reaches(self, folder: Path) -> None:
        """It does."""

    def each(self, work: Work[Item, Done], items: Iterable[Item], lane: Lane[Item] | None = None, ordered: bool = True) -> Iterator[Done]:
        """See `Engine.each`. Lanes are kept by doing everything in this process."""
        count = 1 if work.holds and not self.workers else self.hands
        if count < 2 or lane is not None:
            yield from self._here(work, items)
            return
        few = work.share if work.holds else ALONE * work.share - 1
        first = list(islice(items := iter(items), few + 1))
        if len(first) <= few or not _processes_start():
            yield from self._here(work, chain(first, items))
            return
        with closing(flow(Processes(work, count), work, chain(first, items), None, ordered)) as found:
            yield from found

    def _here(self, work: Work[Item, Done], items: Iterable[Item]) -> Iterator[Done]:
        """In this process: the next share is asked for when the last one's results are taken."""
        items = iter(items)
        while some := list(islice(items, work.share)):
            yield from self.bench.do(work, some)


class Processes:
    """So many processes that do one work. When one dies the pool is broken: all that it held comes back as died, and a new pool goes on."""

    def __init__(self, work: Work[Any, Any], count: int) -> None:
        self.work, self.count = work, count
        self.lanes, self.ahead = count, 4 * count
        self.threads = _threads() if work.holds else 0
        self.flying: dict[Future[list[Any] | Failed], Share] = {}
        self.waiting: list[Share] = []
        self.pool: ProcessPoolExecutor | None = None

    def give(self, share: Share) -> None:
        self.waiting.append(share)

    def back(self) -> list[tuple[Share, Found | None]]:
        self._deal()
        done, _ = wait(self.flying, return_when=FIRST_COMPLETED)
        found: list[tuple[Share, Found | None]] = []
        for future in done:
            try:
                found.append((self.flying[future], future.result()))
            except BrokenProcessPool:
                found.append((self.flying[future], None))
        for future in done:
            del self.flying[future]
        if any(result is None for _, result in found):
            found += [(share, None) for share in self.flying.values()]
            self.drop()
        return found

    def _deal(self) -> None:
        """Hand out as many as keep everybody busy; one that may kill its process has the pool to itself."""
        room = 2 * self.count
        while self.waiting and len(self.flying) < room:
            share = next((share for share in self.waiting if share.whole is None), self.waiting[0])
            if share.whole is not None and self.flying:
                return
            self.pool = self.pool or _pool(self.count, self.work.holds, self.threads)
            try:
                future = self.pool.submit(_do, self.work, share.items)
            except BrokenProcessPool:  # a worker died since the last results came: what the pool held comes back as died; if that is nothing, another goes on
                if self.flying:
                    return
                self.drop()
                continue
            self.waiting.remove(share)
            self.flying[future] = share
            if share.whole is not None:
                return

    def drop(self) -> None:
        self.flying.clear()
        if self.pool is not None:
            running = list((getattr(self.pool, "_processes", None) or {}).values())
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in running:  # a share of a model's may take minutes, and nobody waits for it
                process.terminate()
            self.pool = None


def _pool(count: int, holds: bool = False, threads: int = 0) -> ProcessPoolExecutor:
    """Processes that are started fresh: a forked one could inherit a locked lock of torch's."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawn, _begin, (spawn.Value("i", 0), holds, threads))


def _begin(counter: Any, holds: bool, threads: int) -> None:
    """Leave Ctrl-C to the one that asked, and end with it. With a model: take one of the GPUs, and as many threads as it has: the last bits depend on them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_asker, daemon=True).start()
    if not holds:
        return
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = [card for card in seen.split(",") if card] if seen is not None else [str(card) for card in range(_cards())]
    if len(cards) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[number % len(cards)]
    import torch

    torch.set_num_threads(threads)


def _end_with_asker() -> None:
    """One that is killed says no goodbye, and its workers would wait for more to do for good."""
    if (asker := multiprocessing.parent_process()) is not None:
        asker.join()
        os._exit(1)


def _cards() -> int:
    """GPUs of this machine, without waking CUDA, which would fix the choice."""
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return 0


_bench = Bench()


def _do(work: Work[Item, Done], items: Sequence[Item]) -> list[Done] | Failed:
    """In a process of the pool."""
    return _bench.tried(work, items)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _processes_start() -> bool:
    """They do not in a script that lacks `if __name__ == "__main__"`; then everything is done in this one."""
    try:
        with _pool(1) as pool:
            return pool.submit(int).result() == 0
    except (BrokenProcessPool, RuntimeError, OSError):
        return False
