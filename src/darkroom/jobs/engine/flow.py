"""How work flows: cut into shares, a few of them under way at a time, brought back in order, and done again where a worker died.

not yet cut | waiting in the crew | with a worker | held until it is its turn | taken by whoever asked
            '------------------ at most crew.ahead shares ------------------'
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from darkroom.jobs.engine.work import Done, Failed, Item, Work

LIVES = 2
"""Workers that may die with a share before its items are done one by one."""
Lane = Callable[[Item], int]
Found = list[Any] | Failed


@dataclass(eq=False)
class Share:
    """Some items that one worker does."""

    number: int
    items: Sequence[Any]
    lane: int | None = None
    deaths: int = 0
    """Workers that died with it."""
    whole: Share | None = None
    """The share that this is one item of; it is given to a worker that has nothing else."""
    parts: list[Share] = field(default_factory=list)
    found: Found | None = None

    def split(self) -> list[Share]:
        """Its items, one by one."""
        self.parts = [Share(self.number, [item], self.lane, whole=self) for item in self.items]
        return self.parts


class Crew(Protocol):
    """Those who do shares: processes of this machine, or actors of a cluster."""

    lanes: int
    ahead: int
    """Shares that are given and not yet taken, at most."""

    def give(self, share: Share) -> None:
        """Have it done as soon as somebody is free."""

    def back(self) -> list[tuple[Share, Found | None]]:
        """Wait for some that came to an end: results, an error, or None where the worker died."""

    def drop(self) -> None:
        """Let go of what is under way: nobody waits for it any more."""


def flow(crew: Crew, work: Work[Item, Done], items: Iterable[Item], lane: Lane[Item] | None = None, ordered: bool = True) -> Generator[Done, None, None]:
    """What the crew makes of the items. An error comes at its place in the order, after the results before it."""
    shares = _cut(iter(items), work.share, lane, crew.lanes)
    held: dict[int, Found] = {}
    flying = following = 0
    try:
        while True:
            for share in islice(shares, max(0, crew.ahead - flying - len(held))):
                crew.give(share)
                flying += 1
            if not flying:
                return
            for share, found in crew.back():
                if (whole := _settled(crew, work, share, found)) is not None:
                    held[whole[0]] = whole[1]
                    flying -= 1
            while held and (following in held or not ordered):
                yield from _taken(held.pop(following if ordered else next(iter(held))))
                following += 1
    finally:
        crew.drop()


def _cut(items: Iterator[Item], size: int, lane: Lane[Item] | None, lanes: int) -> Iterator[Share]:
    """Shares of `size` items; with lanes each of one lane's alone."""
    number = 0
    if lane is None:
        while some := list(islice(items, size)):
            yield Share(number, some)
            number += 1
        return
    waiting: dict[int, list[Item]] = {}
    for item in items:
        some = waiting.setdefault(which := lane(item) % lanes, [])
        some.append(item)
        if len(some) == size:
            yield Share(number, waiting.pop(which), which)
            number += 1
    for which, some in waiting.items():
        yield Share(number, some, which)
        number += 1


def _settled(crew: Crew, work: Work[Item, Done], share: Share, found: Found | None) -> tuple[int, Found] | None:
    """The number of the share that is whole by this, with its results; None while there is more to do for it."""
    if found is None and share.whole is None:
        share.deaths += 1
        for again in [share] if share.deaths < LIVES else share.split():
            crew.give(again)
        return None
    share.found = _died(work, share.items[0]) if found is None else found
    whole = share.whole or share
    if any(part.found is None for part in whole.parts):
        return None
    results = [part.found for part in whole.parts] or [share.found]
    failed = next((found for found in results if isinstance(found, Failed)), None)
    return share.number, failed or [one for found in results if isinstance(found, list) for one in found]


def _died(work: Work[Item, Done], item: Item) -> Found:
    try:
        return [work.died(item)]
    except Exception as error:
        return Failed(error)


def _taken(found: Found) -> list[Any]:
    if isinstance(found, Failed):
        raise found.error
    return found
