"""The application: every page's routes behind the guard."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from darkroom.errors import DarkroomError
from darkroom.fence import Fence
from darkroom.web.answer import on_mistake, told
from darkroom.web.grounds import Refused
from darkroom.web.guard import COOKIE, Guard, same_token, token_of
from darkroom.web.pages import compare, draw, pictures, queue, runs, train
from darkroom.web.studio import SIDES, Studio, small

SHOWN = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp", ".avif": "image/avif",
}  # fmt: skip
"""What is shown as it is. Anything else is handed over as a file to be saved."""
REPORT = (
    "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox allow-downloads; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""A report is one file that needs nothing else. It may run its own script, in an origin of its own: it can ask nothing of the studio."""


def create_app(studio: Studio) -> Starlette:
    """The ASGI application of one studio."""
    rooms = (pictures, train, draw, compare, runs, queue)
    common = [
        Route("/", lambda request: RedirectResponse("/pictures")),
        Route("/login", _login(studio), methods=["GET", "POST"]),
        Route("/file", _file(studio)),
        Route("/small", _small(studio)),
        Route("/report", _report(studio)),
        *studio.uploads.routes(),
        Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
    ]
    routes = [*common, *(route for room in rooms for route in room.routes(studio))]
    handlers: dict[Any, Any] = {DarkroomError: on_mistake, 404: on_mistake, 405: on_mistake, 413: on_mistake, Exception: on_mistake}
    return Starlette(routes=routes, middleware=[Middleware(Guard, door=studio.door, fence=Fence.around(studio.grounds.roots))], exception_handlers=handlers)


def _login(studio: Studio) -> Any:
    """The token, by a form or as ?token=, into a cookie that no other site's request carries."""

    async def login(request: Request) -> Response:
        posted = (await request.body()).decode(errors="replace") if request.method == "POST" else ""
        given = token_of(posted or request.url.query)
        if not studio.door.token or not same_token(given, studio.door.token):
            await asyncio.sleep(0.5)  # guessing takes its time
            return told(401, "This is not the studio's token: it was printed where `darkroom studio` was started.", page=True)
        answer = RedirectResponse("/pictures", 303)
        answer.set_cookie(COOKIE, given, httponly=True, samesite="strict", secure=request.url.scheme == "https", max_age=30 * 86400)
        return answer

    return login


def _file(studio: Studio) -> Any:
    """?name=: a picture to look at; anything else to be saved. No page of the studio's own origin can be made of it."""

    def file(request: Request) -> Response:
        path = studio.grounds.there(request.query_params.get("name", ""))
        if not path.is_file():
            raise Refused("This is a folder.")
        kind = SHOWN.get(path.suffix.lower())
        headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "no-cache"}
        if kind is None or "save" in request.query_params:
            return FileResponse(path, filename=path.name, media_type="application/octet-stream", headers=headers)
        return FileResponse(path, media_type=kind, headers=headers)

    return file


def _small(studio: Studio) -> Any:
    """?name=&side=: a picture made small."""

    def shrunk(request: Request) -> Response:
        path = studio.grounds.there(request.query_params.get("name", ""))
        side = request.query_params.get("side", "256")
        if side not in map(str, SIDES):
            raise Refused(f"Small pictures come with a side of {', '.join(map(str, SIDES))} pixels.")
        return FileResponse(small(path, int(side)), media_type="image/webp", headers={"cache-control": "private, max-age=60"})

    return shrunk


def _report(studio: Studio) -> Any:
    """?name=: an HTML page that Darkroom wrote, shut off from the studio."""

    def report(request: Request) -> Response:
        path = studio.grounds.there(request.query_params.get("name", ""))
        if path.suffix != ".html" or not path.is_file():
            raise Refused("This is no report.")
        return FileResponse(path, media_type="text/html; charset=utf-8", headers={"content-security-policy": REPORT, "cache-control": "no-cache"})

    return report
