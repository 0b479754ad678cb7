"""`darkroom dataset shards` and `darkroom dataset unpack`: a dataset to WebDataset shards, and shards to a dataset."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom.data.archives import Archives, find_archives
from darkroom.data.manifest import Manifest, Row, is_dataset
from darkroom.data.member import Archive
from darkroom.data.samples import BrokenShard
from darkroom.data.shards import write_shards
from darkroom.data.unpack import samples, unpacked
from darkroom.errors import DatasetError, OutputError
from darkroom.files import sha256_file, told
from darkroom.jobs.adopted import adopted
from darkroom.jobs.watch import Silent, Watcher

SAVE_AFTER = 20.0  # seconds of unpacking, after which the manifest is written


def shards(folder: Path, to: Path, per_shard: int, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the dataset of `folder` as shards below `to`; returns their index. A stopped call goes on. Raises DatasetError, OutputError or RecipeError."""
    watcher = watcher or Silent()
    manifest, _ = adopted(folder, watcher)
    index = write_shards(manifest, to, per_shard, lambda done, total: watcher.move("packing", done, total))
    return {"folder": str(to), **index}


def unpack(source: Path, folder: Path, watcher: Watcher | None = None, whole: bool = False) -> dict[str, Any]:
    """Read the shards of `source` (a folder, or one tar file) into the dataset `folder`; a stopped call goes on after the last shard that it noted.

    With `whole` shards that are missing, damaged or cut off are told of, and what is whole in them is taken. Raises DatasetError for them without it, and where
    one leads outside the folder; OutputError where the folder holds something else.
    """
    watcher = watcher or Silent()
    archives = find_archives(source)
    if not whole:
        archives.check_all_there()
    manifest = _begun(folder, source, archives.notes)
    seen: Counter[str] = Counter(manifest.notes["unpack"]["counts"])
    rows, finished = {row.file: row for row in manifest.rows}, dict(manifest.notes["unpack"]["shards"])
    saved = time.monotonic()
    try:
        for number, archive in enumerate(archives.found, 1):
            shard = Path(archive.address)
            digest = _digest(archives, archive, watcher if whole else None)
            if finished.get(shard.name) != digest:
                _read(shard, folder, rows, seen, watcher if whole else None)
                finished[shard.name] = digest
            if time.monotonic() - saved > SAVE_AFTER:
                manifest, saved = _noted(manifest, rows, finished, seen), time.monotonic()
            watcher.move("unpacking", number, len(archives.found), f"{len(rows)} pictures")
    finally:
        manifest = _noted(manifest, rows, finished, seen)
    if not rows:
        raise DatasetError(f"{source}: its shards hold no picture ({seen['no picture']} samples without one).")
    kept = {"kept": len(manifest.kept), "held_out": sum(row.split == "held_out" for row in manifest.kept)}
    broken = {"broken": seen["broken"], "missing": len(archives.missing)} if whole else {}
    told = {"shards": len(archives.found), "pictures": len(rows), **kept, "without_picture": seen["no picture"], **broken}
    return {"dataset": str(folder), **told, "hash": manifest.hash}


def _begun(folder: Path, source: Path, notes: Mapping[str, Any]) -> Manifest:
    """The dataset that an earlier call began, or a new one. Raises OutputError where the folder holds anything else."""
    called = told(str(source.resolve()))
    if is_dataset(folder):
        manifest = Manifest.open(folder)
        if manifest.notes.get("unpack", {}).get("source") == called:
            return manifest
        raise OutputError(f"{folder}: is a dataset already, and not of these shards. Choose another folder with --to.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already and not empty. Choose another folder with --to.")
    return Manifest(folder, (), {**notes, "unpack": {"source": called, "shards": {}, "counts": {}}}).save()


def _digest(archives: Archives, archive: Archive, forgiving: Watcher | None) -> str:
    """The shard's hash. One that is not shards.json's is told to `forgiving`, where there is one. Raises DatasetError."""
    digest = sha256_file(Path(archive.address))
    try:
        archives.check_same(archive, digest)
    except DatasetError as error:
        if forgiving is None:
            raise
        forgiving.say(str(error))
    return digest


def _read(shard: Path, folder: Path, rows: dict[str, Row], seen: Counter[str], forgiving: Watcher | None) -> None:
    """Unpack one shard. One that breaks off is told to `forgiving`, where there is one, and what came before is kept."""
    try:
        for sample in samples(shard):
            row = unpacked(sample, shard, folder)
            if row is None:
                seen["no picture"] += 1
            else:
                rows[row.file] = row
    except BrokenShard as error:
        if forgiving is None:
            raise
        seen["broken"] += 1
        forgiving.say(str(error))


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
    for what, word in (("broken", "of the shards break off, and what is whole in them was taken"), ("missing", "shards are missing")):
        without += [f"{found[what]} {word}"] if found.get(what) else []
    return [told, *without, f"dataset  {found['dataset']}  {found['hash'][:16]}"]
