"""A folder of pictures as a dataset: a row for each picture that lies in it, and the rows of before brought up to date. Nothing is moved or changed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from darkroom.data.captions import Found, read_captions
from darkroom.data.manifest import ORIGINAL, Manifest, Row, is_dataset
from darkroom.data.picture import ENDINGS, MAX_PIXELS, upright_size
from darkroom.errors import DatasetError
from darkroom.files import sha256_file


@dataclass(frozen=True)
class Changes:
    """What is other than the manifest said: names of files."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    recaptioned: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone or self.recaptioned)


def adopt(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> tuple[Manifest, Changes]:
    """The dataset in the folder as it is now: from its manifest where there is one, else from the pictures alone. Nothing is written: `save` does.

    Files whose size and time are what the manifest says are not read again. A picture whose bytes changed loses what was decided about it; one that is gone
    loses its row. Subfolders are read too. Raises DatasetError where there is no picture, or where two sources of a caption disagree.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise DatasetError(f"{folder}: {what}. Name the folder that holds your pictures.")
    before = Manifest.open(folder) if is_dataset(folder) else Manifest(folder, ())
    known = {row.file: row for row in before.rows}
    files = sorted(_pictures(folder, {row.mask for row in before.rows}))
    if not files and any(folder.glob("*.tar")):
        raise DatasetError(
            f"{folder}: holds shards. `darkroom train` and `darkroom dataset show` read them as they are; for anything that writes into a dataset unpack them "
            f"first: darkroom dataset unpack {folder} --to DATASET"
        )
    if not files:
        raise DatasetError(f"{folder}: holds no picture. Endings read: {', '.join(sorted(ENDINGS))}.")
    found = read_captions(folder, files)
    rows, new, changed, recaptioned = [], [], [], []
    for done, file in enumerate(files, 1):
        row = _now(folder, file, known.get(file))
        told = _captioned(row, found)
        if file not in known:
            new.append(file)
        elif row.sha256 != known[file].sha256:
            changed.append(file)
        elif told.captions != known[file].captions:
            recaptioned.append(file)
        rows.append(told)
        progress(done, len(files))
    gone = tuple(sorted(set(known) - set(files)))
    return before.but(rows), Changes(tuple(new), tuple(changed), gone, tuple(recaptioned))


def _pictures(folder: Path, masks: set[str]) -> Iterator[str]:
    """Pictures below the folder by their ending, hidden ones, masks and folders of masks aside."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.suffix.lower() not in ENDINGS or any(part.startswith(".") for part in parts) or "masks" in parts[:-1]:
            continue
        name = "/".join(parts)
        if name not in masks and path.is_file():
            yield name


def _now(folder: Path, file: str, row: Row | None) -> Row:
    """The row of a file as it lies there, read again only where size or time tell of a change."""
    path = folder / file
    stat = path.stat()
    if row is not None and (row.size, row.changed) == (stat.st_size, stat.st_mtime_ns):
        return row
    digest = sha256_file(path)
    if row is not None and row.sha256 == digest:
        return row.but(changed=stat.st_mtime_ns)
    return described(path, Row(file, digest, size=stat.st_size, changed=stat.st_mtime_ns))


def described(path: Path | IO[bytes], row: Row) -> Row:
    """The row with what the header of a file, or of its bytes, says: format and upright size; left at 0 where it is no picture (screening says why)."""
    try:
        with Image.open(path) as opened:
            width, height = upright_size(opened)
            return row.but(width=width, height=height, format=opened.format or "") if width * height <= MAX_PIXELS else row.but(format=opened.format or "")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, struct.error):
        return row


def _captioned(row: Row, found: Found) -> Row:
    """The row with the caption that lies beside it now, under the name "original"; what programs wrote, or its table said, is kept."""
    captions, source = dict(row.captions), found.sources.get(row.file, "")
    others = {text for by, text in captions.items() if by != ORIGINAL}
    if source != row.beside and found.captions.get(row.file) in others:  # what we laid beside it for other programs (`darkroom caption --sidecars`)
        return row.but(repeats=found.repeats.get(row.file, row.repeats))
    if row.file in found.captions:
        captions = {ORIGINAL: found.captions[row.file]} | {by: text for by, text in captions.items() if by != ORIGINAL}
    elif row.beside:
        captions.pop(ORIGINAL, None)
    return row.but(captions=captions, beside=source, repeats=found.repeats.get(row.file, row.repeats))
