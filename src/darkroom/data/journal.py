"""The journal of a collection: one JSON line for each row that came to an end, appended before its file appears. After a kill it tells what is done.

DATASET/.collect/journal.jsonl     read whole at the start of a run; a row's last line counts; a line that was cut off by a kill is passed over
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from darkroom.errors import DatasetError, OutputError
from darkroom.files import writable_folder

HIDDEN = ".collect"


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one row of one source."""

    source: int
    """The source's number: its place among those collected into this dataset."""
    number: int
    """The row's place in its source; the lower one of two equal pictures keeps the file."""
    address: str
    """The URL or the absolute path: with `source` the row's name."""
    status: str = ""
    """What came back: "200", "copied", "linked"; "" where nothing did."""
    fetched: str = ""
    """When, in ISO 8601, UTC."""
    file: str = ""
    """Where it lies below the dataset; "" for a copy of another row's picture, and for a failure."""
    sha256: str = ""
    size: int = 0
    changed: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    captions: tuple[str, ...] = ()
    licence: str = ""
    repeats: int = 1
    extra: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why there is no picture, in the few words that a summary counts by; "" where there is one."""
    detail: str = ""
    temporary: bool = False
    """Whether another time may bring it."""

    @property
    def name(self) -> tuple[int, str]:
        return self.source, self.address

    @property
    def facts(self) -> dict[str, Any]:
        """What there is to say of it."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) != getattr(EMPTY, name) or name in ("source", "number", "address")}

    @property
    def order(self) -> tuple[int, int, str]:
        """Which of two equal pictures goes first."""
        return self.source, self.number, self.address


@dataclass(frozen=True)
class Origin:
    """A source as the journal knows it: its number, and the folder below pictures/ that its files go to."""

    number: int
    label: str


EMPTY = Entry(0, 0, "")
FIELDS = tuple(f.name for f in dataclasses.fields(Entry))


class Journal:
    """The entries by row, and the sources, as they were when it was read. Raises DatasetError where another version wrote it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / HIDDEN / "journal.jsonl"
        self.entries: dict[tuple[int, str], Entry] = {}
        self.origins: dict[str, Origin] = {}
        self.broken = 0
        """Lines that are no JSON: what a kill cut off."""
        for record in self._records():
            self._take(record)

    def _records(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError
                except ValueError:
                    self.broken += 1
                    continue
                yield record

    def _take(self, record: dict[str, Any]) -> None:
        try:
            if "origin" in record:
                self.origins[record["origin"]] = Origin(record["number"], record["label"])
                return
            entry = Entry(**record | {"captions": tuple(record.get("captions", ()))})
        except (TypeError, KeyError):
            raise DatasetError(f"{self.path}: was written by another version of Darkroom. Collect into a new folder, or use that version.") from None
        self.entries[entry.name] = entry


class Pen:
    """Writes the journal, and locks the dataset while it is open. Raises OutputError where it cannot, or where another holds the lock."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        writable_folder(folder / HIDDEN, "--to")
        self.lock = FileLock(folder / HIDDEN / "lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"{folder}: another `darkroom collect` is writing there. Wait for it, or stop it first.") from None
        try:
            self.journal = Journal(folder)
            self.file = self.journal.path.open("ab", buffering=0)
            self._end_the_last_line()
        except DatasetError:
            self.lock.release()
            raise
        except OSError as error:
            self.lock.release()
            raise OutputError(f"{folder / HIDDEN}: cannot be written: {error.strerror}. Nothing was lost.") from None

    def _end_the_last_line(self) -> None:
        size = self.file.tell()
        if size:
            with self.journal.path.open("rb") as file:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    self._write(b"\n")

    def origin(self, source: str, label: str) -> Origin:
        """The source under its number; a new one gets the next, and a label that no other has."""
        if source not in self.journal.origins:
            taken = {origin.label.casefold() for origin in self.journal.origins.values()}
            free = next(name for n in range(1, len(taken) + 2) if (name := label if n == 1 else f"{label}-{n}").casefold() not in taken)
            origin = Origin(len(self.journal.origins), free)
            self._write_record({"origin": source, "number": origin.number, "label": origin.label})
            self.journal.origins[source] = origin
        return self.journal.origins[source]

    def add(self, entry: Entry) -> None:
        """Write down what became of a row; a later line replaces an earlier one. Raises OutputError."""
        self._write_record(entry.facts)
        self.journal.entries[entry.name] = entry

    def _write_record(self, record: Mapping[str, Any]) -> None:
        try:
            self._write(json.dumps(dict(record), ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"{self.journal.path}: cannot be written: {error.strerror}. What was collected is kept; make room and run it again.") from None

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self.file.write(data) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        self.lock.release()
