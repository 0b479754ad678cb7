"""What a training reads: a folder of pictures with their captions, plain or with a manifest, whole and in a fixed order, no caption ignored in silence."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.data.captions import SIDECARS, read_captions
from darkroom.data.manifest import ORIGINAL, Manifest, Row, is_dataset
from darkroom.data.picture import ENDINGS, read_picture
from darkroom.errors import DatasetError
from darkroom.files import sha256_bytes, sha256_file


@dataclass(frozen=True)
class Photo:
    """One picture: where it lies, what its caption says and where the caption came from, what its bytes are."""

    path: Path
    caption: str
    caption_source: str
    sha256: str
    width: int
    height: int
    captions: Mapping[str, str] = field(default_factory=dict)
    """Every caption it has, by who wrote it; what mixing chooses from."""
    mask: Path | None = None
    """White is learned from, black is not."""
    focus: tuple[float, float] | None = None
    """Where the subject is, as parts of width and height."""
    repeats: int = 1
    """How often an epoch shows it."""
    sample: str = ""
    """Its name in every random draw: the hash of its bytes, told apart by "#2", "#3" where they come again."""

    def read(self) -> Image.Image:
        """The picture as upright RGB."""
        return read_picture(self.path)


def list_pictures(folder: Path) -> list[Path]:
    """The files of the folder (not of its subfolders) that are pictures by their ending, sorted by name. Raises DatasetError."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise DatasetError(f"{folder}: {what}. --images takes the folder that holds your pictures.")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file() and not p.name.startswith("."))
    if not found:
        others = sum(1 for p in folder.iterdir() if p.is_file())
        inner = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and any(q.suffix.lower() in ENDINGS for q in p.iterdir())]
        hint = f" Did you mean its subfolder {inner[0]}?" if inner else ""
        raise DatasetError(f"{folder}: holds no picture ({others} other files). Endings read: {', '.join(sorted(ENDINGS))}.{hint}")
    return found


def read_folder(folder: Path, template: str) -> list[Photo]:
    """Every picture that is to be learned from: of a dataset with a manifest the kept rows that are not held out, of a plain folder all.

    A caption is the row's chosen one, or what lies beside the picture, else `template`. A picture that was not screened is decoded once to prove it whole.
    Raises DatasetError for an unreadable picture (all of them are named), and for two sources that disagree.
    """
    return read_learned(adopt(folder)[0], template) if is_dataset(folder) else _of_folder(folder, template)


def read_held_out(manifest: Manifest, template: str) -> list[Photo]:
    """The kept rows that a dataset holds out. Raises DatasetError as `read_folder` does."""
    return _photos(manifest, [row for row in manifest.kept if row.split == "held_out"], template)


def _of_folder(folder: Path, template: str) -> list[Photo]:
    paths = list_pictures(folder)
    found = read_captions(folder, [path.name for path in paths])
    photos, broken = [], []
    for path in paths:
        try:
            size = read_picture(path).size
        except DatasetError as error:
            broken.append(str(error))
            continue
        caption, source = found.captions.get(path.name), found.sources.get(path.name, "the subject")
        captions = {ORIGINAL: caption} if caption else {}
        photos.append(Photo(path, caption or template, source, sha256_file(path), *size, captions, repeats=found.repeats.get(path.name, 1)))
    _refuse(broken)
    stems = {photo.path.stem for photo in photos}
    orphans = sorted(p for p in folder.iterdir() if p.suffix.lower() in SIDECARS and p.stem not in stems)
    if len(orphans) > 0 and any(photo.caption_source == "the subject" for photo in photos):
        raise DatasetError(f"{orphans[0]}: captions no picture of the folder. Give it the picture's name, or take it out: no caption is ignored in silence.")
    return photos


def read_learned(manifest: Manifest, template: str) -> list[Photo]:
    """The kept rows of a dataset that are not held out. Raises DatasetError as `read_folder` does."""
    folder = manifest.folder
    rows = [row for row in manifest.kept if row.split != "held_out"]
    if not rows:
        raise DatasetError(f"{folder}: none of {len(manifest.rows)} pictures is left to learn from. See why with `darkroom screen {folder} --show`.")
    return _photos(manifest, rows, template)


def _photos(manifest: Manifest, rows: Iterable[Row], template: str) -> list[Photo]:
    photos, broken = [], []
    for row in rows:
        try:
            _check(manifest, row)
            photos.append(photo_of(manifest, row, template))
        except DatasetError as error:
            broken.append(str(error))
    _refuse(broken)
    return photos


def _check(manifest: Manifest, row: Row) -> None:
    """That what the row promises is there. Raises DatasetError."""
    if row.chosen and row.chosen not in row.captions:
        raise DatasetError(f'{manifest.path(row)}: the caption "{row.chosen}" was chosen and is not there. Known: {", ".join(row.captions) or "none"}.')
    if row.mask and not (manifest.folder / row.mask).is_file():
        raise DatasetError(f"{manifest.folder / row.mask}: the mask of {row.file} is gone. Put it back, or run `darkroom dataset prepare` again.")
    if not row.verdict:
        read_picture(manifest.path(row))


def photo_of(manifest: Manifest, row: Row, template: str) -> Photo:
    """The row as a training sees it."""
    by = row.chosen or ORIGINAL
    source = "the subject" if not row.caption else row.beside if by == ORIGINAL and row.beside else by
    mask = manifest.folder / row.mask if row.mask else None
    captions = dict(row.captions)
    return Photo(manifest.path(row), row.caption or template, source, row.sha256, row.width, row.height, captions, mask, row.focus, row.repeats)


def _refuse(broken: Iterable[str]) -> None:
    if listed := list(broken):
        raise DatasetError("\n".join(listed))


def samples(photos: Iterable[Photo]) -> list[Photo]:
    """What an epoch shows: each photo as often as its `repeats` say, each time with a name of its own for the draws."""
    seen: Counter[str] = Counter()
    found = []
    for photo in photos:
        for _ in range(photo.repeats):
            seen[photo.sha256] += 1
            again = f"#{seen[photo.sha256]}" if seen[photo.sha256] > 1 else ""
            found.append(dataclasses.replace(photo, sample=photo.sha256 + again))
    return found


def content_hash(photos: list[Photo]) -> str:
    """A name for what is learned: the hash of all picture bytes, captions and masks, in the order of the file names."""
    told = [f"{p.sha256} {p.caption}" + (f" {sha256_file(p.mask)}" if p.mask else "") for p in photos]
    return sha256_bytes("\n".join(told).encode())
