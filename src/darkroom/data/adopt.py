"""A folder of pictures as a dataset: a row for each picture that lies in it, and the rows of before brought up to date. Nothing is moved or changed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from darkroom.data.captions import Found, read_captions
from darkroom.data.manifest import ORIGINAL, Manifest, Row, is_dataset
from darkroom.data.picture import ENDINGS, MAX_PIXELS, upright_size
from darkroom.errors import DatasetError
from darkroom.fence import WAY_OUT, leads_out, let
from darkroom.files import sha256_file


@dataclass(frozen=True)
class Changes:
    """What is other than the manifest said: names of files."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    recaptioned: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    """Passed over, since links lead from them out of the folders that the asker may read: pictures and captions."""

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone or self.recaptioned)


def adopt(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> tuple[Manifest, Changes]:
    """The dataset in the folder as it is now: from its manifest where there is one, else from the pictures alone. Nothing is written: `save` does.

    Files whose size and time are what the manifest says are not read again. A picture whose bytes changed loses what was decided about it; one that is gone
    loses its row. Subfolders are read too. What a page ordered passes over what leads out of the studio's folders (`darkroom.fence`), and names it.
    Raises DatasetError where there is no picture, where two sources of a caption disagree, or where pictures of the manifest lead out.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise DatasetError(f"{folder}: {what}. Name the folder that holds your pictures.")
    let(folder)
    before = Manifest.open(folder) if is_dataset(folder) else Manifest(folder, ())
    known = {row.file: row for row in before.rows}
    files, outside = _told_apart(folder, _pictures(folder, {row.mask for row in before.rows}))
    _check_rows(folder, [file for file in outside if file in known])
    if not files and any(folder.glob("*.tar")):
        raise DatasetError(
            f"{folder}: holds shards. `darkroom train` and `darkroom dataset show` read them as they are; for anything that writes into a dataset unpack them "
            f"first: darkroom dataset unpack {folder} --to DATASET"
        )
    if not files and outside:
        raise DatasetError(f"{folder}: holds no picture but {_some(outside)}, and links lead from there out of the studio's folders. {WAY_OUT}")
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
    return before.but(rows), Changes(tuple(new), tuple(changed), gone, tuple(recaptioned), (*outside, *found.outside))


def passed_over(folder: Path, outside: Sequence[str]) -> str:
    """What a person is told of what was passed over; "" where nothing was."""
    return f"{folder}: passed over {_some(outside)}: links lead from there out of the studio's folders. {WAY_OUT}" if outside else ""


def _told_apart(folder: Path, files: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those that may be read and those that lead out, each sorted."""
    found: tuple[list[str], list[str]] = [], []
    for file in sorted(files):
        found[leads_out(folder / file)].append(file)
    return found


def _check_rows(folder: Path, outside: Sequence[str]) -> None:
    """That no picture with a row leads out: to drop the row would lose what was decided about it. Raises DatasetError."""
    if outside:
        raise DatasetError(
            f"{folder}: its manifest has {_some(outside)}, and links lead from there out of the studio's folders. {WAY_OUT} Or take the links away."
        )


def _some(files: Sequence[str]) -> str:
    return f"{len(files):,} file{'s' if len(files) > 1 else ''} ({', '.join(files[:3])}{', ...' if len(files) > 3 else ''})"


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
        with Image.open(let(path) if isinstance(path, Path) else path) as opened:
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
