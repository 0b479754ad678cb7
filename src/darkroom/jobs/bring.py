"""Rows brought by workers: each is fetched or copied, and proved to be a picture, where a worker is. Where it stands is written by the one process that asked.

All rows of a host go to one worker, so that the limits for a host, and the waits it asks for, hold over all workers together. A redirect to a host that is
another worker's comes back, and goes on there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from darkroom.data.fetch import Elsewhere, Fetcher, Limits
from darkroom.data.part import begin, write
from darkroom.data.proof import DAMAGED, Proof, Unusable, prove
from darkroom.errors import DarkroomError
from darkroom.fence import leads_out
from darkroom.jobs.engine import Work


@dataclass(frozen=True)
class Errand:
    """A row to be brought into the file `part`."""

    number: int
    address: str
    part: Path
    lane: int
    local: Path | None = None
    seen: tuple[str, ...] = ()
    """The addresses that led here."""

    def onward(self, url: str, seen: tuple[str, ...], lanes: int) -> Errand:
        """The same row, where another host has it."""
        return dataclasses.replace(self, address=url, seen=seen, lane=lane_of(_host(url), lanes))


@dataclass(frozen=True)
class Brought:
    """What came of it: a status with a proof, why not, or where to go on."""

    errand: Errand
    status: str = ""
    proof: Proof | None = None
    why: Unusable | None = None
    onward: str = ""
    seen: tuple[str, ...] = ()


def errand(number: int, address: str, part: Path, local: Path | None, lanes: int) -> Errand:
    """A row's errand; local files are nobody's in particular."""
    return Errand(number, address, part, lane_of(address if local else _host(address), lanes), local)


def lane_of(host: str, lanes: int) -> int:
    """Whose the host is."""
    return zlib.crc32(host.encode(errors="replace")) % lanes


@dataclass(frozen=True)
class Bringing(Work[Errand, Brought]):
    """Fetches and proves the rows of a share at the same time, within the limits."""

    limits: Limits
    lanes: int
    """Workers that fetch; they share `limits.jobs`."""
    link: bool = False
    share: int = 32

    def open(self) -> Callable[[Sequence[Errand]], list[Brought]]:
        loop, pool = asyncio.new_event_loop(), ThreadPoolExecutor(1, "prove")

        async def check(part: Path) -> Proof:
            return await loop.run_in_executor(pool, prove, part)

        net = Fetcher(dataclasses.replace(self.limits, jobs=max(1, self.limits.jobs // self.lanes)), check)

        async def bring(errand: Errand) -> Brought:
            if errand.local is not None:
                return Brought(errand, *await loop.run_in_executor(pool, copied, errand.local, errand.part, self.link))
            return Brought(errand, *await net.fetch(errand.address, errand.part, errand.seen, lambda host: lane_of(host, self.lanes) == errand.lane))

        async def all_of(errands: Sequence[Errand]) -> list[Brought]:
            return await asyncio.gather(*(_told(errand, bring) for errand in errands))

        return lambda errands: loop.run_until_complete(all_of(errands))

    def died(self, item: Errand) -> Brought:
        return Brought(item, why=Unusable(DAMAGED, "the decoder died of it"))


async def _told(errand: Errand, bring: Callable[[Errand], Awaitable[Brought]]) -> Brought:
    """A row's own failure as a value; only a failure of the disk goes further."""
    try:
        return await bring(errand)
    except Elsewhere as there:
        return Brought(errand, onward=there.url, seen=there.seen)
    except Unusable as why:
        return Brought(errand, why=why)
    except DarkroomError:
        raise
    except Exception as error:  # what nobody foresaw ends its row, not the run
        return Brought(errand, why=unforeseen(error))


def unforeseen(error: Exception) -> Unusable:
    """A row's failure that has no other name."""
    return Unusable("an unforeseen failure", f"{type(error).__name__}: {error}", temporary=True)


def copied(source: Path, part: Path, link: bool) -> tuple[str, Proof]:
    """A copy of the file, or another name for it, and what it is. Raises Unusable where it is no picture, OutputError where it cannot be written."""
    if leads_out(source):
        raise Unusable("a file outside of the studio's folders", "`darkroom studio --folder`, or the command line")
    if not source.is_file():  # nor a folder, a pipe or a device, which would never end
        raise Unusable("no such file", "" if source.parent.is_dir() else "nor its folder; is a --prefix missing?")
    return ("linked" if link and _linked(source, part) else _copy(source, part)), prove(part)


def _linked(source: Path, part: Path) -> bool:
    """Whether the file could be given another name: not on another file system, nor on one without hard links."""
    try:
        part.unlink(missing_ok=True)  # of a worker that was killed
        os.link(source.resolve(), part)
    except OSError:
        return False
    return True


def _copy(source: Path, part: Path) -> str:
    try:
        with source.open("rb") as file, begin(part) as copy:
            while piece := file.read(1 << 20):
                write(copy, piece, part)
    except (OSError, ValueError) as error:
        raise Unusable("a file that cannot be read", getattr(error, "strerror", "") or str(error)) from None
    return "copied"


def _host(address: str) -> str:
    """As the client reads it; what it cannot read is nobody's host."""
    try:
        return (urlsplit(f"https:{address}" if address.startswith("//") else address).hostname or "").lower()
    except ValueError:
        return ""
