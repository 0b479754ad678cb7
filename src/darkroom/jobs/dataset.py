"""`darkroom dataset prepare`: which pictures are held out, which part of each is learned from, and where its subject is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from darkroom.data.focus import Box, Focus, focus_of
from darkroom.data.manifest import Manifest, Row
from darkroom.data.masks import alpha_mask, find_masks, fitting_mask, mask_name, opened_mask, save_mask
from darkroom.data.picture import read_picture
from darkroom.data.split import sides, words
from darkroom.errors import DatasetError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.adopted import adopted
from darkroom.jobs.watch import Silent, Watcher

Done = TypeVar("Done")
PART = "10%"
"""Held out where nothing else is asked for."""
FACES_AT = 640  # pixels of the longer side that faces are looked for at: 0.3 s a photo, half of what both of the finder's scales take
SMALLEST = 160  # pixels of the longer side below which none is looked for
SAVE_EVERY = 5000  # pictures looked at, after which what was found is written


@dataclass(frozen=True)
class Preparation:
    """What is asked for. `held_out` and `seed` of None: as before, or 10 % and 0 where nothing else is asked for."""

    held_out: str | None = None
    seed: int | None = None
    masks: Path | None = None
    alpha: bool = False
    focus: bool = False


def prepare(folder: Path, wanted: Preparation, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write split, mask and focus of the rows; returns what was found, with `words` for a person. Raises DatasetError or RecipeError.

    The split comes first, then masks, then the focus, since a mask says where the subject is. Nothing but these three columns changes.
    """
    watcher = watcher or Silent()
    if wanted.masks is not None and wanted.alpha:
        raise RecipeError("--masks and --alpha: a picture has one mask. Give one of them.")
    manifest, _ = adopted(folder, watcher)
    found: dict[str, Any] = {"dataset": str(folder), "pictures": len(manifest.rows), "kept": len(manifest.kept), "words": []}
    manifest = _split(manifest, wanted, found)
    if wanted.masks is not None or wanted.alpha:
        manifest = _masked(manifest, wanted.masks, found, watcher)
    if wanted.focus:
        manifest = _focused(manifest, found, watcher)
    return found | {"hash": manifest.save().hash}


def _split(manifest: Manifest, wanted: Preparation, found: dict[str, Any]) -> Manifest:
    note = manifest.notes.get("prepare", {})
    amount = wanted.held_out or note.get("held_out")
    if amount is None and (wanted.masks or wanted.alpha or wanted.focus):
        return manifest
    amount, seed = amount or PART, note.get("seed", 0) if wanted.seed is None else wanted.seed
    again = bool(note) and (note["held_out"], note["seed"]) != (amount, seed)
    split = sides(manifest.rows, amount, seed, again)
    found |= {"held_out": split.held_out, "train": split.train, "seed": seed, "amount": amount}
    if split.wanted:
        found["words"] += words(split, screened=any(row.verdict for row in manifest.rows))
        if again:
            found["words"].append(f"a new split: before it was {note['held_out']} with seed {note['seed']}, and what was held out may be learned from now")
    rows = [row.but(split=split.of[row.file]) for row in manifest.rows]
    return manifest.but(rows, prepare={**note, "held_out": amount, "seed": seed})


def _masked(manifest: Manifest, folder: Path | None, found: dict[str, Any], watcher: Watcher) -> Manifest:
    """With a mask for every kept picture that has one; a picture that has none any more loses its row's."""
    sources: dict[str, Path] = {}
    if folder is not None:
        own = {manifest.folder / row.mask for row in manifest.rows if row.mask}
        sources, orphans = find_masks(folder, [row.file for row in manifest.rows])
        orphans = [path for path in orphans if path not in own]
        if orphans:
            found["words"].append(f"{len(orphans)} masks belong to no picture: {', '.join(str(path) for path in orphans[:5])}")

    def masked_row(row: Row) -> Row:
        if folder is None:
            return _with_mask(manifest, row, alpha_mask(manifest.path(row)))
        return _with_mask(manifest, row, fitting_mask(sources[row.file], (row.width, row.height)) if row.file in sources else None)

    rows, broken = {row.file: row for row in manifest.rows}, []
    for row, done in _each(masked_row, [row for row in manifest.kept if row.width], "masks", watcher):
        if isinstance(done, DatasetError):
            broken.append(str(done))
        else:
            rows[row.file] = done
    if broken:
        raise DatasetError("\n".join(broken[:20]) + (f"\n... and {len(broken) - 20} more" if len(broken) > 20 else ""))
    masked = sum(bool(row.mask) for row in rows.values())
    found["masked"] = masked
    if not masked:
        how = "no picture has a transparent part" if folder is None else "no mask has a black part"
        found["words"].append(f"{how}, so that all of every picture is learned from")
    return manifest.but(rows.values())


def _with_mask(manifest: Manifest, row: Row, mask: Image.Image | None) -> Row:
    """The row with its mask written, and without its focus where the mask is another one than before."""
    if mask is None:
        return row.but(mask="", focus=None) if row.mask else row
    path = manifest.folder / mask_name(row.file)
    before = sha256_file(path) if row.mask and path.is_file() else ""
    save_mask(mask, path)
    same = before == sha256_file(path)
    return row if same else row.but(mask=mask_name(row.file), focus=None)


def _focused(manifest: Manifest, found: dict[str, Any], watcher: Watcher) -> Manifest:
    """With the subject's place in every kept picture that has none yet. What was found is kept when this is stopped."""
    faces = _face_finder(found)
    rows, unread = {row.file: row for row in manifest.rows}, []
    wanted = [row for row in manifest.kept if row.focus is None and row.width]
    looked = _each(lambda row: _look(manifest, row, faces), wanted, "looking", watcher)
    try:
        for number, (row, focus) in enumerate(looked, 1):
            if isinstance(focus, DatasetError):
                unread.append(str(focus))
            else:
                rows[row.file] = row.but(focus=focus)
            if number % SAVE_EVERY == 0:
                manifest = manifest.but(rows.values()).save()
    except KeyboardInterrupt:
        manifest.but(rows.values()).save()
        raise
    found["focused"] = sum(row.focus is not None for row in rows.values())
    if unread:
        found["words"].append(f"{len(unread)} pictures could not be looked at: {unread[0]}")
    return manifest.but(rows.values())


def _look(manifest: Manifest, row: Row, faces: Callable[[Image.Image], Sequence[Box]]) -> Focus:
    picture = read_picture(manifest.path(row))
    if row.mask:
        return focus_of(picture, mask=opened_mask(manifest.folder / row.mask))
    longest = max(picture.size)
    scale = FACES_AT / longest
    sized = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return focus_of(sized, faces=faces(sized) if longest >= SMALLEST else ())


def _face_finder(found: dict[str, Any]) -> Callable[[Image.Image], Sequence[Box]]:
    from darkroom.sampling.keep import find_faces

    try:
        find_faces(Image.new("RGB", (32, 32)))
    except RecipeError as error:
        found["words"].append(f"faces were not looked for: {error}")
        return lambda picture: ()
    return find_faces


def _each(work: Callable[[Row], Done], rows: Sequence[Row], what: str, watcher: Watcher) -> Iterator[tuple[Row, Done | DatasetError]]:
    """What `work` finds for each row, or its DatasetError, in order, on all cores (reading and scaling pictures leaves Python's lock)."""

    def tried(row: Row) -> Done | DatasetError:
        try:
            return work(row)
        except DatasetError as error:
            return error

    ahead = 64 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), ahead):
            part = rows[start : start + ahead]
            for number, (row, done) in enumerate(zip(part, pool.map(tried, part), strict=True), start + 1):
                watcher.move(what, number, len(rows))
                yield row, done


def lines(found: dict[str, Any]) -> Iterable[str]:
    """What `prepare` did, in words."""
    if "amount" in found:
        yield f"{found['train']} to learn from, {found['held_out']} held out" if found["held_out"] else f"{found['train']} to learn from, none held out"
    if "masked" in found:
        yield f"{found['masked']} of {found['kept']} kept pictures have a mask"
    if "focused" in found:
        yield f"{found['focused']} of {found['kept']} kept pictures have their subject's place"
    yield from (f"note: {word}." for word in found["words"])
    yield f"dataset {found['hash'][:16]}"
