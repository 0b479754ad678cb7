"""How far a job is, in a file that anybody may read at any time: what a terminal shows to one person, a page shows to many."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.files import finite, told

PROGRESS = "DARKROOM_PROGRESS"
"""The environment's word for the file that a job tells its progress in. Whatever a job starts inherits it: by it nothing of a job is overlooked."""
EVERY = 0.25
"""Seconds between two writings, at least."""
STAGES = 20
SAMPLES = 64
"""Moves by which a speed is told."""
LINE = 500
"""Characters of a line that are kept."""


@dataclass
class Stage:
    """One bar, and the last of its moves."""

    what: str
    done: int = 0
    total: int = 0
    note: str = ""
    moves: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def move(self, now: float, done: int, total: int, note: str) -> None:
        if done < self.done:  # another round of the same work
            self.moves.clear()
        self.done, self.total, self.note = done, total, note[:LINE]
        self.moves.append((now, done))

    @property
    def rate(self) -> float | None:
        """In a second, over the last moves; None before there are two."""
        (first, was), (last, now) = (self.moves[0], self.moves[-1]) if self.moves else ((0.0, 0), (0.0, 0))
        return (now - was) / (last - first) if last > first and now > was else None

    @property
    def left(self) -> float | None:
        """Seconds at this speed; None before there is one."""
        return (self.total - self.done) / self.rate if self.rate else None


class Ledger:
    """A `Reader` (jobs/watch.py) that writes where the job is, at most four times a second, and always in the end. A context."""

    def __init__(self, path: Path, complain: Callable[[str], None] = print, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.complain, self.clock = path, complain, clock
        self.began, self.stages, self.now = time.time(), dict[str, Stage](), ""
        self.said, self.newest, self.shown = "", dict[str, float](), ""
        self._writable, self._written = True, -1e9
        self._lock, self._later = threading.RLock(), list[threading.Timer]()

    @classmethod
    def asked(cls, complain: Callable[[str], None]) -> Ledger | None:
        """The ledger that the environment asks for; None where nobody does. Of several processes of one training the first one writes."""
        path = os.environ.get(PROGRESS)
        return cls(Path(path), complain) if path and os.environ.get("RANK", "0") == "0" else None

    def __enter__(self) -> Ledger:
        self._tell()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what has not been written yet."""
        with self._lock:
            if self._later:
                self._later[0].cancel()
                self._write()

    def say(self, text: str) -> None:
        """The last line said."""
        self.said = told(text)[:LINE]
        self._tell()

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """The bar called `what`, which becomes the one that is told first."""
        with self._lock:
            if what not in self.stages and len(self.stages) >= STAGES:
                del self.stages[next(iter(self.stages))]
            self.stages.setdefault(what, Stage(what[:LINE])).move(self.clock(), done, total, note)
            self.now = what
        self._tell()

    def figures(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """The newest of each of a training's figures, and its bar."""
        with self._lock:
            self.newest |= {**values, "step": step, "total": total}
        self.move("training", step, total, f"loss {values['loss']:.4f}" if "loss" in values else "")

    def picture(self, step: int, path: Path) -> None:
        """The newest preview."""
        self.shown = str(path)
        self._tell()

    def told(self) -> dict[str, Any]:
        """Everything, as JSON."""
        stage = self.stages.get(self.now) or Stage("")
        found: dict[str, Any] = finite(
            {
                "what": stage.what, "done": stage.done, "total": stage.total, "note": stage.note, "rate": stage.rate, "left": stage.left,
                "began": self.began, "at": time.time(), "said": self.said, "figures": self.newest or None, "picture": self.shown or None,
                "stages": [{"what": each.what, "done": each.done, "total": each.total} for each in self.stages.values()],
            }
        )  # fmt: skip
        return found

    def _tell(self) -> None:
        """Write now, or as soon as it may be: the last of many moves must not stay untold while the job rests."""
        with self._lock:
            rest = self._written + EVERY - self.clock()
            if rest <= 0:
                self._write()
            elif not self._later:
                later = threading.Timer(rest, lambda: self._late(later))
                later.daemon = True
                self._later.append(later)
                later.start()

    def _late(self, timer: threading.Timer) -> None:
        """Write what was put off, unless a move that came while the timer waited for its turn has written it: it cannot be cancelled any more."""
        with self._lock:
            if timer in self._later:
                self._write()

    def _write(self) -> None:
        """By a name of its own, and moved into place; without waiting for the disk, which a training would feel."""
        with self._lock:
            self._later.clear()
            self._written = self.clock()
            part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
            try:
                part.write_text(json.dumps(self.told(), ensure_ascii=False), encoding="utf-8")
                part.replace(self.path)
                self._writable = True
            except OSError as error:
                if self._writable:
                    self.complain(f"{self.path}: how far this is cannot be written there ({error.strerror}); the work goes on.")
                self._writable = False
