"""The jobs: what waits, runs and ended, and what may be asked of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.web.answer import Answer, number
from darkroom.web.grounds import Refused
from darkroom.web.studio import Studio


def routes(studio: Studio) -> list[Route]:
    """/api/jobs..."""
    line = studio.line
    wishes: dict[str, Callable[[str], Any]] = {
        "cancel": line.cancel, "pause": line.pause, "resume": line.resume, "remove": line.remove,
        "earlier": lambda id: line.move(id, -1), "later": lambda id: line.move(id, 1),
    }  # fmt: skip

    async def jobs(request: Request) -> Response:
        """?limit=&page=: the newest first."""
        limit = number(dict(request.query_params), "limit", 30, 1, 200)
        return Answer({"jobs": await asyncio.to_thread(line.list, limit, None, request.query_params.get("page"))})

    async def job(request: Request) -> Response:
        return Answer(await asyncio.to_thread(line.look, request.path_params["id"]))

    async def log(request: Request) -> Response:
        return Answer({"log": await asyncio.to_thread(line.log, request.path_params["id"])})

    async def wish(request: Request) -> Response:
        what = request.path_params["wish"]
        if what not in wishes:
            raise Refused("That cannot be asked of a job.")
        found = await asyncio.to_thread(wishes[what], request.path_params["id"])
        return Answer(found if isinstance(found, dict) else {"order": found})

    async def forget(request: Request) -> Response:
        return Answer({"forgotten": await asyncio.to_thread(line.remove_ended)})

    return [
        Route("/api/jobs", jobs),
        Route("/api/jobs/forget", forget, methods=["POST"]),
        Route("/api/jobs/{id}", job),
        Route("/api/jobs/{id}/log", log),
        Route("/api/jobs/{id}/{wish}", wish, methods=["POST"]),
    ]
