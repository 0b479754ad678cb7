"""A dataset as WebDataset shards: plain tar files of samples that any program of that kind reads in order, and that bring the whole dataset back.

    FOLDER/train-000000.tar     KEY.jpg, KEY.txt (the caption that is learned from), KEY.mask.png, KEY.json (the manifest's row)
    FOLDER/held_out-000000.tar  what the split holds out; rejected-000000.tar what is not learned from
    FOLDER/shards.json          every shard with its sha256, written after each: a stopped export goes on there

Equal datasets give equal bytes: no clock, no user, rows in the order of their files. Reading them back is unpack.py's.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.data.captions import SIDECARS
from darkroom.data.manifest import Manifest, Row
from darkroom.errors import DatasetError, OutputError, RecipeError
from darkroom.files import atomic, sha256_bytes, sha256_file, write_json

INDEX = "shards.json"
FORMAT = 1
LOCAL = ("size", "changed")
"""Columns that speak of the files as they lie in this folder, and are made anew where the shards are unpacked."""


@dataclass(frozen=True)
class Shard:
    """One tar file to be written: its name and its rows, each with its key."""

    name: str
    rows: tuple[tuple[str, Row], ...]


def write_shards(manifest: Manifest, folder: Path, per_shard: int, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """Write the dataset as shards of at most `per_shard` pictures; returns the index. What an earlier call has written is kept.

    Raises OutputError where the folder holds anything else, DatasetError where a picture is gone, RecipeError for a size below 1.
    """
    if per_shard < 1:
        raise RecipeError(f"--per-shard {per_shard}: must be at least 1.")
    source = sha256_bytes(json.dumps([per_shard, *(told(row) for row in manifest.rows)], sort_keys=True).encode())
    index = _started(folder, source) or {"format": FORMAT, "source": source, "dataset": manifest.hash, "per_shard": per_shard, "notes": dict(manifest.notes)}
    known = {entry["name"]: entry for entry in index.get("shards", [])}
    planned = list(plan(manifest.rows, per_shard))
    written: list[dict[str, Any]] = []
    done = 0
    for shard in planned:
        entry = known.get(shard.name)
        if entry is None or not _whole(folder / shard.name, entry):
            entry = _write(manifest, shard, folder / shard.name)
        written.append(entry)
        write_json(folder / INDEX, index | {"complete": len(written) == len(planned), "shards": written + _later(planned[len(written) :], known)})
        done += len(shard.rows)
        progress(done, len(manifest.rows))
    return index | {"complete": True, "shards": written}


def plan(rows: Sequence[Row], per_shard: int) -> Iterator[Shard]:
    """The shards of the rows: each kind counted by itself, keys counted over all in the order of the rows."""
    keyed = [(f"{number:09d}", row) for number, row in enumerate(rows)]
    for kind in ("train", "held_out", "rejected"):
        members = [(key, row) for key, row in keyed if _kind(row) == kind]
        for number in range(math.ceil(len(members) / per_shard)):
            yield Shard(f"{kind}-{number:06d}.tar", tuple(members[number * per_shard : (number + 1) * per_shard]))


def _kind(row: Row) -> str:
    return "rejected" if not row.kept else "held_out" if row.split == "held_out" else "train"


def told(row: Row) -> dict[str, Any]:
    """The row as JSON holds it: what is other than unknown, but for what speaks of this folder only, and numbers that JSON has not."""
    found = {}
    for field in dataclasses.fields(Row):
        value = getattr(row, field.name)
        table = field.name == "beside" and not row.beside.endswith(SIDECARS)  # tables and folders' names are not packed; their captions are
        if table or field.name in LOCAL or value in ("", 0, None, (), {}) or (field.name == "repeats" and value == 1):
            continue
        found[field.name] = {k: v for k, v in value.items() if not isinstance(v, float) or math.isfinite(v)} if isinstance(value, Mapping) else value
    return found


def _started(folder: Path, source: str) -> dict[str, Any] | None:
    """The index of a stopped or finished export of the same dataset, None for a new folder. Raises OutputError for anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    index = read_index(folder)
    if index is None or index.get("source") != source:
        other = "the shards of another dataset, or of this one before it changed," if index else "something else"
        raise OutputError(f"{folder}: holds {other} and is not written over. Choose an empty folder with --to.")
    return index


def read_index(folder: Path) -> dict[str, Any] | None:
    """shards.json where there is one. Raises DatasetError where it is no such index."""
    path = folder / INDEX
    return parse_index(path.read_bytes(), path) if path.is_file() else None


def parse_index(content: bytes, where: Path | str) -> dict[str, Any]:
    """shards.json as it was read from `where`. Raises DatasetError where it is no such index."""
    try:
        index = json.loads(content)
        if index["format"] != FORMAT or not all({"name", "sha256", "bytes"} <= set(entry) for entry in index["shards"]):
            raise ValueError(f"format {index['format']}")
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where}: is no index of shards that is known here ({error}). Take it away to read the shards without it.") from None
    return dict(index)


def _later(rest: Sequence[Shard], known: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of shards that come later and were written by an earlier call."""
    return [known[shard.name] for shard in rest if shard.name in known]


def _whole(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and sha256_file(path) == entry["sha256"]


def _write(manifest: Manifest, shard: Shard, path: Path) -> dict[str, Any]:
    with atomic(path) as part, tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, row in shard.rows:
            for ending, content in _members(manifest, row):
                _add(tar, f"{key}.{ending}", content)
    return {"name": shard.name, "pictures": len(shard.rows), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _members(manifest: Manifest, row: Row) -> Iterator[tuple[str, bytes]]:
    """The files of one sample by their endings, in WebDataset's sense: what follows the first dot."""
    picture = _read(manifest.path(row))
    if sha256_bytes(picture) != row.sha256:
        raise DatasetError(f"{manifest.path(row)}: changed while it was packed. Run this again into an empty folder.")
    yield row.file.rpartition(".")[2].lower(), picture
    if row.caption:
        yield "txt", row.caption.encode()
    if row.mask:
        yield "mask.png", _read(manifest.folder / row.mask)
    yield "json", json.dumps(told(row), ensure_ascii=False, sort_keys=True).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}). Put it back, and run this again: it goes on where it stopped.") from None


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without clock or owner, so that equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o644, len(content)
    tar.addfile(member, io.BytesIO(content))
