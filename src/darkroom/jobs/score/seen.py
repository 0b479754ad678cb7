"""Which features of a picture's networks are in the store, by the file that the picture came from: what a part need not compute again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from darkroom.jobs.score.items import Item
from darkroom.jobs.score.store import Store

if TYPE_CHECKING:
    from darkroom.jobs.score.panel import Answer


@dataclass
class Seen:
    """For one walk through the pictures: what was known before it, whatever is found out meanwhile, since that depends on who is quicker."""

    store: Store
    planned: set[str] = field(default_factory=set)
    """Files (by sha256) that are part of the walk."""

    def known(self, items: Sequence[Item]) -> dict[str, bytes]:
        """The features of these files; none of a file that came before in this walk."""
        found: dict[str, bytes] = {}
        for item in items:
            if item.sha256 not in self.planned:
                names = (self.store.get(_key(item.sha256)) or b"").decode().split("\n")
                found |= {name: value for name in names if name and (value := self.store.get(name)) is not None}
        self.planned |= {item.sha256 for item in items}
        return found

    def found(self, answer: Answer) -> dict[str, bytes]:
        """What to put into the store: the new features, and by which files they are found. What is there stays as it is, to the last bit."""
        new = {name: value for name, value in answer.features.items() if self.store.get(name) is None}
        for sha256, names in answer.seen.items():
            before = (self.store.get(_key(sha256)) or b"").decode().split("\n")
            if not set(names) <= set(before):
                new[_key(sha256)] = "\n".join(dict.fromkeys(name for name in (*before, *names) if name)).encode()
        return new


def _key(sha256: str) -> str:
    return f"seen {sha256}"
