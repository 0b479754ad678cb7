"""What a collection came to, and which rows gave no picture: as figures and in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from darkroom.data.journal import HIDDEN, Entry, Journal
from darkroom.data.sources import name_of
from darkroom.errors import DatasetError
from darkroom.files import told as told_as

MANY = 10
"""Copies of one picture that are worth a word."""


@dataclass(frozen=True)
class Collected:
    """How every row of the source stands now, and what this run did."""

    source: str
    dataset: str
    rows: int
    new: int
    """Pictures that this run brought."""
    before: int
    """Pictures that were there."""
    copies: int
    """Rows whose picture is, byte for byte, that of another row."""
    most_copied: str
    """The picture that most rows share: many a server answers with one and the same for what it does not have."""
    most_copies: int
    again: int
    """Rows that name what an earlier row of the source names."""
    untried: int
    """Rows that `retry` left alone."""
    failed: dict[str, int]
    """Rows by the reason why they gave no picture."""
    temporary: int
    """How many of the failed may do better another time."""
    pictures: int
    """Pictures in the dataset, from this and other sources."""
    bytes: int
    seconds: float


def failures_of(to: Path, source: Path | None = None) -> list[Entry]:
    """The rows that gave no picture, of one source or of all. Raises DatasetError where nothing was collected there."""
    if not (to / HIDDEN).is_dir():
        raise DatasetError(f"{to}: nothing was collected into it. `darkroom collect SOURCE --to {to}` does.")
    journal = Journal(to)
    numbers = {origin.number for name, origin in journal.origins.items() if source is None or name == told_as(name_of(source))}
    if not numbers:
        raise DatasetError(f"{source}: was not collected into {to}. These were: {', '.join(journal.origins) or 'none'}.")
    found = [entry for entry in journal.entries.values() if entry.reason and entry.source in numbers]
    return sorted(found, key=lambda entry: entry.order)


def lines(found: Collected) -> list[str]:
    """How every row of the source stands, in words."""
    outcomes = {
        f"new, {found.bytes / 1e6:,.1f} MB in {found.seconds:.1f} s": found.new,
        "there before": found.before,
        "copies, byte for byte, of other rows (kept once)": found.copies,
        "rows that name a picture of an earlier row": found.again,
        "not tried yet": found.untried,
    }
    if found.most_copies >= MANY:
        outcomes[f"of these copies are of {found.most_copied}: is it a placeholder?"] = found.most_copies
    told = [f"{count:>9,}  {what}" for what, count in outcomes.items() if count or what.startswith("new")]
    return [f"{found.rows:>9,}  rows of {found.source}", *told, *by_reason(found), f"{found.pictures:>9,}  pictures in {found.dataset}", *way_on(found)]


def by_reason(found: Collected) -> list[str]:
    """The rows that gave no picture, counted by the reason."""
    return [f"{count:>9,}  failed: {reason}" for reason, count in found.failed.items()]


def way_on(found: Collected) -> list[str]:
    """What can be done about them."""
    if not found.failed:
        return []
    again = f"; --retry tries {found.temporary:,} of them again" if found.temporary else ""
    return [f"See each with `darkroom collect --to {found.dataset} --failures`{again}."]


def failure_lines(entries: Iterable[Entry]) -> list[str]:
    """One line a row that gave no picture."""
    return [f"{entry.reason}{' (temporary)' * entry.temporary}: {entry.address[:300]}{f': {entry.detail[:300]}' if entry.detail else ''}" for entry in entries]
