"""A rater's file of answers: one JSON line each, only ever appended to. What was begun and not finished is ignored, and never lost in silence."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from darkroom.errors import OutputError, RunError
from darkroom.statistics.choice import ANSWERS

TEXTS = ("pair", "left", "right", "prompt", "seal")


@dataclass(frozen=True)
class Answers:
    """What a rater's file says now."""

    standing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By pair, the answer that was not taken back, in the order in which they were given."""
    undone: int = 0
    broken: int = 0
    """Lines that are no answers, such as the half one of a power cut."""


def ratings_folder(trial: Path) -> Path:
    """Where a trial keeps what was rated."""
    return trial / "ratings"


def answers_file(trial: Path, rater: str) -> Path:
    """One rater's."""
    return ratings_folder(trial) / f"{rater}.jsonl"


def raters(trial: Path) -> list[str]:
    """Who has a file there."""
    return sorted(path.stem for path in ratings_folder(trial).glob("*.jsonl"))


def read_answers(path: Path) -> Answers:
    """The answers that stand. A missing file holds none. Raises RunError for one that cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise RunError(f"{path}: the answers cannot be read: {error.strerror}. Change its permissions.") from None
    standing: dict[str, dict[str, Any]] = {}
    undone = broken = 0
    for row in filter(str.strip, text.split("\n")):
        match _parsed(row):
            case {"undo": str(id)}:
                undone += standing.pop(id, None) is not None
            case {"pair": str(id)} as said if _whole(said):
                standing.pop(id, None)  # the later one counts, and comes later
                standing[id] = said
            case _:
                broken += 1
    return Answers(standing, undone, broken)


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines in one write, each with its time, and see them to the disk. A half line at the end is closed first. Raises OutputError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = "".join(json.dumps({**one, "time": now}, ensure_ascii=False, allow_nan=False) + "\n" for one in lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            data = (("\n" if _half(path) else "") + text).encode()
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "the disk took only a part of it")
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"{path}: the answer could not be written: {error.strerror}. Free some space or change the folder's permissions, and answer again."
        ) from None


def _half(path: Path) -> bool:
    """Whether the last line was cut off."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _parsed(row: str) -> Any:
    try:
        return json.loads(row)
    except (ValueError, RecursionError):
        return None


def _whole(said: Mapping[str, Any]) -> bool:
    texts = all(isinstance(said.get(key), str) for key in TEXTS) and said["left"] != said["right"]
    return texts and said.get("answer") in ANSWERS and isinstance(said.get("seed"), int) and isinstance(said.get("again"), bool)
