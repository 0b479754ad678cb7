"""Looks at many pictures: by all workers, a few at a time, and remembered by what the files hold, so that a picture is read once and never again.

What was seen lies in the cache folder under the sha256 of the file. It is written every few seconds: a screening that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from darkroom.data.look import CODE, Look, Seen, look_at
from darkroom.files import cache_folder
from darkroom.jobs.engine import Engine, Work
from darkroom.jobs.measure import MEASURES, measure

FILE = f"looks-{CODE}.sqlite"
EVERY = 2.0  # seconds between two writes of what was seen


@dataclass(frozen=True)
class Task:
    """A file to look at, and what else to measure of it."""

    path: Path
    sha256: str
    look: bool
    measures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What came of a task."""

    task: Task
    seen: Seen | None
    measured: dict[str, float]


class Memory:
    """What was seen before, by sha256; in the cache folder, or nowhere where that cannot be written."""

    def __init__(self) -> None:
        self.lost = ""
        """Why nothing is remembered; "" where it is."""
        try:
            self.base = self._open(cache_folder() / "looks" / FILE)
        except (OSError, sqlite3.Error) as error:
            self.lost = f"{cache_folder()}: what is seen cannot be kept there ({error}); the next screening reads all pictures again."
            self.base = self._open(None)
        self.written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(sqlite3.Error):
            self.base.commit()
        self.base.close()

    def _open(self, path: Path | None) -> sqlite3.Connection:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(path or ":memory:", timeout=60)
        try:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")
            base.execute("CREATE TABLE IF NOT EXISTS looks (sha256 TEXT PRIMARY KEY, facts TEXT, prints BLOB, thumb BLOB) WITHOUT ROWID")
            base.execute(
                "CREATE TABLE IF NOT EXISTS measured (sha256 TEXT, name TEXT, code INTEGER, value REAL, PRIMARY KEY (sha256, name, code)) WITHOUT ROWID"
            )
            base.execute("CREATE TABLE IF NOT EXISTS pairs (key TEXT PRIMARY KEY, pairs BLOB)")
        except sqlite3.DatabaseError:
            base.close()
            if path is None or not path.is_file():
                raise
            path.unlink()  # a cache may be deleted at any time, and this one is no database
            return self._open(path)
        return base

    def find(self, sha256: str) -> Seen | None:
        """What was seen of the file with these bytes."""
        row = self.base.execute("SELECT facts, prints, thumb FROM looks WHERE sha256 = ?", (sha256,)).fetchone()
        if row is None:
            return None
        return Seen(Look.from_dict(json.loads(row[0])), np.frombuffer(row[1], np.uint64) if row[1] else None, row[2])

    def measured(self, sha256: str) -> dict[str, float]:
        """What was measured of it by option, by today's code."""
        rows = self.base.execute("SELECT name, code, value FROM measured WHERE sha256 = ?", (sha256,))
        return {name: value for name, code, value in rows if name in MEASURES and MEASURES[name][0] == code}

    def pairs(self, key: str, find: Callable[[], npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """(n, 2) pairs that were found under this key, or are now."""
        row = self.base.execute("SELECT pairs FROM pairs WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return np.frombuffer(row[0], np.int64).reshape(-1, 2)
        found = find()
        self.base.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (key, found.tobytes()))
        return found

    def keep(self, report: Report) -> None:
        """Remember it. A file that gave no picture is not remembered: the next reader may know its format."""
        seen = report.seen
        if seen is not None and not seen.look.fault:
            prints = seen.prints.tobytes() if seen.prints is not None else None
            facts = json.dumps(seen.look.as_dict())
            self.base.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", (report.task.sha256, facts, prints, seen.thumb))
        for name, value in report.measured.items():
            self.base.execute("INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?)", (report.task.sha256, name, MEASURES[name][0], value))
        if time.monotonic() - self.written > EVERY:
            self.base.commit()
            self.written = time.monotonic()


def reports(tasks: Iterable[Task], engine: Engine) -> Iterator[Report]:
    """Do the tasks, in their order. No picture can stop it: one that kills its worker is reported as unreadable."""
    yield from engine.each(Looking(), tasks)


@dataclass(frozen=True)
class Looking(Work[Task, Report]):
    """Looks at files, wherever it is done."""

    def open(self) -> Callable[[Sequence[Task]], list[Report]]:
        return lambda tasks: [do(task) for task in tasks]

    def died(self, item: Task) -> Report:
        told = "the decoder died of it. Take it out of the folder, or replace it with a whole copy."
        return Report(item, Seen(Look(fault="unreadable", told=told)), {})


def do(task: Task) -> Report:
    """One task, in this process."""
    seen = look_at(task.path) if task.look else None
    readable = seen is None or not seen.look.fault
    return Report(task, seen, {name: measure(name, task.path) for name in task.measures} if readable else {})
