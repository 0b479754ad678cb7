"""A run while it goes: what its log says since it was last read, the loss without its jumps, and the pictures and checkpoints so far.

A page asks again and again, and each time wants the new rows alone. It says how far it has read ("INODE:ROWS"); where the log was written anew, as a resume
does that takes steps again, it is told to begin anew.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.fence import leads_out
from darkroom.jobs.readings import KEEP

MOST = 2000
"""Rows in one answer: a curve is no wider."""
OPEN = 32
"""Logs that are remembered."""
FIGURES = ("loss", "smooth", "validation", "rate", "grad_norm", "seconds", "memory_mib")
Row = dict[str, float]


@dataclass
class Log:
    """One log.jsonl, read as it grows."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    mark: int = 0
    """Which file it was: another one has another number."""
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        """Take in what was written since."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self.rows, self.mark, self.offset = [], 0, 0
            return
        if stat.st_ino != self.mark or stat.st_size < self.offset:
            self.rows, self.mark, self.offset = [], stat.st_ino, 0
        if stat.st_size == self.offset:
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text.rfind(b"\n") + 1  # a line that is being written is read next time
        self.offset += whole
        for line in text[:whole].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            row: Row = {"step": int(found["step"])} | {key: float(found[key]) for key in FIGURES if isinstance(found.get(key), int | float)}
        except (ValueError, KeyError, TypeError):
            return
        if "loss" in row:
            before = next((last["smooth"] for last in reversed(self.rows) if "smooth" in last), row["loss"])
            row["smooth"] = KEEP * before + (1 - KEEP) * row["loss"]
        self.rows.append(row)

    def since(self, after: str) -> dict[str, Any]:
        """{"rows", "after", "anew"}: the rows after that mark, thinned; "anew" where they are all there are and earlier ones are to be dropped."""
        with self.lock:
            self.read()
            mark, _, count = after.partition(":")
            known = int(count) if mark == str(self.mark) and count.isdecimal() and int(count) <= len(self.rows) else 0
            return {"rows": thinned(self.rows[known:]), "after": f"{self.mark}:{len(self.rows)}", "anew": known == 0}

    def latest(self) -> Row:
        """The newest of each figure."""
        found: Row = {}
        for row in self.rows[-200:]:
            found |= row
        return found

    @property
    def speed(self) -> float | None:
        """Steps in a second over the last twenty, as they were logged: saving and previews are not in it. None before there are any."""
        taken = [row["seconds"] for row in self.rows[-20:] if row.get("seconds")]
        return len(taken) / sum(taken) if taken else None


def thinned(rows: list[Row], most: int = MOST) -> list[Row]:
    """At most about so many rows: of each stretch the mean loss; measurements of held-out pictures are all kept."""
    if len(rows) <= most:
        return rows
    width = -(-len(rows) // most)
    return [row for at in range(0, len(rows), width) for row in _stretch(rows[at : at + width])]


def _stretch(rows: list[Row]) -> Iterable[Row]:
    losses = [row["loss"] for row in rows if "loss" in row]
    *before, last = rows
    yield from ({"step": row["step"], "validation": row["validation"]} for row in before if "validation" in row)
    yield last | ({"loss": sum(losses) / len(losses)} if losses else {})


class Logs:
    """The logs of the runs that are looked at, the latest so many."""

    def __init__(self) -> None:
        self.known: OrderedDict[Path, Log] = OrderedDict()
        self.lock = threading.Lock()

    def of(self, run: Path) -> Log:
        """The log of a run folder."""
        with self.lock:
            log = self.known.setdefault(run, Log(run / "log.jsonl"))
            self.known.move_to_end(run)
            while len(self.known) > OPEN:
                self.known.popitem(last=False)
        return log


@dataclass(frozen=True)
class Frame:
    """One preview."""

    step: int
    prompt: int
    path: Path
    stamp: int
    """Another one where it was drawn again."""


def frames(run: Path) -> list[Frame]:
    """The previews so far, by step and prompt; what is being written is left out."""
    found = []
    for path in (run / "previews").glob("[0-9]*_[0-9]*.png"):
        step, _, prompt = path.stem.partition("_")
        if step.isdecimal() and prompt.isdecimal() and not leads_out(path):
            try:
                found.append(Frame(int(step), int(prompt), path, path.stat().st_mtime_ns // 1_000_000))
            except FileNotFoundError:
                continue
    return sorted(found, key=lambda frame: (frame.step, frame.prompt))
