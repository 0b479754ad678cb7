"""Which shards there are, in a folder or at an address, and whether they are those that shards.json tells of: what unpacking and streaming both ask first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom.data.manifest import is_dataset
from darkroom.data.member import Archive
from darkroom.data.picture import ENDINGS
from darkroom.data.shards import INDEX, parse_index, read_index
from darkroom.errors import DatasetError
from darkroom.places.address import is_address, join


@dataclass(frozen=True)
class Archives:
    """The shards of one export, in the order of their names."""

    source: str
    found: tuple[Archive, ...]
    index: Mapping[str, Any] = field(default_factory=dict)
    """shards.json; empty where there is none."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was done to the dataset before it was packed."""
        notes: Mapping[str, Any] = self.index.get("notes", {})
        return notes

    @cached_property
    def _expected(self) -> dict[str, str]:
        return {entry["name"]: entry["sha256"] for entry in self.index.get("shards", [])}

    @property
    def missing(self) -> list[str]:
        """Shards that shards.json names and that are not there."""
        there = {archive.path.name for archive in self.found}
        return sorted(set(self._expected) - there)

    def check_all_there(self) -> None:
        """Raises DatasetError where shards.json names a shard that is missing, or was written by an export that did not end."""
        if missing := self.missing:
            raise DatasetError(f"{_below(self.source, missing[0])}: is missing, and {INDEX} names it ({len(missing)} in all). Copy the shards again.")
        if not self.index.get("complete", True):
            raise DatasetError(
                f"{self.source}: these shards were not written to their end ({len(self.found)} are there). Go on with `darkroom dataset shards DATASET --to "
                f"{self.source}`, which keeps what is there, or take {INDEX} away to read them as they are."
            )

    def check_same(self, archive: Archive, digest: str) -> None:
        """Raises DatasetError where the shard has other bytes than shards.json says."""
        if self._expected.get(archive.path.name, digest) != digest:
            raise DatasetError(f"{archive.address}: is not the file that {INDEX} tells of. Copy it again.")


def holds_shards(source: str | Path) -> bool:
    """Whether there are shards and nothing else to learn from: a .tar file, or a folder or address of them that holds no picture and no manifest."""
    if is_address(str(source)):
        names = _listed(str(source))
        return _are_shards(set(names)) or (set(names) == {""} and str(source).endswith(".tar"))
    path = Path(source)
    if not path.is_dir():
        return path.suffix == ".tar" and path.is_file()
    return not is_dataset(path) and _are_shards({inner.name for inner in path.iterdir()})


def _are_shards(names: set[str]) -> bool:
    tars = any(name.endswith(".tar") for name in names)
    return INDEX in names or (tars and not any(Path(name).suffix.lower() in ENDINGS for name in names))


def find_archives(source: str | Path) -> Archives:
    """The shards of a folder or an address, or the one that is named. Raises DatasetError where there is none, PlaceError for an address out of reach."""
    if is_address(str(source)):
        return _at_address(str(source))
    path = Path(source)
    if path.is_file():
        return Archives(str(path), (Archive.of(path),))
    found = sorted(path.glob("*.tar"))
    index = (read_index(path) if path.is_dir() else None) or {}
    if not found and not index:
        what = "holds no .tar file" if path.is_dir() else "there is no such file or folder"
        raise DatasetError(f"{path}: {what}. Name a folder of WebDataset shards, or one of them.")
    return Archives(str(path), tuple(map(Archive.of, found)), index)


def _at_address(address: str) -> Archives:
    from darkroom.places.store import read_bytes

    listed = _listed(address)
    found = [Archive(_below(address, name), seen.size, seen.tag) for name, seen in sorted(listed.items()) if not name or name.endswith(".tar")]
    if not found:
        raise DatasetError(f"{address}: there is no .tar file. Name a folder of WebDataset shards, or one of them.")
    where = _below(address, INDEX)
    return Archives(address, tuple(found), parse_index(read_bytes(where), where) if INDEX in listed else {})


def _listed(address: str) -> dict[str, Any]:
    """What lies right below an address, or the file itself under ""."""
    from darkroom.places.store import listing

    return {name: seen for name, seen in listing(address).items() if "/" not in name}


def _below(source: str, name: str) -> str:
    return join(source, name) if is_address(source) else str(Path(source) / name)
