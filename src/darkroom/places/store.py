"""What is done with a store: listing, reading whole and in ranges, putting a file there whole, taking it away.

A put of s3, gs, abfs, oss is atomic: a reader sees the old object or the new one. Where writing is not (memory, sftp, smb, hdfs, ftp), the file is put
under another name and moved, which is atomic there. What can do neither is written plainly, and `weakness` says so.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from darkroom.errors import PlaceError
from darkroom.places.address import FIRST, asked, filesystem, join, no_bucket, protocol

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oss", "oci", "ocilake", "tos", "hf"})
"""A put is seen whole or not at all."""
MOVES = frozenset({"memory", "sftp", "ssh", "smb", "hdfs", "arrow_hdfs", "webhdfs", "ftp", "webdav", "file", "local"})
"""A rename is."""
TAGS = (
    "ETag", "etag", "md5Hash", "generation", "oid", "blob_id", "md5", "checksum", "mtime", "LastModified", "last_modified", "modify", "modified", "updated",
    "last_write_time", "modificationTime", "created",
)  # fmt: skip
BLOCK = 5 << 20
"""Bytes read ahead."""
HIDDEN = ".darkroom-"
"""How names begin of what Darkroom itself lays into a store for a while."""
_answered: set[str] = set()


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the store has it."""

    size: int
    tag: str
    """Changes when the file does: an etag or checksum where the store has one, else a time."""


def weakness(address: str) -> str:
    """What the store cannot do, in a line; "" where every file appears whole."""
    scheme = protocol(address)
    if scheme in WHOLE | MOVES:
        return ""
    return f"{address}: {scheme}:// has no atomic write that Darkroom knows of: who reads a file there while it is being written may see half of it."


def listing(address: str) -> dict[str, Seen]:
    """Every file below it by its relative name, sorted; {"": ...} of one that is a file itself; {} where nothing is. Raises PlaceError."""
    system, path = reached(address)

    def look() -> dict[str, Any]:
        system.invalidate_cache()
        try:
            return cast(dict[str, Any], system.find(path, detail=True))
        except FileNotFoundError as error:
            if no_bucket(error):
                raise
            return {}

    found = asked(address, "listed", look)
    stem = path.rstrip("/")
    names = {str(name).rstrip("/").removeprefix(stem).removeprefix("/"): told for name, told in found.items() if not str(name).endswith("/")}
    if len(names) > 1:
        names.pop("", None)  # an object and a folder of one name: the folder is meant
    _refuse(address, names)
    return {inner: _seen(names[inner]) for inner in sorted(names) if not inner.rpartition("/")[2].startswith(HIDDEN)}


def _refuse(address: str, names: Iterable[str]) -> None:
    """Raises PlaceError for an object whose name is no path below its folder: its copy would lie elsewhere, or nowhere."""
    for name in names:
        if name and (any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name):
            raise PlaceError(f'{address}: holds an object named "{name}", which is no path below it. Rename it or take it away, and give the command again.')


def seen(address: str) -> Seen | None:
    """One file as the store has it now; None where it is not. Raises PlaceError."""
    system, path = reached(address)

    def look() -> Seen | None:
        system.invalidate_cache()
        try:
            told = system.info(path)
        except FileNotFoundError:
            return None
        return _seen(told) if told.get("type") == "file" else None

    return asked(address, "read", look)


def _seen(told: dict[str, Any]) -> Seen:
    tag = next((told[key] for key in TAGS if told.get(key) not in (None, "")), "")
    if isinstance(tag, datetime):
        tag = tag.timestamp()
    return Seen(int(told.get("size") or 0), str(tag).strip('"'))


def reached(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, which has answered once within `FIRST` seconds. Raises PlaceError."""
    system, path = filesystem(address)
    door = f"{protocol(address)}://{path.strip('/').partition('/')[0]}"
    if door not in _answered:
        asked(address, "read", lambda: _knock(system, path), FIRST)
        _answered.add(door)
    return system, path


def _knock(system: AbstractFileSystem, path: str) -> None:
    try:
        system.info(path)
    except FileNotFoundError as error:
        if no_bucket(error):
            raise


def parallel(address: str) -> int:
    """How many transfers at a time: those that are asynchronous inside may share a connection."""
    return 8 if filesystem(address)[0].async_impl else 1


def open_binary(address: str) -> BinaryIO:
    """The file for reading, seekable, `BLOCK` bytes read ahead: never whole in memory. Raises PlaceError."""
    system, path = reached(address)
    return cast(BinaryIO, asked(address, "read", lambda: system.open(path, "rb", block_size=BLOCK)))


def read_range(address: str, start: int, end: int) -> bytes:
    """Bytes from `start` up to `end`, in one request. Raises PlaceError."""
    system, path = reached(address)
    return bytes(asked(address, "read", lambda: system.cat_file(path, start=start, end=end)))


def read_bytes(address: str) -> bytes:
    """A small file whole. Raises PlaceError."""
    system, path = reached(address)
    return bytes(asked(address, "read", lambda: system.cat_file(path)))


def fetch(address: str, target: Path, expected: Seen | None = None) -> None:
    """The file as a local one, in pieces, there whole or not at all. Raises PlaceError; also where it comes shorter or longer than it was listed."""
    system, path = reached(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        asked(address, "read", lambda: system.get_file(path, str(part)))
        size = part.stat().st_size
        if expected is not None and size != expected.size:
            raise PlaceError(
                f"{address}: came with {size} bytes where the store lists {expected.size}: it broke off, or is being written. Give the command again."
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def put(source: Path, address: str) -> Seen:
    """A local file into the store, where it appears whole if the store can do that; as the store has it then. Raises PlaceError."""
    system, path = reached(address)
    before = source.stat().st_size
    asked(address, "written", lambda: _put(system, source, path, protocol(address)))
    there = seen(address)
    if there is None or there.size not in (before, source.stat().st_size):
        raise PlaceError(f"{address}: is not whole in the store ({there.size if there else 0} of {before} bytes). Give the command again: it is put anew.")
    return there


def put_bytes(data: bytes, address: str) -> None:
    """A few bytes into the store. Raises PlaceError."""
    system, path = reached(address)
    asked(address, "written", lambda: _made(system, path, lambda: system.pipe_file(path, data)))


def _put(system: AbstractFileSystem, source: Path, path: str, scheme: str) -> None:
    if scheme not in MOVES:
        _made(system, path, lambda: system.put_file(str(source), path))
        return
    folder, _, name = path.rpartition("/")
    part = f"{folder}/{HIDDEN}{secrets.token_hex(4)}-{name}"
    try:
        _made(system, part, lambda: system.put_file(str(source), part))
        system.mv(part, path)
    except BaseException:
        with contextlib.suppress(Exception):
            system.rm_file(part)
        raise


def _made(system: AbstractFileSystem, path: str, write: Any) -> None:
    """Written, with the folders that it wants: stores of objects have none."""
    if not system.async_impl:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
    write()


def remove(address: str) -> None:
    """Take a file away; nothing where it is not there. Raises PlaceError."""
    system, path = reached(address)
    asked(address, "taken away", lambda: _removed(system, path))


def _removed(system: AbstractFileSystem, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        system.rm_file(path)


def check_writable(address: str, beside: bool = False) -> None:
    """Prove that something can be written in it (or beside it, where it will be a file) and taken away again. Raises PlaceError."""
    probe = join(address.rstrip("/").rpartition("/")[0] if beside else address, f"{HIDDEN}probe-{secrets.token_hex(4)}")
    system, path = reached(probe)
    said = b"Darkroom was here, to see whether it may write."
    asked(address, "written", lambda: _made(system, path, lambda: system.pipe_file(path, said)))
    asked(address, "taken away", lambda: _removed(system, path))
