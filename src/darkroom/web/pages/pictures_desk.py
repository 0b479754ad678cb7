"""What the page Pictures works with: the datasets that are open, and how a request names one, its rows, and a way to cut them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.data.manifest import Row
from darkroom.errors import DatasetError
from darkroom.jobs.datasets import Known, datasets_below
from darkroom.jobs.overview import View
from darkroom.jobs.sheet import Query, Sheet, Sheets
from darkroom.web.answer import number
from darkroom.web.grounds import Refused
from darkroom.web.studio import Studio

CROPS = ("centre", "subject", "random")


@dataclass
class Desk:
    """The datasets that this studio's pages look into."""

    studio: Studio
    sheets: Sheets = field(default_factory=Sheets)

    def folder(self, name: str) -> Path:
        """A dataset's folder. Raises Refused."""
        found = self.studio.grounds.there(name)
        if not found.is_dir() or found in (self.studio.grounds.workspace, *self.studio.grounds.others.values()):
            raise Refused(f"{name or 'The workspace itself'}: is no dataset. Name a folder of pictures in the workspace.")
        return found

    def sheet(self, name: str, fresh: bool = False) -> Sheet:
        """The dataset as it is. Raises Refused, DatasetError."""
        return self.sheets.open(self.folder(name), fresh)

    def known(self) -> list[dict[str, Any]]:
        """All datasets of the grounds."""
        roots = {"": self.studio.grounds.workspace, **self.studio.grounds.others}
        return [self._told(found) for root in roots.values() for found in datasets_below(root) if self.studio.grounds.holds(found.folder)]

    def _told(self, found: Known) -> dict[str, Any]:
        name = self.studio.grounds.name(found.folder)
        return {**vars(found), "folder": name, "first": [f"{name}/{file}" for file in found.first]}


def view_of(asked: Mapping[str, Any]) -> View:
    """How a training would cut: ?base=&resolution=&step=&batch=&crop=&enlarge=. Raises Refused."""
    said = {key: value for key, value in asked.items() if value != ""}
    base, crop = said.get("base", ""), said.get("crop", "centre")
    if base not in ("", "pocket") or crop not in CROPS:
        raise Refused(f'"base" is SDXL\'s or pocket\'s, "crop" one of {", ".join(CROPS)}.')
    sides = {"resolution": number(said, "resolution", 0, 0, 8192), "bucket_step": number(said, "step", 0, 0, 8192)}
    return View(base, **sides, batch_size=number(said, "batch", 4, 1, 4096), crop=crop, enlarge=said.get("enlarge") in ("1", True))


def query_of(asked: Mapping[str, Any]) -> Query:
    """Which rows: ?filter=&text=&sort=&down=1."""
    texts = {name: asked.get(name, default) for name, default in (("filter", "all"), ("text", ""), ("sort", "name"))}
    if not all(isinstance(text, str) and len(text) < 2000 for text in texts.values()):
        raise Refused('"filter", "text" and "sort" are short texts.')
    return Query(**texts, down=asked.get("down") in ("1", True))


def files_of(sheet: Sheet, tree: dict[str, Any]) -> list[str]:
    """The files that a change is for: {"files": [...]}, or all that {"query": {...}} finds. Raises Refused, DatasetError where it is none."""
    files, query = tree.get("files"), tree.get("query")
    if isinstance(query, dict):
        found = [row.file for row in sheet.rows(query_of(query), view_of(query))]
    elif isinstance(files, list) and all(isinstance(file, str) for file in files):
        found = files
    else:
        raise Refused('A change names its pictures: "files", a list of texts, or "query".')
    if not found:
        raise DatasetError("No picture is chosen.")
    return found


def rows_of(sheet: Sheet, files: list[str]) -> list[Row]:
    """Their rows, of those that are still there."""
    return [sheet.by_file[file] for file in files if file in sheet.by_file]
