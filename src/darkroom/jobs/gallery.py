"""The pictures that were drawn in a workspace: listed newest first, with their requests, thrown away and taken back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import DatasetError, OutputError
from darkroom.fence import leads_out

FOLDER = "pictures"
TRASH = ".trash"
"""Below the folder: what was thrown away lies there until a person empties it."""


@dataclass(frozen=True)
class Drawn:
    """One picture."""

    path: Path
    changed: float
    """Seconds since 1970."""


def gallery(workspace: Path, limit: int, before: float = float("inf"), name: str = "") -> list[Drawn]:
    """At most `limit` PNGs of pictures/ older than `before`, or as old and behind `name` in the alphabet; the newest first."""
    found = sorted(_pictures(workspace / FOLDER), key=lambda one: (-one.changed, str(one.path)))
    older = (one for one in found if one.changed < before or (one.changed == before and str(one.path) > name))
    return [one for one, _ in zip(older, range(limit), strict=False)]


def _pictures(folder: Path) -> Iterator[Drawn]:
    for here, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for file in files:
            path = Path(here) / file
            if file.endswith(".png") and not file.startswith(".") and not leads_out(path):
                try:
                    yield Drawn(path, path.stat().st_mtime)
                except OSError:  # thrown away at this moment
                    continue


def throw_away(workspace: Path, picture: Path) -> Path:
    """Move a drawn picture to the trash; returns where it lies now. Raises DatasetError for what is no drawn picture, OutputError."""
    folder = workspace / FOLDER
    if picture.suffix != ".png" or not picture.is_relative_to(folder) or not picture.is_file():
        raise DatasetError(f"{picture.name}: is no drawn picture. Only PNGs below {FOLDER}/ can be thrown away here.")
    return _moved(picture, folder / TRASH / picture.relative_to(folder))


def take_back(workspace: Path, name: str) -> Path:
    """Bring a picture back from the trash by its old name below pictures/. Raises DatasetError, OutputError."""
    folder = workspace / FOLDER
    trash = (folder / TRASH).resolve()
    try:
        lain = (trash / name).resolve()
        there = lain.is_relative_to(trash) and lain.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        there = False
    if not there:
        raise DatasetError(f"{name[:80]}: is not in the trash.")
    return _moved(lain, folder / lain.relative_to(trash))  # not `name`, which may lead up and down again


def _moved(source: Path, target: Path) -> Path:
    free, number = target, 1
    while free.exists():
        number += 1
        free = target.with_stem(f"{target.stem}-{number}")
    try:
        free.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, free)
    except OSError as error:
        raise OutputError(f"{source}: could not be moved to {free}: {error.strerror}. Nothing was lost.") from None
    return free
