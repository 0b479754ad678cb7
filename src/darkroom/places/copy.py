"""The working copy of an address: where it lies, and what of it was equal to the store when the two were last compared.

    CACHE/places/<hash of the address>/<its last word>     the copy itself, a file or a folder: everything else works on it as on any path
    CACHE/places/<hash of the address>/.place/             place.json (the address, whether there is work that was not pushed), known.jsonl, two locks

known.jsonl has a line for each file that was fetched or pushed, appended as it happens: a transfer that is killed goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom.errors import OutputError
from darkroom.files import PLACES, cache_folder, sha256_bytes, write_json
from darkroom.places.address import join, name_of
from darkroom.places.store import HIDDEN, Seen

LEFTOVERS = (".part", ".gone", ".link", ".lock")
"""How hidden names end of what is not finished, or is nobody else's business."""


@dataclass(frozen=True, slots=True)
class Stat:
    """A file of the copy as it lies there: bytes, and its time of change in nanoseconds."""

    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class Known:
    """A file that was the same here and there."""

    here: Stat
    there: Seen


@dataclass(frozen=True)
class Copy:
    """A working copy. Its address has no "/" at its end."""

    address: str
    kind: str = ""
    """"" is the whole of it; "glance" has big files without their inside."""

    @classmethod
    def of(cls, address: str, kind: str = "") -> Copy:
        return cls(address.rstrip("/"), kind)

    @classmethod
    def around(cls, path: Path) -> Copy | None:
        """The copy that a local path lies in; None where it lies in none."""
        parts = _below(path.resolve(), root())
        if not parts:
            return None
        facts = _facts(root() / parts[0] / ".place" / "place.json")
        return cls(facts["address"]) if "address" in facts else None

    @cached_property
    def home(self) -> Path:
        return root() / sha256_bytes(f"{self.kind} {self.address}".lstrip().encode())[:16]

    @property
    def path(self) -> Path:
        """The file or the folder."""
        return self.home / name_of(self.address)

    @property
    def notes(self) -> Path:
        return self.home / ".place"

    @property
    def facts(self) -> dict[str, Any]:
        return _facts(self.notes / "place.json")

    @property
    def writing(self) -> bool:
        """Whether there may be work in it that the store does not have."""
        return bool(self.facts.get("writing"))

    def begin(self, writing: bool) -> None:
        """Note what it is a copy of, and whether what changes in it is work or an accident."""
        facts = {"address": self.address, "name": self.path.name, "writing": writing}
        if self.facts != facts:
            try:
                write_json(self.notes / "place.json", facts)
            except OutputError as error:
                raise OutputError(f"{error} It is where {self.address} is worked on; DARKROOM_CACHE names another folder for it.") from None

    def here(self) -> dict[str, Stat]:
        """Every file of it by its relative name; "" is the copy itself, "../NAME" was made beside it."""
        found = {"": _stat(self.path)} if self.path.is_file() else {name: _stat(self.path / name) for name in sorted(_names(self.path))}
        found |= {f"../{name}": _stat(self.home / name) for name in sorted(self._beside())}
        return {name: stat for name, stat in found.items() if stat is not None}

    def _beside(self) -> Iterator[str]:
        for path in sorted(self.home.iterdir()) if self.home.is_dir() else ():
            if path != self.path and not path.name.startswith("."):
                yield from [path.name] if path.is_file() else (f"{path.name}/{name}" for name in _names(path))

    def local(self, name: str) -> Path:
        """Where a file of it lies."""
        if name.startswith("../"):
            return self.home / name.removeprefix("../")
        return self.path / name if name else self.path

    def stat(self, name: str) -> Stat | None:
        """As it lies there now; None where it does not."""
        return _stat(self.local(name))

    def there(self, name: str) -> str:
        """Where the store has it."""
        return f"{self.address.rpartition('/')[0]}/{name.removeprefix('../')}" if name.startswith("../") else join(self.address, name)

    def known(self) -> dict[str, Known]:
        """What was equal when it was last compared, by name."""
        found: dict[str, Known] = {}
        try:
            lines = (self.notes / "known.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if told["known"] is None:
                found.pop(told["name"], None)
            else:
                found[told["name"]] = Known(Stat(*told["known"][:2]), Seen(*told["known"][2:]))
        return found

    def learn(self, name: str, known: Known | None) -> None:
        """Append what is equal now; None where it is in neither."""
        told = None if known is None else [known.here.size, known.here.changed, known.there.size, known.there.tag]
        self.notes.mkdir(parents=True, exist_ok=True)
        with (self.notes / "known.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "known": told}) + "\n")

    def settle(self, known: Mapping[str, Known]) -> None:
        """Write what is known anew, a line a file."""
        lines = (json.dumps({"name": name, "known": [*asdict(one.here).values(), *asdict(one.there).values()]}) for name, one in sorted(known.items()))
        part = self.notes / ".known.part"
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        part.replace(self.notes / "known.jsonl")


def root() -> Path:
    """Where working copies lie."""
    return cache_folder().resolve() / PLACES


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def _facts(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _stat(path: Path) -> Stat | None:
    try:
        found = path.stat()
    except OSError:  # gone since it was listed
        return None
    return Stat(found.st_size, found.st_mtime_ns)


def stat_of(path: Path) -> Stat:
    """The file as it lies there now. Raises OSError."""
    found = path.stat()
    return Stat(found.st_size, found.st_mtime_ns)


def _names(folder: Path) -> Iterator[str]:
    """Relative names of files, unfinished ones and what Darkroom lays into stores aside."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _unfinished(name)]
        for name in files:
            if not _unfinished(name):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _unfinished(name: str) -> bool:
    return name.startswith(HIDDEN) or (name.startswith(".") and name.endswith(LEFTOVERS))
