"""The pictures to be scored, and what each was asked to show: from the PNG's own request, a file beside it, or a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from PIL import Image

from darkroom.data.dataset import list_pictures
from darkroom.data.manifest import Manifest, is_dataset
from darkroom.data.picture import ENDINGS, BrokenPicture, opened, read_picture
from darkroom.errors import DatasetError, PromptError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.watch import Watcher
from darkroom.prompt import read
from darkroom.sampling.request import KEY

FILES, PROMPTS = ("file", "file_name", "image", "path", "name"), ("prompt", "caption", "text")  # headings that a table may use


@dataclass(frozen=True)
class Item:
    """One picture file."""

    path: Path
    file: str
    """Its name below the folder."""
    sha256: str
    prompt: str = ""
    """In bare words, without weights and <lora:...>; "" where nobody knows it."""
    seed: int | None = None
    base: str = ""
    """The base model that its request names."""


class Album(Sequence[Image.Image]):
    """Pictures that stay on the disk until they are looked at."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> Image.Image: ...
    @overload
    def __getitem__(self, place: slice) -> list[Image.Image]: ...
    def __getitem__(self, place: int | slice) -> Image.Image | list[Image.Image]:
        """Read one, or some. Raises BrokenPicture."""
        return read_picture(self.paths[place]) if isinstance(place, int) else [read_picture(path) for path in self.paths[place]]


def find_items(folder: Path, watcher: Watcher, prompts: Path | None = None, trigger: str = "", skip: Path | None = None) -> list[Item]:
    """The folder's pictures; where it holds none itself, those of its subfolders but `skip`. A file that is no picture is among them: scoring says so.

    `trigger` is left out of every prompt: scorers do not know the word. Raises DatasetError where there is no picture, RecipeError for a table that does
    not fit.
    """
    paths = _pictures(folder, skip)
    names = [path.relative_to(folder).as_posix() for path in paths]
    table = _table(prompts, names) if prompts else {}
    items = []
    for done, (path, name) in enumerate(zip(paths, names, strict=True), 1):
        item = replace(_requested(path), file=name)
        said = table.get(name) or item.prompt or _beside(path)
        items.append(replace(item, prompt=_without(_bare(said, path), trigger)))
        if done % 100 == 0 or done == len(paths):
            watcher.move("reading", done, len(paths))
    return items


def subject(folder: Path, held_out: bool, option: str) -> list[Path]:
    """The pictures of a plain folder; of a dataset those that it holds out, or those that are learned from. Raises DatasetError."""
    if not is_dataset(folder):
        try:
            return list_pictures(folder)
        except DatasetError as error:
            raise DatasetError(str(error).replace("--images", option)) from None
    manifest = Manifest.open(folder)
    rows = [row for row in manifest.kept if (row.split == "held_out") == held_out]
    if not rows and held_out:
        raise DatasetError(
            f"{folder}: holds no picture out, so that likeness would reward copying. Hold some out with `darkroom dataset prepare {folder} --held-out 10%`."
        )
    return [manifest.path(row) for row in rows]


def _pictures(folder: Path, skip: Path | None) -> list[Path]:
    if folder.is_dir() and not any(_is_picture(path) for path in folder.iterdir()):
        found = sorted(path for path in folder.rglob("*") if _is_picture(path) and not (skip and path.is_relative_to(skip)))
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        if found:
            return found
    try:
        return list_pictures(folder)
    except DatasetError as error:
        raise DatasetError(str(error).replace("--images takes the folder that holds your pictures.", "Name the folder that holds the pictures.")) from None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")


def _requested(path: Path) -> Item:
    """With what the PNG's own request says, as far as it can be read."""
    blank = Item(path, path.name, sha256_file(path))
    try:
        with opened(path) as picture:
            tree = json.loads(picture.info.get(KEY) or "{}")
    except (BrokenPicture, ValueError):
        return blank
    if not isinstance(tree, dict) or not isinstance(tree.get("prompt"), str):
        return blank
    seed = tree.get("seed")
    return replace(blank, prompt=tree["prompt"], seed=seed if isinstance(seed, int) else None, base=str(tree.get("base", "")))


def _bare(text: str, path: Path) -> str:
    try:
        return read(text).words
    except PromptError as error:
        raise RecipeError(f"{path}: its prompt cannot be read: {error}") from None


def _without(text: str, word: str) -> str:
    if not word:
        return text
    left = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", text, flags=re.IGNORECASE)
    return re.sub(r"\s+([,.;])", r"\1", " ".join(left.split())).strip(" ,")


def _beside(path: Path) -> str:
    for ending in (".txt", ".caption"):
        file = path.with_suffix(ending)
        if file.is_file():
            return file.read_text(encoding="utf-8-sig", errors="replace").strip()
    return ""


def _table(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Prompts by picture: a .csv or .tsv with columns file and prompt, or a text with one prompt for all, or one a line in the order of the names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file. --prompts takes a CSV with the columns file and prompt, or a text with one prompt a line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}. Save it as UTF-8.") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        return _rows(path, list(csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")), names)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) not in (1, len(names)):
        raise RecipeError(
            f"{path}: {len(lines)} prompts for {len(names)} pictures. Write one for all, one a line for each in the order of the names, or a CSV with the "
            "columns file and prompt."
        )
    return dict(zip(names, lines * len(names) if len(lines) == 1 else lines, strict=False))


def _rows(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """By whole name below the folder, or by its last part where that is only one picture's."""
    heads = list(rows[0]) if rows else []
    file, prompt = (next((head for head in heads if head and head.strip().lower() in known), None) for known in (FILES, PROMPTS))
    if file is None or prompt is None:
        raise RecipeError(f"{path}: has the columns {', '.join(map(str, heads)) or 'none'}. It needs one called file and one called prompt.")
    last: dict[str, list[str]] = {}
    for name in names:
        last.setdefault(name.rpartition("/")[2], []).append(name)
    found: dict[str, str] = {}
    for row in rows:
        said = (row[file] or "").strip().replace("\\", "/")
        places = [said] if said in names else last.get(said.rpartition("/")[2], [])
        if len(places) == 1:
            found[places[0]] = (row[prompt] or "").strip()
    if not found:
        raise RecipeError(f"{path}: names none of the {len(names)} pictures. Its column {file} must hold names such as {names[0]}.")
    return found
