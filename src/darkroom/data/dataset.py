"""A folder of pictures with their captions, read whole and in a fixed order, with no caption ignored in silence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from darkroom.data.picture import ENDINGS, read_picture
from darkroom.errors import DatasetError
from darkroom.files import sha256_bytes, sha256_file

SIDECARS = (".txt", ".caption")


@dataclass(frozen=True)
class Photo:
    """One picture: where it lies, what its caption says and where the caption came from, what its bytes are."""

    path: Path
    caption: str
    caption_source: str
    sha256: str
    width: int
    height: int

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
    """Every picture of the folder, decoded once to prove it whole.

    A caption is taken from NAME.txt, NAME.caption or metadata.jsonl (`file_name`, `text` or `caption`), else it is `template`.
    Raises DatasetError for an unreadable picture (all of them are named), and for two sources that disagree.
    """
    table = _metadata(folder)
    photos, broken = [], []
    for path in list_pictures(folder):
        try:
            size = read_picture(path).size
        except DatasetError as error:
            broken.append(str(error))
            continue
        caption, source = _caption(path, table, template)
        photos.append(Photo(path, caption, source, sha256_file(path), *size))
    if broken:
        raise DatasetError("\n".join(broken))
    orphans = sorted(p for p in folder.iterdir() if p.suffix.lower() in SIDECARS and p.stem not in {photo.path.stem for photo in photos})
    if len(orphans) > 0 and any(photo.caption_source == "the subject" for photo in photos):
        raise DatasetError(f"{orphans[0]}: captions no picture of the folder. Give it the picture's name, or take it out: no caption is ignored in silence.")
    unknown = sorted(set(table) - {photo.path.name for photo in photos})
    if unknown:
        raise DatasetError(f"{folder / 'metadata.jsonl'}: captions {unknown[0]}, which is not in the folder. Correct the file name there.")
    return photos


def content_hash(photos: list[Photo]) -> str:
    """A name for the dataset: the hash of all picture bytes and captions, in the order of the file names."""
    return sha256_bytes("\n".join(f"{p.sha256} {p.caption}" for p in photos).encode())


def _caption(path: Path, table: dict[str, str], template: str) -> tuple[str, str]:
    found = {}
    for ending in SIDECARS:
        sidecar = path.with_suffix(ending)
        if sidecar.is_file():
            try:
                found[sidecar.name] = " ".join(sidecar.read_text(encoding="utf-8-sig").split())
            except UnicodeDecodeError:
                raise DatasetError(f"{sidecar}: is not UTF-8 text. Save it as UTF-8.") from None
    if path.name in table:
        found["metadata.jsonl"] = table[path.name]
    if len(set(found.values())) > 1:
        both = "; ".join(f'{name} says "{text}"' for name, text in found.items())
        raise DatasetError(f"{path}: two captions that disagree: {both}. Keep one of them.")
    if not found:
        return template, "the subject"
    source, caption = next(iter(found.items()))
    if not caption:
        raise DatasetError(f"{path.parent / source}: the caption is empty. Write one, or delete the file to caption with the subject.")
    return caption, source


def _metadata(folder: Path) -> dict[str, str]:
    path = folder / "metadata.jsonl"
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    table: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, captions = _row(line, f"{path}, line {number}")
        captions |= {table[name]} if name in table else set()
        if len(captions) > 1:
            raise DatasetError(f"{path}, line {number}: two captions for {name} that disagree: {' / '.join(sorted(captions))}. Keep one of them.")
        table[name] = captions.pop()
    return table


def _row(line: str, where: str) -> tuple[str, set[str]]:
    """The file name of a line and what it says of it: under `text`, under `caption`, or under both."""
    try:
        row = json.loads(line)
        name, found = row["file_name"], [row[key] for key in ("text", "caption") if key in row]
        if not found or not all(isinstance(value, str) for value in (name, *found)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DatasetError(f'{where}: expected {{"file_name": "...", "text": "..."}}, found {line[:80]}') from None
    return name, {" ".join(value.split()) for value in found}
