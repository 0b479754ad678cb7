"""Blind rating of a trial's pictures. What a page is told of a pair is its prompt and two pictures without metadata: arms stay here."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.evidence.rate import Wish, rate
from darkroom.evidence.rated import rated_lines
from darkroom.evidence.rating import Session, answer, next_pair, open_session, undo
from darkroom.evidence.rating_sheet import picture
from darkroom.web.answer import Answer, body, number, text
from darkroom.web.grounds import Refused
from darkroom.web.studio import Studio

OPEN = 64
"""Sessions that stay open: each holds names and hashes, no pictures."""
LONGEST = 10_000


class Sessions:
    """Open sessions, by all that they depend on."""

    def __init__(self) -> None:
        self._held: OrderedDict[Any, Session] = OrderedDict()

    def open(self, folder: Path, rater: str, pairs: int) -> Session:
        """The session, hashed once while the trial stays as it is. Raises RecipeError, RunError."""
        file = folder / "trial.json"
        key = (str(folder), rater, pairs, file.stat().st_mtime_ns if file.is_file() else 0)
        if key not in self._held:
            self._held[key] = open_session(folder, rater, pairs)
        self._held.move_to_end(key)
        while len(self._held) > OPEN:
            self._held.popitem(last=False)
        return self._held[key]


def rating_routes(studio: Studio) -> list[Route]:
    """/api/compare/rate/..."""
    sessions = Sessions()

    async def session(request: Request) -> tuple[Session, dict[str, Any]]:
        tree = await body(request)
        folder = studio.grounds.there(text(tree, "trial"))
        found = await asyncio.to_thread(sessions.open, folder, text(tree, "rater", longest=40), number(tree, "pairs", 60, 1, LONGEST))
        return found, tree

    async def begin(request: Request) -> Response:
        """{"trial", "rater", "pairs"}: the next pair."""
        found, _ = await session(request)
        return Answer(await asyncio.to_thread(_shown, found))

    async def said(request: Request) -> Response:
        """... and {"pair", "answer", "seconds"}: the answer is written down; the next pair."""
        found, tree = await session(request)
        seconds = tree.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 1e7:
            raise Refused('"seconds" must be a number of seconds.')
        await asyncio.to_thread(answer, found, text(tree, "pair", longest=64), text(tree, "answer", longest=8), float(seconds))  # type: ignore[arg-type]
        return Answer(await asyncio.to_thread(_shown, found))

    async def back(request: Request) -> Response:
        """The last answer is taken back, and its pair shown again."""
        found, _ = await session(request)
        taken = await asyncio.to_thread(undo, found)
        return Answer(await asyncio.to_thread(_shown, found) | {"undone": taken is not None})

    async def publish(request: Request) -> Response:
        """{"trial"}: what all answers say, into the trial's report."""
        tree = await body(request)
        told = await asyncio.to_thread(rate, studio.grounds.there(text(tree, "trial")), Wish())
        return Answer({"rated": told["rated"], "lines": rated_lines(told["rated"])})

    places = {"begin": begin, "answer": said, "undo": back, "publish": publish}
    return [Route(f"/api/compare/rate/{name}", handler, methods=["POST"]) for name, handler in places.items()]


def _shown(session: Session) -> dict[str, Any]:
    """The next pair as a page may know it."""
    shown = next_pair(session)
    if shown is None:
        return {"done": True, "total": len(session.pairs)}
    pair = session.pair(shown.id)
    return {
        "done": False, "pair": shown.id, "prompt": shown.prompt, "number": shown.number, "total": shown.total,
        "left": picture(session, pair, "left"), "right": picture(session, pair, "right"),
    }  # fmt: skip
