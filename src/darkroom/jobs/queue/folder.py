"""One order on the disk: what was asked, how it stands, how far it is, what it said, what came of it. Every file is whole whenever it is read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from darkroom.files import write_json
from darkroom.jobs.queue.order import Order, read_order
from darkroom.spec import Spec

Standing = Literal["waiting", "running", "done", "failed", "cancelled", "paused", "lost"]
OPEN = ("waiting", "running")
NAME = re.compile(r"\d{6,9}-[0-9a-f]{6}")
LOG_ROOM = 4 << 20
"""Bytes that output.log may have before its end alone is kept."""
LOG_KEPT = 1 << 20
RESULT_ROOM = 1 << 20
"""Bytes of a result that is told with its order."""
TOLD_ROOM = 64 << 20
"""Bytes of what a command told at its end that are read at all."""


class State(Spec):
    """How an order stands."""

    state: Standing = "waiting"
    wish: Literal["cancel", "pause"] | None = None
    """What was asked of it while it ran and has not come about yet."""
    rank: int = 0
    """The lowest is next in its device's line."""
    put: float
    """Seconds since 1970, as all times."""
    began: float | None = None
    ended: float | None = None
    pid: int | None = None
    mark: str = ""
    """Which process of that number it is (`life.mark`)."""
    code: int | None = None
    """How its process ended; below 0 by that signal; None where nobody saw it."""
    message: str = ""
    follows: str | None = None
    """The order that it goes on with."""
    followed_by: str | None = None


@dataclass(frozen=True)
class Folder:
    """orders/NNNNNN-xxxxxx."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def number(self) -> int:
        return int(self.id.partition("-")[0])

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def log_file(self) -> Path:
        return self.path / "output.log"

    @property
    def said_file(self) -> Path:
        """What a command's standard output is written to; it becomes the result once the command has ended."""
        return self.path / "said.json"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    @property
    def preview(self) -> Path:
        return self.path / "preview.png"

    def order(self) -> Order:
        """What was asked. Raises RecipeError where another version wrote it, OSError where it is gone."""
        file = self.path / "order.json"
        return read_order(json.loads(file.read_text(encoding="utf-8")), str(file))

    def state(self) -> State:
        """How it stands. Raises OSError where it is gone."""
        return State.model_validate_json((self.path / "state.json").read_bytes())

    def write_state(self, state: State) -> None:
        write_json(self.path / "state.json", state.model_dump(mode="json"))

    def progress(self) -> dict[str, Any] | None:
        """How far it is; None before it has told."""
        return read_object(self.progress_file)

    def said(self) -> dict[str, Any] | None:
        """The JSON object that a command ends with; None where it did not come to it."""
        file = self.said_file if self.said_file.exists() else self.result_file  # a runner may have been killed right after moving it
        text = _tail(file, TOLD_ROOM).decode(errors="replace").strip()
        return _object(text) or _object(text.rpartition("\n")[2])  # a library may have printed before it

    def result(self) -> tuple[dict[str, Any] | None, bool]:
        """What came of it, and whether there is more than can be told: then it is in `result_file`."""
        try:
            large = self.result_file.stat().st_size > RESULT_ROOM
        except OSError:
            return None, False
        return (None, True) if large else (read_object(self.result_file), False)

    def log(self, size: int = 1 << 16) -> str:
        """The last `size` bytes of what it said."""
        text = b""
        for name in ("output.log", "output.old.log"):
            if len(text) < size:
                text = _tail(self.path / name, size - len(text)) + text
        return text.decode(errors="replace")

    def shorten_log(self) -> None:
        """Keep the end of a log that has grown too long. Whoever writes it appends, so that nothing has to be told to it."""
        try:
            if self.log_file.stat().st_size > LOG_ROOM:
                (self.path / "output.old.log").write_bytes(_tail(self.log_file, LOG_KEPT))
                os.truncate(self.log_file, 0)
        except OSError:  # a full disk: tried again in a moment
            return


def read_state(folder: Folder) -> State | None:
    """How an order stands; None where it is gone, or unreadable to this version."""
    try:
        return folder.state()
    except (OSError, ValidationError):
        return None


def shown_state(folder: Folder) -> State | None:
    """The same, with words in place of what cannot be read; None only where the order is gone."""
    state = read_state(folder)
    if state is None and folder.path.is_dir():
        return State(state="lost", put=folder.path.stat().st_mtime, message="How it stands cannot be read: state.json is missing or of another version.")
    return state


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is none."""
    try:
        return _object(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(-min(size, path.stat().st_size), os.SEEK_END)
            return file.read(size)
    except OSError:
        return b""
