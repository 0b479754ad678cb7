"""What all pages share: the folders, the queue, the templates, and small pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from darkroom import __version__
from darkroom.data.picture import read_picture
from darkroom.errors import RecipeError
from darkroom.files import atomic, cache_folder
from darkroom.jobs.queue import Command, Line, devices
from darkroom.web.grounds import OWN, Grounds
from darkroom.web.guard import Door
from darkroom.web.shelf import Shelf
from darkroom.web.uploads import Uploads

PAGES = (("pictures", "Pictures"), ("train", "Train"), ("draw", "Draw"), ("compare", "Compare"), ("runs", "Runs"))
"""Address and name, in the order of the work."""
SIDES = (128, 256, 512, 1024)
"""Pixels of the longer side that small pictures come in."""


@dataclass
class Studio:
    """One workspace, open in the browser."""

    grounds: Grounds
    door: Door
    queue: InitVar[Line | None] = None
    """The workspace's own where none is given."""
    line: Line = field(init=False)
    shelf: Shelf = field(init=False)
    uploads: Uploads = field(init=False)
    templates: Environment = field(init=False)

    def __post_init__(self, queue: Line | None) -> None:
        self.line = queue or Line(self.grounds.workspace / OWN)
        self.line.grounds = self.grounds.roots
        self.shelf = Shelf(self.grounds, self.line)
        self.uploads = Uploads(self.grounds)
        self.templates = Environment(
            loader=PackageLoader("darkroom.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, enable_async=False
        )
        self.templates.globals.update(version=__version__, pages=PAGES, workspace=self.grounds.workspace.name)

    def page(self, request: Request, name: str, **context: Any) -> HTMLResponse:
        """The template `name`.html with the navigation's page marked."""
        return HTMLResponse(self.templates.get_template(f"{name}.html").render(here=name, **context))

    def put(self, title: str, argv: Sequence[str | Path], page: str, device: str = "") -> dict[str, Any]:
        """Put a command of Darkroom into the queue; answers what pages watch: {"order": ID}. Raises DarkroomError."""
        tree = {"argv": [str(word) for word in argv], "title": title, "page": page, "device": self.device(device)}
        return {"order": self.line.put(Command.from_tree(tree, "the order"))}

    def device(self, name: str = "") -> str:
        """The device of that name, the best where none is named. Raises RecipeError for one that is not here."""
        known = [device["name"] for device in devices()]
        if name and name not in known:
            raise RecipeError(f'device = "{name[:40]}": there is no such device here. Known: {", ".join(known)}.')
        return name or known[0]


def small(path: Path, side: int) -> Path:
    """The picture's small one, made once and kept in the cache. Raises DatasetError where it cannot be read."""
    stat = path.stat()
    name = hashlib.sha256(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\0{side}".encode()).hexdigest()
    kept = cache_folder() / "small" / name[:2] / f"{name}.webp"
    if not kept.is_file():
        picture = read_picture(path)
        picture.thumbnail((side, side), reducing_gap=2.0)
        with atomic(kept) as part:
            picture.save(part, "WEBP", quality=82, method=2)
    os.utime(kept)
    return kept
