"""The samples of a WebDataset shard, and the row that each of them is: what unpacking writes and what streaming learns from.

Nothing of an archive is trusted: members are read as bytes and never extracted by their names, a row's file must lie below the dataset's folder and end as a
picture, its bytes must have the hash that the row says, and no member may be larger than a picture can be.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from darkroom.data.captions import SIDECARS, one_line
from darkroom.data.manifest import ORIGINAL, Row
from darkroom.data.masks import FOLDER as MASKS
from darkroom.data.picture import ENDINGS
from darkroom.errors import DatasetError
from darkroom.files import sha256_bytes

LARGEST = 512 << 20  # bytes of one picture or mask
LARGEST_TEXT = 4 << 20  # bytes of one caption or row
PIECE = 1 << 20  # bytes that are hashed at once of what nobody reads
NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)")  # WebDataset's own: the key ends at the first dot of the last part
FORBIDDEN = re.compile(r'[\x00-\x1f\\:*?"<>|]|[ .](/|$)' if os.name == "nt" else r"\x00")
TEXTS = ("txt", "caption", "json")
MASK = "mask.png"


class BrokenShard(DatasetError):
    """A shard that is cut off, damaged, or no plain tar file."""


@dataclass(frozen=True)
class Place:
    """Where a member's bytes lie within its shard."""

    name: str
    offset: int
    length: int


@dataclass
class Sample:
    """The members of one key, by their endings in lower case: their bytes, and where they lie."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def ending(self) -> str | None:
        """The ending of its picture; None where it has none."""
        return next((ending for ending in self.members if f".{ending}" in ENDINGS), None)


def samples(shard: PurePath | str, tape: Tape | None = None) -> Iterator[Sample]:
    """The samples of a tar file in order, one in memory at a time; `tape` is the file where it is open already.

    Raises BrokenShard where it is damaged or compressed, DatasetError where a member is too large, or two members or two samples have one name.
    """
    if tape is None:
        try:
            with Path(shard).open("rb") as file:
                yield from samples(shard, Tape(file))
        except OSError as error:
            raise _unread(shard, error.strerror or error) from None
        return
    sample, keys = Sample(""), set[str]()
    try:
        with tarfile.open(fileobj=tape, mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                name = NAME.fullmatch(member.name)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not name:
                    continue  # folders, links, devices; sparse files claim any size
                if name[1] != sample.key:
                    if sample.members:
                        yield sample
                    sample = _next(name[1], keys, shard)
                _take(sample, name[2].lower(), tar, member, shard)
            tape.seek(tar.offset)
            if tape.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile ends in silence where a header is damaged or cut off
                raise EOFError(f"it is cut off, or damaged at byte {tar.offset:,}")
        if sample.members:
            yield sample
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _unread(shard, error) from None


class Tape:
    """A shard's file as tarfile reads it: no more at once than a picture can have, since a header can claim any size for a name; hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._hashed = file, hashlib.sha256(), 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes. Raises OSError for more than LARGEST."""
        if size is None or not 0 <= size <= LARGEST:
            raise OSError(f"a part of more than {LARGEST >> 20} MiB")
        place = self.tell()
        self._pass(place)
        content = self._file.read(size)
        self._take(place, content)
        return content

    def end(self) -> str:
        """SHA-256 of the whole file."""
        self._pass(None)
        return self._digest.hexdigest()

    def _pass(self, place: int | None) -> None:
        """Hash what was jumped over on the way to `place`, or to the end."""
        if place is not None and place <= self._hashed:
            return
        self.seek(self._hashed)
        while (left := PIECE if place is None else min(PIECE, place - self._hashed)) and (piece := self._file.read(left)):
            self._take(self._hashed, piece)
        if place is not None:
            self.seek(place)

    def _take(self, place: int, content: bytes) -> None:
        if place <= self._hashed < place + len(content):
            self._digest.update(memoryview(content)[self._hashed - place :])
            self._hashed = place + len(content)


def _next(key: str, keys: set[str], shard: PurePath | str) -> Sample:
    if key in keys:
        raise DatasetError(
            f"{shard}: holds the key {key!r} twice, apart from each other, and one would hide the other. The members of a sample follow each other, and each "
            "sample has its own key: write the shard again."
        )
    keys.add(key)
    return Sample(key)


def _take(sample: Sample, ending: str, tar: tarfile.TarFile, member: tarfile.TarInfo, shard: PurePath | str) -> None:
    if ending in sample.members:
        raise DatasetError(f"{shard}: holds the member {member.name!r} twice, and one would hide the other. Write the shard again.")
    sample.members[ending] = _content(tar, member, shard, ending)
    sample.places[ending] = Place(member.name, member.offset_data, member.size)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: PurePath | str, ending: str) -> bytes:
    most = LARGEST_TEXT if ending in TEXTS else LARGEST
    if member.size > most:
        raise DatasetError(f"{shard}: its member {member.name!r} has {member.size:,} bytes, and {most:,} is the limit for its kind.")
    opened = tar.extractfile(member)
    assert opened is not None
    content = opened.read()
    if len(content) != member.size:
        raise BrokenShard(f"{shard}: ends within its member {member.name!r}: the file is cut off. Copy it again.")
    return content


def _unread(shard: PurePath | str, why: object) -> BrokenShard:
    return BrokenShard(f"{shard}: cannot be read as a plain tar file ({why}). Unpack a compressed one first; copy a damaged one again.")


def row_of(sample: Sample, shard: PurePath) -> Row | None:
    """The sample's row, all but what its picture's header says; None where it has no picture.

    Raises DatasetError where its row is damaged, names a file outside the dataset's folder, or tells of other bytes.
    """
    where = f"{shard}, sample {sample.key!r}"
    if sample.ending is None:
        return None
    meta = _json(sample, where)
    row = _own(meta, where) if "file" in meta and "sha256" in meta else _foreign(sample, meta, sample.ending, shard, where)
    picture = sample.members[sample.ending]
    digest = sha256_bytes(picture)
    if row.sha256 and row.sha256 != digest:
        raise DatasetError(f"{where}: its picture is not the one its row tells of (other bytes): the shard is damaged. Copy it again.")
    check_name(row.file, where)
    if row.mask:
        _check_mask(sample, row, where)
    if row.beside and row.beside not in {f"{PurePosixPath(row.file).stem}{ending}" for ending in SIDECARS}:
        raise DatasetError(f"{where}: its caption would lie at {row.beside!r}, which is not beside its picture.")
    return row.but(sha256=digest, size=len(picture), width=0, height=0, format="")


def _json(sample: Sample, where: str) -> dict[str, Any]:
    try:
        found = json.loads(sample.members.get("json", b"{}"))
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{where}: its JSON cannot be read ({error}).") from None
    return found


def _own(meta: Mapping[str, Any], where: str) -> Row:
    """The row that our own export wrote."""
    try:
        return row_from(meta)
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{where}: its row is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def row_from(meta: Mapping[str, Any]) -> Row:
    """A row from JSON. Raises pydantic's ValidationError."""
    return _rows().validate_python(meta)


@cache
def _rows() -> TypeAdapter[Row]:
    return TypeAdapter(Row)


def _foreign(sample: Sample, meta: Mapping[str, Any], ending: str, shard: PurePath, where: str) -> Row:
    """The row of another program's sample, such as img2dataset's: its text, and of its JSON the caption, `url`, and the rest as extra columns."""
    try:
        text = next((sample.members[name].decode("utf-8-sig") for name in ("txt", "caption") if name in sample.members), None)
    except UnicodeDecodeError:
        raise DatasetError(f"{where}: its caption is not UTF-8 text.") from None
    if text is None:
        text = next((meta[name] for name in ("caption", "text") if isinstance(meta.get(name), str)), "")
    caption = one_line(text)
    extra = {key: value if isinstance(value, str) else json.dumps(value) for key, value in meta.items() if key not in ("caption", "text", "url", "key")}
    source = meta["url"] if isinstance(meta.get("url"), str) else f"{shard.name}/{sample.key}"
    name = re.sub(r"[^\w/-]", "_", sample.key)
    if name != sample.key:
        name += f"-{sha256_bytes(sample.key.encode('utf-8', 'surrogateescape'))[:8]}"  # or two keys could become one name
    return Row(f"pictures/{shard.stem}/{name}.{ending}", source=source, status="unpacked", captions={ORIGINAL: caption} if caption else {}, extra=extra)


def check_name(name: str, where: str) -> None:
    """That a file of the dataset lies below its folder, by its name alone. Raises DatasetError for one that leads elsewhere, is hidden, or is no picture's."""
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith(".") for part in parts) or name.startswith("/") or name != "/".join(parts) or FORBIDDEN.search(name):
        raise DatasetError(f"{where}: {name!r} is no name below the dataset's folder, and nothing is written outside of it.")
    if PurePosixPath(name).suffix.lower() not in ENDINGS:
        raise DatasetError(f"{where}: {name!r} does not end as a picture: {', '.join(sorted(ENDINGS))}.")


def _check_mask(sample: Sample, row: Row, where: str) -> None:
    if MASK not in sample.members:
        raise DatasetError(f"{where}: its row has a mask, and the sample has none: the shard is damaged.")
    check_name(row.mask, where)
    if not row.mask.startswith(f"{MASKS}/"):
        raise DatasetError(f"{where}: its mask would lie at {row.mask!r}, and masks lie in {MASKS}/.")
