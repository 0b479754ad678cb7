"""What a training reads: pictures with their captions, from a plain folder, a dataset or shards, whole and in a fixed order, no caption ignored in silence."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from darkroom.data.adopt import adopt, passed_over
from darkroom.data.archives import holds_shards
from darkroom.data.captions import SIDECARS, read_captions
from darkroom.data.manifest import ORIGINAL, Manifest, Row, is_dataset
from darkroom.data.member import Member
from darkroom.data.picture import ENDINGS, read_picture
from darkroom.data.streamed import NAMED, Streamed, read_streamed
from darkroom.errors import DatasetError
from darkroom.fence import let
from darkroom.files import sha256_bytes, sha256_file
from darkroom.places.address import is_address


@dataclass(frozen=True)
class Photo:
    """One picture: where it lies, what its caption says and where the caption came from, what its bytes are."""

    path: Path | Member
    caption: str
    caption_source: str
    sha256: str
    width: int
    height: int
    captions: Mapping[str, str] = field(default_factory=dict)
    """Every caption it has, by who wrote it; what mixing chooses from."""
    mask: Path | Member | None = None
    """White is learned from, black is not."""
    focus: tuple[float, float] | None = None
    """Where the subject is, as parts of width and height."""
    repeats: int = 1
    """How often an epoch shows it."""
    sample: str = ""
    """Its name in every random draw: the hash of its bytes, told apart by "#2", "#3" where they come again."""

    def read(self, content: bytes | None = None) -> Image.Image:
        """The picture as upright RGB; `content` is its bytes, where they have been read already. Raises DatasetError."""
        return read_picture(self.path, content)


def list_pictures(folder: Path) -> list[Path]:
    """The files of the folder (not of its subfolders) that are pictures by their ending, sorted by name. Raises DatasetError."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise DatasetError(f"{folder}: {what}. --images takes the folder that holds your pictures.")
    let(folder)
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and p.is_file() and not p.name.startswith("."))
    if not found:
        others = sum(1 for p in folder.iterdir() if p.is_file())
        inner = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and any(q.suffix.lower() in ENDINGS for q in p.iterdir())]
        hint = f" Did you mean its subfolder {inner[0]}?" if inner else ""
        raise DatasetError(f"{folder}: holds no picture ({others} other files). Endings read: {', '.join(sorted(ENDINGS))}.{hint}")
    return found


def open_dataset(source: str | Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Manifest | Streamed | None:
    """The dataset in a folder, or of the shards there; None for a plain folder of pictures. Shards at an address stay there, a folder is brought near.

    Raises DatasetError, also where a page's training would have to pass over what links lead to, and PlaceError for an address out of reach.
    """
    if holds_shards(source):
        return read_streamed(source, progress)
    folder = near_folder(source)
    if not is_dataset(folder):
        return None
    manifest, changes = adopt(folder, progress)
    _refuse_outside(folder, changes.outside)
    return manifest


def _refuse_outside(folder: Path, outside: Sequence[str]) -> None:
    """That nothing is left out of what is learned from without a word. Raises DatasetError."""
    if outside:
        raise DatasetError(f"{passed_over(folder, outside)} Or take the links away: a training leaves nothing out in silence.")


def near_folder(source: str | Path) -> Path:
    """A folder of this machine as it is, one at an address as its working copy. Raises PlaceError."""
    if not is_address(source):
        return Path(source)
    from darkroom.places import near

    return near(str(source))


def read_folder(source: str | Path, template: str) -> list[Photo]:
    """Every picture that is to be learned from: of a dataset with a manifest, or shards, the kept rows that are not held out, of a plain folder all.

    A caption is the row's chosen one, or what lies beside the picture, else `template`. A picture that was not screened is decoded once to prove it whole.
    Raises DatasetError for unreadable pictures (20 of them are named), and for two sources that disagree.
    """
    dataset = open_dataset(source)
    return read_learned(dataset, template) if dataset else _of_folder(near_folder(source), template)


def read_held_out(dataset: Manifest | Streamed, template: str) -> list[Photo]:
    """The kept rows that a dataset holds out. Raises DatasetError as `read_folder` does."""
    return _photos(dataset, [row for row in rows_of(dataset).kept if row.split == "held_out"], template)


def rows_of(dataset: Manifest | Streamed) -> Manifest:
    """The rows, wherever their pictures lie."""
    return dataset.manifest if isinstance(dataset, Streamed) else dataset


def _of_folder(folder: Path, template: str) -> list[Photo]:
    paths = list_pictures(folder)
    found = read_captions(folder, [path.name for path in paths])
    _refuse_outside(folder, found.outside)
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


def read_learned(dataset: Manifest | Streamed, template: str) -> list[Photo]:
    """The kept rows of a dataset that are not held out. Raises DatasetError as `read_folder` does."""
    manifest = rows_of(dataset)
    rows = [row for row in manifest.kept if row.split != "held_out"]
    if not rows:
        see = "" if isinstance(dataset, Streamed) else f" See why with `darkroom screen {manifest.folder} --show`."
        raise DatasetError(f"{_place(dataset)}: none of {len(manifest.rows)} pictures is left to learn from.{see}")
    return _photos(dataset, rows, template)


def _place(dataset: Manifest | Streamed) -> str:
    return dataset.source if isinstance(dataset, Streamed) else str(dataset.folder)


def _photos(dataset: Manifest | Streamed, rows: Iterable[Row], template: str) -> list[Photo]:
    photos, broken = [], []
    for row in rows:
        try:
            _check(dataset, row)
            photos.append(photo_of(dataset, row, template))
        except DatasetError as error:
            broken.append(str(error))
    _refuse(broken)
    return photos


def _check(dataset: Manifest | Streamed, row: Row) -> None:
    """That what the row promises is there. Raises DatasetError."""
    if row.chosen and row.chosen not in row.captions:
        raise DatasetError(f'{dataset.path(row)}: the caption "{row.chosen}" was chosen and is not there. Known: {", ".join(row.captions) or "none"}.')
    if isinstance(dataset, Streamed):  # its pictures were proved whole, and its masks found, when its shards were looked into
        if row.file in dataset.faults:
            raise DatasetError(dataset.faults[row.file])
        return
    mask = dataset.mask(row)
    if mask and not mask.is_file():
        raise DatasetError(f"{mask}: the mask of {row.file} is gone. Put it back, or run `darkroom dataset prepare` again.")
    if not row.verdict:
        read_picture(dataset.path(row))


def photo_of(dataset: Manifest | Streamed, row: Row, template: str) -> Photo:
    """The row as a training sees it."""
    by = row.chosen or ORIGINAL
    source = "the subject" if not row.caption else row.beside if by == ORIGINAL and row.beside else by
    path, mask, captions = dataset.path(row), dataset.mask(row), dict(row.captions)
    return Photo(path, row.caption or template, source, row.sha256, row.width, row.height, captions, mask, row.focus, row.repeats)


def _refuse(broken: Iterable[str]) -> None:
    if listed := list(broken):
        raise DatasetError("\n".join(listed[:NAMED]) + (f"\n... and {len(listed) - NAMED} more" if len(listed) > NAMED else ""))


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
    told = [f"{p.sha256} {p.caption}" + (f" {_digest(p.mask)}" if p.mask else "") for p in photos]
    return sha256_bytes("\n".join(told).encode())


def _digest(file: Path | Member) -> str:
    return file.sha256 if isinstance(file, Member) else sha256_file(file)
