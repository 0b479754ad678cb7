"""Files that are whole or not there: atomic writes, content hashes, folders that can be written."""

from __future__ import annotations

import filecmp
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darkroom.errors import OutputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block ends without an error.

    A reader sees the old file or the new one, never half of one. Raises OutputError where the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}. Choose another place with --out.") from None
    part = Path(name)
    try:
        yield part
        with part.open("r+b") as written:  # Windows flushes only what is open for writing
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: could not be written whole: {error.strerror or error}. What was there before is unchanged.") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path, option: str = "--out") -> Iterator[Path]:
    """A folder beside the target that takes its place when the block ends without an error.

    Raises OutputError where the target is not empty or cannot be written; `option` is the one that names it.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target}: is there already and not empty. Choose another folder with {option}, or move that one away.")
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
        yield part
        part.chmod(0o755)  # mkdtemp's own is 0o700: others could not read what was published
        if target.is_dir():
            target.rmdir()
        part.rename(target)
    except OSError as error:
        raise OutputError(f"{target}: could not be written whole: {error.strerror or error}. Choose another folder with {option}.") from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def copy_whole(source: Path, target: Path) -> None:
    """A copy of a file or folder that is there whole or not at all. Raises OutputError."""
    if source.is_dir():
        with whole_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        return
    with atomic(target) as part:
        shutil.copyfile(source, part)


def link_equal(folder: Path, other: Path) -> None:
    """Each file of a folder that equals the other folder's of that name becomes a hard link to it. Where there can be none it stays a copy."""
    for file in sorted(folder.rglob("*")):
        twin = other / file.relative_to(folder)
        if not file.is_file() or not twin.is_file() or file.samefile(twin) or not filecmp.cmp(file, twin, shallow=False):
            continue
        link = file.with_name(f".{file.name}.link")
        try:
            os.link(twin, link)
            link.replace(file)
        except OSError:  # a file system without links
            link.unlink(missing_ok=True)
            return


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with "\\n" line ends on every system; what lies in a working copy is called by its address."""
    with atomic(path) as part:
        part.write_bytes(told(text).encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity, which JSON does not have, become null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same nested value with null in place of every number that JSON cannot say."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [finite(inner) for inner in value]
        case _:
            return value


def writable_folder(folder: Path, option: str = "--out") -> Path:
    """Make the folder and prove that it can be written. Raises OutputError; `option` is the one that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written: {reason}. Choose another folder with {option}, or change its permissions.") from None
    return folder


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def sha256_files(paths: Iterable[Path], root: Path) -> str:
    """One hash over several files: their names relative to `root` and their contents, in the order of the names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where caches live: $DARKROOM_CACHE where that is a folder, else ~/.cache/darkroom. It may be deleted at any time."""
    named = os.environ.get("DARKROOM_CACHE", "")
    return Path(named) if named and not shared_cache() else Path.home() / ".cache" / "darkroom"


def shared_cache() -> str:
    """$DARKROOM_CACHE where it is an address: what is encoded is shared there with other machines (`places.shared`); "" where it is a folder."""
    named = os.environ.get("DARKROOM_CACHE", "")
    return named.rstrip("/") if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", named) else ""


PLACES = "places"
"""The folder of the cache with working copies of what has an address, each in `<16 hex digits>/` (`darkroom.places`)."""


def told(text: str) -> str:
    """The text as it is told to people and written to files: a path in a working copy is called by its address, which holds on other machines too."""
    if PLACES not in text or not (folder := cache_folder().resolve() / PLACES).is_dir():
        return text
    for key in {found[1] for found in re.finditer(r"places(?:/|\\\\|\\)([0-9a-f]{16})", text)}:
        try:
            facts = json.loads((folder / key / ".place" / "place.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        copy, beside = str(folder / key / facts["name"]), str(folder / key) + os.sep
        for written in _spellings(copy):
            text = text.replace(written, facts["address"])
        for written in _spellings(beside):  # what was made beside it; hidden are its own notes
            text = text.replace(f"{written}.", "\0").replace(written, facts["address"].rpartition("/")[0] + "/").replace("\0", f"{written}.")
    return text


def _spellings(path: str) -> list[str]:
    """As it is, as JSON has it, and with slashes."""
    return list(dict.fromkeys((path, json.dumps(path)[1:-1], path.replace("\\", "/"))))
