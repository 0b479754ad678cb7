"""Pictures from a folder or a table into a dataset: each row comes to an end that is written down, and a run that was stopped goes on where it stood."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from darkroom.data.fetch import Fetcher, Limits
from darkroom.data.journal import Origin, Pen
from darkroom.data.proof import Proof, Unusable, prove
from darkroom.data.shelf import Shelf
from darkroom.data.sources import Item, Source, Wanted, open_source
from darkroom.errors import DarkroomError, DatasetError, OutputError
from darkroom.jobs.bring import Bringing, Brought, Errand, copied, errand, unforeseen
from darkroom.jobs.collected import Collected, by_reason, way_on
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.watch import Silent, Watcher

AHEAD = 1000
"""Rows looked at ahead of the slowest, so that one slow host does not hold up the others."""
SAVE_EVERY = 60.0
"""Seconds between two writings of the manifest; more where a writing takes long."""


@dataclass(frozen=True)
class Collect:
    """What is to be collected, and how."""

    source: Path
    to: Path
    wanted: Wanted = field(default_factory=Wanted)
    limits: Limits = field(default_factory=Limits)
    link: bool = False
    """Local files become hard links where the file system has them."""
    retry: bool = False
    """Only rows that failed, and may do better another time."""
    permanent: bool = False
    """With `retry`: also those that would fail again."""


def collect(job: Collect, watcher: Watcher | None = None, engine: Engine | None = None) -> Collected:
    """Bring what the source has and the dataset has not. Raises DatasetError, OutputError, and KeyboardInterrupt with the way to go on."""
    watcher, engine = watcher or Silent(), engine or Local()
    _apart(job)
    source = open_source(job.source, job.wanted, job.to)
    with Pen(job.to) as pen:
        if pen.journal.broken:
            watcher.say(f"{pen.journal.path}: {pen.journal.broken} lines were cut off when a run was stopped; their rows are done again.")
        watcher.say(f"{source.name}: {source.told}")
        run = Run(job, source, Shelf(job.to, pen), pen.origin(source.name, source.label), watcher)
        try:
            if engine.name == "local":
                _complete(run.go(engine.workers))
            else:
                run.spread(engine)
        except KeyboardInterrupt:
            run.save()
            raise KeyboardInterrupt(f"Stopped at row {run.done:,} of {source.count:,}; nothing is lost. The same command goes on from here.") from None
        except BaseExceptionGroup as several:
            run.save()
            raise several.exceptions[0] from None
        return run.save()


def _apart(job: Collect) -> None:
    """That the source is not the dataset itself. Raises DatasetError."""
    source, to = job.source.resolve(), job.to.resolve()
    if source.is_dir() and (source == to or source.is_relative_to(to)):
        raise DatasetError(f"{job.source}: lies in the dataset itself. A folder of pictures is a dataset as it is: `darkroom screen {job.source}`.")


def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


class Run:
    """One pass over one source."""

    def __init__(self, job: Collect, source: Source, shelf: Shelf, origin: Origin, watcher: Watcher) -> None:
        self.job, self.source, self.shelf, self.origin, self.watcher = job, source, shelf, origin, watcher
        self.captions: dict[str, list[str]] = {}
        """By address, what the rows seen so far say."""
        self.there = {entry.address for entry in shelf.entries.values() if entry.source == origin.number and shelf.stands(entry)}
        self.done = self.again = self.failed = self.bytes = 0
        self.started = self.saved = time.monotonic()
        self.rest = SAVE_EVERY
        self.parts = (shelf.parts / str(number) for number in itertools.count())

    async def go(self, threads: int) -> None:
        """Every row to its end, many at a time, in this process; as many threads as asked for, or as there are cores, decode."""
        window = asyncio.Semaphore(AHEAD)
        self.pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "prove")
        try:
            async with Fetcher(self.job.limits, self._prove) as net, asyncio.TaskGroup() as rows:
                for item in self.source.items():
                    await asyncio.sleep(0)
                    if self._is_over(item):
                        self._count()
                        continue
                    await window.acquire()
                    rows.create_task(self._row(item, net)).add_done_callback(lambda _: window.release())
        finally:
            self.pool.shutdown(cancel_futures=True)
        self._retell()

    def spread(self, engine: Engine) -> None:
        """Every row to its end, brought by the engine's workers. Rows that a redirect leads to another worker's host go on in the next round."""
        engine.reaches(self.job.to)
        lanes = min(engine.hands, self.job.limits.jobs)
        work = Bringing(self.job.limits, lanes, self.job.link)
        out: dict[int, Item] = {}
        errands: Iterable[Errand] = self._errands(out, lanes)
        while errands:
            led: list[Errand] = []
            for brought in engine.each(work, errands, lane=lambda errand: errand.lane, ordered=False):
                if brought.onward:
                    led.append(brought.errand.onward(brought.onward, brought.seen, lanes))
                else:
                    self._receive(out.pop(brought.errand.number), brought)
            errands = led
        self._retell()

    def _errands(self, out: dict[int, Item], lanes: int) -> Iterator[Errand]:
        """What is to be brought; what is over, or cannot be tried, ends here."""
        for number, item in enumerate(self.source.items()):
            if self._is_over(item) or self.shelf.same(item, self.origin, tuple(self.captions[item.address])) is not None:
                self._count()
            elif item.unusable is not None:
                self._refuse(item, item.unusable)
                self._count()
            else:
                out[number] = item
                yield errand(number, item.address, next(self.parts).resolve(), item.local, lanes)

    def _receive(self, item: Item, brought: Brought) -> None:
        """What a worker brought, to its end."""
        part = brought.errand.part
        try:
            if brought.proof is None:
                raise brought.why or AssertionError("a proof, a reason or an address")
            self._put(item, brought.status, brought.proof, part)
        except Unusable as why:
            self._check_seen(item, why)
            self._refuse(item, why)
        finally:
            part.unlink(missing_ok=True)
        self._count()

    def _check_seen(self, item: Item, why: Unusable) -> None:
        """A file that is here and not where the worker is says nothing of the row. Raises DatasetError."""
        if why.reason == "no such file" and item.local is not None and item.local.is_file():
            raise DatasetError(f"{item.local}: is here, and a worker does not see it. Mount its folder under this path on each node, or use --engine local.")

    def _put(self, item: Item, status: str, proof: Proof, part: Path) -> None:
        self.shelf.put(item, self.origin, tuple(self.captions[item.address]), proof, part, status)
        self.bytes += proof.size

    def _is_over(self, item: Item) -> bool:
        """Whether nothing is to be done for the row. What it says of its picture is noted in any case."""
        if item.address in self.captions:
            self.again += 1
            said = self.captions[item.address]
            said += [item.caption] if item.caption and item.caption not in said else []
            return True
        self.captions[item.address] = [item.caption] if item.caption else []
        entry = self.shelf.entries.get((self.origin.number, item.address))
        if entry is None and (entry := self.shelf.recall(item, self.origin)) is not None:
            self.there.add(item.address)
        if entry is None:
            return self.job.retry
        if self.shelf.stands(entry):
            self.shelf.retell(entry, entry.captions, item)
            return True
        if item.unusable or item.local or not entry.reason:
            return False
        return not (self.job.retry and (entry.temporary or self.job.permanent))

    async def _row(self, item: Item, net: Fetcher) -> None:
        """One row to its end. Its own failure is written down; only a failure of the disk goes further."""
        part = next(self.parts)
        try:
            if self.shelf.same(item, self.origin, tuple(self.captions[item.address])) is None:
                status, proof = await self._bring(item, net, part)
                self._put(item, status, proof, part)
        except Unusable as why:
            self._refuse(item, why)
        except DarkroomError:
            raise
        except Exception as error:  # what nobody foresaw ends its row, not the run
            self._refuse(item, unforeseen(error))
        finally:
            part.unlink(missing_ok=True)
        self._count()

    async def _bring(self, item: Item, net: Fetcher, part: Path) -> tuple[str, Proof]:
        if item.unusable is not None:
            raise item.unusable
        if item.local is None:
            return await net.fetch(item.address, part)
        return await asyncio.get_running_loop().run_in_executor(self.pool, copied, item.local, part, self.job.link)

    async def _prove(self, part: Path) -> Proof:
        return await asyncio.get_running_loop().run_in_executor(self.pool, prove, part)

    def _refuse(self, item: Item, why: Unusable) -> None:
        self.failed += 1
        self.shelf.refuse(item, self.origin, why)

    def _count(self) -> None:
        self.done += 1
        self.watcher.move("collecting", self.done, self.source.count, f"{self.failed:,} failed" if self.failed else "")
        if time.monotonic() - self.saved > self.rest:
            self._save_between()

    def _save_between(self) -> None:
        """Write the manifest now and then, for whoever looks; the journal has it all in any case."""
        start = time.monotonic()
        try:
            self.save()
        except OutputError as error:
            self.watcher.say(str(error))
        self.saved = time.monotonic()
        self.rest = max(SAVE_EVERY, 20 * (self.saved - start))

    def _retell(self) -> None:
        """Captions that later rows of the source added to a picture, or changed. None is taken away: another run may just not have named the column."""
        for address, said in self.captions.items():
            entry = self.shelf.entries.get((self.origin.number, address))
            if said and entry is not None and not entry.reason:
                self.shelf.retell(entry, tuple(said))

    def save(self) -> Collected:
        """Write the manifest and tell how things stand. Raises DatasetError where there is not a single picture, OutputError."""
        found = self._found()
        if not self.shelf.first and not self.shelf.foreign:
            if self.done < self.source.count:
                return found
            raise DatasetError("\n".join([f"{self.source.name}: none of {found.rows:,} rows gave a picture.", *by_reason(found), *way_on(found)]))
        note = {name: value for name, value in asdict(found).items() if name not in ("source", "dataset", "seconds", "bytes", "new", "before")}
        self.shelf.save({self.source.name: note})
        return found

    def _found(self) -> Collected:
        entries = [self.shelf.entries.get((self.origin.number, address)) for address in self.captions]
        known = [entry for entry in entries if entry is not None]
        failed = [entry for entry in known if entry.reason]
        files = [entry for entry in known if entry.file]
        there = sum(entry.address in self.there for entry in files)
        copies = Counter(self.shelf.place(entry) for entry in known if not entry.file and self.shelf.stands(entry))
        most, count = copies.most_common(1)[0] if copies else ("", 0)
        return Collected(
            self.source.name, str(self.job.to), self.done, len(files) - there, there, copies.total(), most, count, self.again, len(entries) - len(known),
            dict(Counter(entry.reason for entry in failed).most_common()), sum(entry.temporary for entry in failed),
            len(self.shelf.first) + len(self.shelf.foreign), self.bytes, time.monotonic() - self.started,
        )  # fmt: skip
