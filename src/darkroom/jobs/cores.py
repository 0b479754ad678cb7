"""The same work on many files, on all cores, a few at a time; a file that kills its process stops nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import TypeVar

CHUNK = 16  # items that a process gets at once
ALONE = 48  # fewer items than this are done in this process: to start others takes longer

Item = TypeVar("Item")
Done = TypeVar("Done")


def on_all_cores(work: Callable[[Item], Done], items: Sequence[Item], died: Callable[[Item], Done], workers: int = 0) -> Iterator[Done]:
    """What `work` makes of each item, in any order. `work` is a function of a module; for an item that killed its process `died` says what came of it."""
    workers = min(workers or os.cpu_count() or 1, (len(items) + CHUNK - 1) // CHUNK)
    if len(items) < ALONE or workers < 2 or not _processes_start():
        yield from map(work, items)
        return
    chunks = iter([items[start : start + CHUNK] for start in range(0, len(items), CHUNK)])
    suspects: list[Item] = []
    with closing(_flow(work, chunks, workers, suspects)) as flow:
        yield from flow
    for item in suspects:
        yield _alone(work, item, died)


def _flow(work: Callable[[Item], Done], chunks: Iterator[Sequence[Item]], workers: int, suspects: list[Item]) -> Generator[Done, None, None]:
    """What processes bring back; what they held when one of them died goes to `suspects`, and new processes go on with the others."""
    pending: dict[Future[list[Done]], Sequence[Item]] = {}
    pool = _pool(workers)
    try:
        while True:
            for _, chunk in zip(range(3 * workers - len(pending)), chunks, strict=False):
                pending[pool.submit(_all, work, chunk)] = chunk
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                chunk = pending.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    suspects += [*chunk, *(item for left in pending.values() for item in left)]
                    pending.clear()
                    pool.shutdown(wait=False)
                    pool = _pool(workers)
                    break
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that are started fresh (a forked one could inherit a locked lock of torch's) and leave Ctrl-C to this one."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))


def _processes_start() -> bool:
    """They do not in a script that lacks `if __name__ == "__main__"`; then everything is done in this one."""
    try:
        with _pool(1) as pool:
            return pool.submit(int).result() == 0
    except (BrokenProcessPool, RuntimeError, OSError):
        return False


def _all(work: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    return [work(item) for item in items]


def _alone(work: Callable[[Item], Done], item: Item, died: Callable[[Item], Done]) -> Done:
    """In a process of its own, since one that it was in has died."""
    with _pool(1) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return died(item)
