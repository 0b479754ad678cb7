"""Shards as a dataset that is learned from where it lies: the rows that unpacking would give, and for each picture its place within a shard.

Each shard is read once from its start to its end: hashed, its rows taken, its pictures proved whole as a folder's are. What was found is kept in the cache
under the shard's address, size and time of change (or what its store calls its state), so that another start reads no shard; pictures are then read by their
places. They are never all in memory, and never written anywhere.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from darkroom.data.adopt import described
from darkroom.data.archives import Archives, find_archives
from darkroom.data.manifest import Manifest, Row
from darkroom.data.member import Archive, Member
from darkroom.data.picture import BrokenPicture, read_picture
from darkroom.data.samples import MASK, BrokenShard, Place, Sample, Tape, row_from, row_of, samples
from darkroom.data.shards import told
from darkroom.errors import DatasetError, OutputError
from darkroom.files import atomic, cache_folder, sha256_bytes
from darkroom.places.address import is_address

VERSION = 1  # raise it when what is noted of a shard changes
AT_ONCE = 4  # shards that are looked into at the same time, at most
NAMED = 20  # mistakes that are told in full
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Streamed:
    """The dataset of shards: its rows, and by their files where each picture and mask lies, and what is wrong with a picture."""

    source: str
    manifest: Manifest
    pictures: Mapping[str, Member]
    masks: Mapping[str, Member]
    faults: Mapping[str, str]
    without: int
    """Samples that have no picture and are left out."""

    def path(self, row: Row) -> Member:
        """Where the row's picture lies."""
        return self.pictures[row.file]

    def mask(self, row: Row) -> Member | None:
        """Where its mask lies, if it has one."""
        return self.masks.get(row.file)


@dataclass(frozen=True)
class Contents:
    """What was found in one shard."""

    archive: Archive
    sha256: str
    samples: tuple[tuple[Row, Member, Member | None, str], ...]
    """Each picture's row, its place, its mask's, and what is wrong with it."""
    without: int


def read_streamed(source: str | Path, progress: Progress = lambda done, total: None) -> Streamed:
    """The dataset of the shards in a folder or at an address. Raises DatasetError for shards that are broken, missing, or of which two hold one picture."""
    archives = find_archives(source)
    contents = look_into(archives, archives.found, progress)
    rows: dict[str, Row] = {}
    pictures: dict[str, Member] = {}
    masks: dict[str, Member] = {}
    faults: dict[str, str] = {}
    for row, picture, mask, fault in (sample for each in contents for sample in each.samples):
        if row.file in rows:
            raise DatasetError(f"{picture}: is {row.file}, and so is {pictures[row.file]}. A dataset has each file once: take one of the two shards away.")
        rows[row.file], pictures[row.file] = row, picture
        masks |= {row.file: mask} if mask else {}
        faults |= {row.file: fault} if fault else {}
    without = sum(each.without for each in contents)
    if not rows:
        raise DatasetError(f"{source}: its shards hold no picture ({without} samples without one).")
    manifest = Manifest(Path(source), ()).but(rows.values(), **archives.notes)
    return Streamed(archives.source, manifest, pictures, masks, faults, without)


def look_into(archives: Archives, some: Sequence[Archive], progress: Progress = lambda done, total: None) -> list[Contents]:
    """What is in some of the shards, from the cache or by reading them. Raises DatasetError that names every broken one."""
    archives.check_all_there()
    found, broken = [], []
    pool = ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1))
    try:
        waiting = [pool.submit(_contents, archive, archives) for archive in some]
        for done, each in enumerate(waiting, 1):
            try:
                found.append(each.result())
            except DatasetError as error:
                broken.append(str(error))
            progress(done, len(some))
    finally:
        pool.shutdown(cancel_futures=True)
    if broken:
        raise DatasetError("\n".join(broken[:NAMED]) + (f"\n... and {len(broken) - NAMED} more" if len(broken) > NAMED else ""))
    return found


def _contents(archive: Archive, archives: Archives) -> Contents:
    note = _note(archive)
    kept = _remembered(archive, note)
    found = kept or _read(archive, archives.source)
    archives.check_same(archive, found.sha256)
    if kept is None:
        _remember(found, note)
    return found


def _read(archive: Archive, source: str) -> Contents:
    """Read a shard from its start to its end. Raises DatasetError."""
    found, without = [], 0
    with archive.open() as file:
        tape = Tape(file)
        for sample in _whole(samples(archive.address, tape), source):
            row = row_of(sample, archive.path)
            if row is None:
                without += 1
            else:
                found.append(_taken(archive, sample, row))
        return Contents(archive, tape.end(), tuple(found), without)


def _taken(archive: Archive, sample: Sample, row: Row) -> tuple[Row, Member, Member | None, str]:
    assert sample.ending is not None
    content, fault = sample.members[sample.ending], ""
    row = described(io.BytesIO(content), row)
    picture = _member(archive, row.file, sample.places[sample.ending], row.sha256)
    mask = _member(archive, row.mask, sample.places[MASK], sha256_bytes(sample.members[MASK])) if row.mask else None
    if row.kept and not row.verdict:
        try:
            read_picture(picture, content)
        except BrokenPicture as error:
            fault = str(error)
    return row, picture, mask, fault


def _whole(found: Iterator[Sample], source: str) -> Iterator[Sample]:
    """The samples; of a shard that breaks off it is told what is whole."""
    whole, last = 0, ""
    try:
        for sample in found:
            whole, last = whole + 1, sample.key
            yield sample
    except BrokenShard as error:
        before = f"{whole} samples before that are whole, up to {last!r}" if whole else "No sample before that is whole"
        raise DatasetError(
            f"{error} {before}. Nothing is learned from half a shard; to learn from what is whole in it: darkroom dataset unpack {source} --to FOLDER --whole"
        ) from None


def _member(archive: Archive, file: str, place: Place, digest: str) -> Member:
    return Member(archive, file, place.name, place.offset, place.length, digest)


# ---- what is kept of a shard ------------------------------------------------------------------------------------------------------------------------------


def _note(archive: Archive) -> Path:
    """Where the contents of a shard are noted: under what it was when it was looked into."""
    address = archive.address if is_address(archive.address) else str(Path(archive.address).resolve())
    return cache_folder() / "shards" / f"{sha256_bytes(json.dumps([VERSION, address, archive.size, archive.tag]).encode())}.json"


def _remember(contents: Contents, note: Path) -> None:
    rows = [
        {"row": told(row) | {"size": picture.length}, "at": _place(picture), "mask": _place(mask) if mask else None, "fault": fault}
        for row, picture, mask, fault in contents.samples
    ]
    found = {"sha256": contents.sha256, "without": contents.without, "samples": rows}
    with suppress(OutputError), atomic(note) as part:  # a cache that cannot be written costs time, never the run
        part.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def _place(member: Member) -> list[Any]:
    return [member.inner, member.offset, member.length, member.sha256]


def _remembered(archive: Archive, note: Path) -> Contents | None:
    """What was noted of the shard; None where nothing was, or the note is damaged."""
    try:
        noted = json.loads(note.read_bytes())
        return Contents(archive, noted["sha256"], tuple(_sample(archive, each) for each in noted["samples"]), noted["without"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _sample(archive: Archive, noted: Mapping[str, Any]) -> tuple[Row, Member, Member | None, str]:
    row = row_from(noted["row"])
    picture, mask = Member(archive, row.file, *noted["at"]), Member(archive, row.mask, *noted["mask"]) if noted["mask"] else None
    return row, picture, mask, noted["fault"]
