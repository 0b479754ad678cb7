"""`darkroom dataset shards` and `darkroom dataset unpack`: a dataset to WebDataset shards, and shards to a dataset."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.data.adopt import adopt
from darkroom.data.manifest import Manifest, Row, is_dataset
from darkroom.data.shards import read_index, write_shards
from darkroom.data.unpack import find_shards, samples, unpacked
from darkroom.errors import DatasetError, OutputError
from darkroom.files import sha256_file
from darkroom.jobs.watch import Silent, Watcher

SAVE_AFTER = 20.0  # seconds of unpacking, after which the manifest is written


def shards(folder: Path, to: Path, per_shard: int, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the dataset of `folder` as shards below `to`; returns their index. A stopped call goes on. Raises DatasetError, OutputError or RecipeError."""
    watcher = watcher or Silent()
    manifest, _ = adopt(folder, lambda done, total: watcher.move("reading", done, total))
    index = write_shards(manifest, to, per_shard, lambda done, total: watcher.move("packing", done, total))
    return {"folder": str(to), **index}


def unpack(source: Path, folder: Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Read the shards of `source` (a folder, or one tar file) into the dataset `folder`; a stopped call goes on after the last shard that it noted.

    Raises DatasetError where a shard is missing, damaged or leads outside the folder; OutputError where the folder holds something else.
    """
    watcher = watcher or Silent()
    found = find_shards(source)
    index = (read_index(source) if source.is_dir() else None) or {}
    expected = {entry["name"]: entry["sha256"] for entry in index.get("shards", [])}
    if missing := sorted(set(expected) - {shard.name for shard in found}):
        raise DatasetError(f"{source / missing[0]}: is missing, and shards.json names it ({len(missing)} in all). Copy the shards again.")
    manifest = _begun(folder, source, index.get("notes", {}))
    seen: Counter[str] = Counter(manifest.notes["unpack"]["counts"])
    rows, finished = {row.file: row for row in manifest.rows}, dict(manifest.notes["unpack"]["shards"])
    saved = time.monotonic()
    try:
        for number, shard in enumerate(found, 1):
            digest = sha256_file(shard)
            if expected.get(shard.name, digest) != digest:
                raise DatasetError(f"{shard}: is not the file that shards.json tells of. Copy it again.")
            if finished.get(shard.name) != digest:
                _read(shard, folder, rows, seen)
                finished[shard.name] = digest
            if time.monotonic() - saved > SAVE_AFTER:
                manifest, saved = _noted(manifest, rows, finished, seen), time.monotonic()
            watcher.move("unpacking", number, len(found), f"{len(rows)} pictures")
    finally:
        manifest = _noted(manifest, rows, finished, seen)
    if not rows:
        raise DatasetError(f"{source}: its shards hold no picture ({seen['no picture']} samples without one).")
    kept = {"kept": len(manifest.kept), "held_out": sum(row.split == "held_out" for row in manifest.kept)}
    return {"dataset": str(folder), "shards": len(found), "pictures": len(rows), **kept, "without_picture": seen["no picture"], "hash": manifest.hash}


def _begun(folder: Path, source: Path, notes: Mapping[str, Any]) -> Manifest:
    """The dataset that an earlier call began, or a new one. Raises OutputError where the folder holds anything else."""
    if is_dataset(folder):
        manifest = Manifest.open(folder)
        if manifest.notes.get("unpack", {}).get("source") == str(source.resolve()):
            return manifest
        raise OutputError(f"{folder}: is a dataset already, and not of these shards. Choose another folder with --to.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already and not empty. Choose another folder with --to.")
    return Manifest(folder, (), {**notes, "unpack": {"source": str(source.resolve()), "shards": {}, "counts": {}}}).save()


def _read(shard: Path, folder: Path, rows: dict[str, Row], seen: Counter[str]) -> None:
    for sample in samples(shard):
        row = unpacked(sample, shard, folder)
        if row is None:
            seen["no picture"] += 1
        else:
            rows[row.file] = row


def _noted(manifest: Manifest, rows: Mapping[str, Row], finished: Mapping[str, str], seen: Counter[str]) -> Manifest:
    return manifest.but(rows.values(), unpack={**manifest.notes["unpack"], "shards": dict(finished), "counts": dict(seen)}).save()


def shard_lines(index: Mapping[str, Any]) -> list[str]:
    """What was written, in words."""
    counts: Counter[str] = Counter()
    for entry in index["shards"]:
        counts[entry["name"].rpartition("-")[0]] += entry["pictures"]
    size = sum(entry["bytes"] for entry in index["shards"])
    told = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.items())
    return [f"{len(index['shards'])} shards, {size / (1 << 20):,.1f} MiB: {told}", f"index  {Path(index['folder']) / 'shards.json'}"]


def unpack_lines(found: Mapping[str, Any]) -> list[str]:
    """What was read, in words."""
    without = [f"{found['without_picture']} samples have no picture and were left out"] if found["without_picture"] else []
    told = f"{found['pictures']} pictures from {found['shards']} shards: {found['kept']} kept, {found['held_out']} of them held out"
    return [told, *without, f"dataset  {found['dataset']}  {found['hash'][:16]}"]
