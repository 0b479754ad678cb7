"""WebDataset shards to a dataset: our own bring back every row as it was, those of other programs their pictures, captions and JSON.

Nothing of an archive is trusted: members are read as bytes and never extracted by their names, a row's file must lie below the folder and end as a picture,
its bytes must have the hash that the row says, and no member may be larger than a picture can be.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from darkroom.data.adopt import described
from darkroom.data.captions import SIDECARS, one_line
from darkroom.data.manifest import ORIGINAL, Row
from darkroom.data.masks import FOLDER as MASKS
from darkroom.data.picture import ENDINGS
from darkroom.errors import DatasetError, OutputError
from darkroom.files import sha256_bytes, sha256_file

LARGEST = 512 << 20  # bytes of one picture or mask
LARGEST_TEXT = 4 << 20  # bytes of one caption or row
NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)")  # WebDataset's own: the key ends at the first dot of the last part
FORBIDDEN = re.compile(r'[\x00-\x1f\\:*?"<>|]|[ .](/|$)' if os.name == "nt" else r"\x00")
TEXTS = ("txt", "caption", "json")


@dataclass
class Sample:
    """The members of one key, by their endings in lower case."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)


def samples(shard: Path) -> Iterator[Sample]:
    """The samples of a tar file in order, one in memory at a time. Raises DatasetError where it is damaged, compressed, or a member too large."""
    sample = Sample("")
    try:
        with _Bounded(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = NAME.fullmatch(member.name)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not name:
                    continue  # folders, links, devices; sparse files claim any size
                if name[1] != sample.key:
                    if sample.members:
                        yield sample
                    sample = Sample(name[1])
                sample.members[name[2].lower()] = _content(tar, member, shard, name[2].lower())
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # tarfile ends in silence where a header is damaged or cut off
                raise EOFError(f"it is cut off, or damaged at byte {tar.offset:,}")
        if sample.members:
            yield sample
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{shard}: cannot be read as a plain tar file ({error}). Unpack a compressed one first; copy a damaged one again.") from None


class _Bounded(io.FileIO):
    """A file of which no more is read at once than a picture can have: a tar header can claim any size for a name."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST:
            raise OSError(f"a part of more than {LARGEST >> 20} MiB")
        return super().read(size) or b""


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path, ending: str) -> bytes:
    most = LARGEST_TEXT if ending in TEXTS else LARGEST
    if member.size > most:
        raise DatasetError(f"{shard}: its member {member.name!r} has {member.size:,} bytes, and {most:,} is the limit for its kind.")
    opened = tar.extractfile(member)
    assert opened is not None
    content = opened.read()
    if len(content) != member.size:
        raise DatasetError(f"{shard}: ends within its member {member.name!r}: the file is cut off. Copy it again.")
    return content


def unpacked(sample: Sample, shard: Path, folder: Path) -> Row | None:
    """Write the sample's picture (and mask) below the folder; its row, or None where it has no picture.

    Raises DatasetError where its row leads outside the folder, or its bytes are not what the row says; OutputError where another file is in the way.
    """
    where = f"{shard}, sample {sample.key!r}"
    ending = next((ending for ending in sample.members if f".{ending}" in ENDINGS), None)
    if ending is None:
        return None
    meta = _json(sample, where)
    picture = sample.members[ending]
    row = _own(meta, where) if "file" in meta and "sha256" in meta else _foreign(sample, meta, ending, shard, where)
    digest = sha256_bytes(picture)
    if row.sha256 and row.sha256 != digest:
        raise DatasetError(f"{where}: its picture is not the one its row tells of (other bytes): the shard is damaged. Copy it again.")
    path = _place(folder, row.file, where)
    _put(path, picture)
    if row.mask:
        _put(_place(folder, row.mask, where), _mask(sample, row, where))
    if row.beside:
        if row.beside not in {f"{path.stem}{ending}" for ending in SIDECARS}:
            raise DatasetError(f"{where}: its caption would lie at {row.beside!r}, which is not beside its picture.")
        _put(path.with_name(row.beside), f"{row.captions.get(ORIGINAL, '')}\n".encode())
    stat = path.stat()
    return described(path, row.but(sha256=digest, size=stat.st_size, changed=stat.st_mtime_ns, width=0, height=0, format=""))


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
        row: Row = TypeAdapter(Row).validate_python(meta)
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{where}: its row is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    return row


def _foreign(sample: Sample, meta: Mapping[str, Any], ending: str, shard: Path, where: str) -> Row:
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


def _place(folder: Path, name: str, where: str) -> Path:
    """Where a file of the dataset goes. Raises DatasetError for a name that leads elsewhere, is hidden, or is no picture's."""
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith(".") for part in parts) or name.startswith("/") or name != "/".join(parts) or FORBIDDEN.search(name):
        raise DatasetError(f"{where}: {name!r} is no name below the dataset's folder, and nothing is written outside of it.")
    if PurePosixPath(name).suffix.lower() not in ENDINGS:
        raise DatasetError(f"{where}: {name!r} does not end as a picture: {', '.join(sorted(ENDINGS))}.")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{where}: {name!r} leads out of {folder} by a link, and nothing is written outside of it.")
    return path


def _mask(sample: Sample, row: Row, where: str) -> bytes:
    content = sample.members.get("mask.png")
    if content is None:
        raise DatasetError(f"{where}: its row has a mask, and the sample has none: the shard is damaged.")
    if not row.mask.startswith(f"{MASKS}/"):
        raise DatasetError(f"{where}: its mask would lie at {row.mask!r}, and masks lie in {MASKS}/.")
    return content


def _put(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there; an equal one is left. Raises OutputError where another is in the way."""
    if path.exists():
        if sha256_file(path) != sha256_bytes(content):
            raise OutputError(f"{path}: is there already with other content, and is not written over. Unpack into another folder with --to.")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}. Choose another folder with --to.") from None


def find_shards(source: Path) -> list[Path]:
    """The tar files of a folder, in the order of their names, or the one that is named. Raises DatasetError."""
    if source.is_file():
        return [source]
    found = sorted(source.glob("*.tar"))
    if not found:
        what = "holds no .tar file" if source.is_dir() else "there is no such file or folder"
        raise DatasetError(f"{source}: {what}. Name a folder of WebDataset shards, or one of them.")
    return found
