"""Pictures: the datasets of the workspace, the contact sheet of one, its copies side by side, its buckets. What is changed there is `pictures_edit`'s, what
is brought in or asked of a job `pictures_bring`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.data.adopt import passed_over
from darkroom.data.manifest import MANIFEST
from darkroom.jobs.sheet import Sheet
from darkroom.jobs.tokens import CHUNK
from darkroom.web.answer import Answer, number
from darkroom.web.pages import pictures_bring, pictures_edit
from darkroom.web.pages.pictures_desk import Desk, query_of, view_of
from darkroom.web.studio import Studio

MOST = 500
"""Rows of one answer."""


def routes(studio: Studio) -> list[Route]:
    """The page, and what it reads."""
    desk = Desk(studio)

    def page(request: Request) -> Response:
        return studio.page(request, "pictures")

    def datasets(request: Request) -> Response:
        return Answer({"datasets": desk.known()})

    def sheet(request: Request) -> Response:
        asked = dict(request.query_params)
        found = desk.sheet(asked.get("dataset", ""), "fresh" in asked)
        return Answer(_about(found, asked["dataset"]))

    def rows(request: Request) -> Response:
        asked = dict(request.query_params)
        found, view, query = desk.sheet(asked.get("dataset", "")), view_of(asked), query_of(asked)
        listed = found.rows(query, view)
        start, count = number(asked, "from", 0, 0, 10_000_000), number(asked, "count", 100, 1, MOST)
        fits = found.fits(view)
        return Answer({"stamp": found.stamp, "total": len(listed), "from": start, "rows": [found.told(row, fits) for row in listed[start : start + count]]})

    def clusters(request: Request) -> Response:
        asked = dict(request.query_params)
        found, view = desk.sheet(asked.get("dataset", "")), view_of(asked)
        groups, fits = found.clusters(), found.fits(view)
        start, count = number(asked, "from", 0, 0, 10_000_000), number(asked, "count", 20, 1, 100)
        told = [{"count": len(group), "rows": [found.told(row, fits) for row in group[:MOST]]} for group in groups[start : start + count]]
        return Answer({"stamp": found.stamp, "total": len(groups), "clusters": told})

    def buckets(request: Request) -> Response:
        asked = dict(request.query_params)
        found = desk.sheet(asked.get("dataset", ""))
        facts = found.overview(view_of(asked)).facts
        told = {name: facts[name] for name in ("counts", "sizes", "captions", "training", "tags")}
        return Answer({"stamp": found.stamp, **told, "prepare": found.manifest.notes.get("prepare")})

    return [
        Route("/pictures", page),
        Route("/api/pictures/datasets", datasets),
        Route("/api/pictures/sheet", sheet),
        Route("/api/pictures/rows", rows),
        Route("/api/pictures/clusters", clusters),
        Route("/api/pictures/buckets", buckets),
        *pictures_edit.routes(desk),
        *pictures_bring.routes(desk),
    ]


def _about(sheet: Sheet, name: str) -> dict[str, Any]:
    manifest, notes = sheet.manifest, sheet.manifest.notes
    note = notes.get("screen") or {}
    screen = {key: value for key, value in note.items() if key in ("checks", "clusters", "crowd", "unknown")} or None
    return {
        "dataset": name, "stamp": sheet.stamp, "plain": not (manifest.folder / MANIFEST).is_file(), "limit": CHUNK, **sheet.counts, "screen": screen,
        "prepare": notes.get("prepare"), "collected": bool(notes.get("collect")), "new": len(sheet.changes.new), "gone": len(sheet.changes.gone),
        "outside": passed_over(Path(manifest.folder.name), sheet.changes.outside),
    }  # fmt: skip
