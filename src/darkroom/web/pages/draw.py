"""Draw: a request from the form to a picture, and a picture's request back into the form."""

from __future__ import annotations

import asyncio
import filecmp
from pathlib import Path

from pydantic import BaseModel
from starlette.requests import Request as Asked
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from darkroom.errors import DarkroomError
from darkroom.jobs.gallery import FOLDER, TRASH, gallery, take_back, throw_away
from darkroom.jobs.generate import PRECISIONS
from darkroom.jobs.queue import Draw, devices
from darkroom.jobs.reading import adapter_names, reading
from darkroom.prompt import LANGUAGES, NEGATIVES
from darkroom.sampling.request import Request, read_request
from darkroom.sampling.samplers import SAMPLERS
from darkroom.spec import Tree
from darkroom.web.answer import Answer, body, number, text
from darkroom.web.grounds import Refused
from darkroom.web.naming import MODELS, all_placed, placed, renamed
from darkroom.web.studio import Studio

AGAIN = f"{FOLDER}/again"
MOST = 64
"""Pictures of one click."""
FILLED = ("sha256", "base_sha256", "image_sha256", "mask_sha256", "keep_sha256", "model_sha256", "short")
"""What is filled in while drawing: left out when a request comes back into the form, where the file may be another one by then."""


def routes(studio: Studio) -> list[Route]:
    """/draw and /api/draw..."""
    home = studio.grounds.workspace

    def page(request: Asked) -> Response:
        return studio.page(request, "draw")

    def known(request: Asked) -> Response:
        """What the form offers, and where its fields begin."""
        return Answer({
            "defaults": Request(prompt="").model_dump(mode="json", exclude={*FILLED}), "meanings": _meanings(Request), "languages": LANGUAGES,
            "samplers": {key: sampler.title for key, sampler in SAMPLERS.items()}, "negatives": NEGATIVES, "devices": devices(),
            "things": [one.told() for one in studio.shelf.wearables()],
        })  # fmt: skip

    async def read(request: Asked) -> Response:
        """{"prompt", "negative", "language", "steps"}: how both are read."""
        tree = await body(request)
        steps, language = number(tree, "steps", 25, 1, 1000), text(tree, "language", "auto", 20)
        names = await asyncio.to_thread(adapter_names, home)
        sides = {side: text(tree, side, "", 100_000) for side in ("prompt", "negative")}
        return Answer({side: reading(words, language, steps, names).told() for side, words in sides.items()})

    async def draw(request: Asked) -> Response:
        """{"request": tree, "count", "previews", "device"}: pictures with seeds counted up from the request's."""
        tree = await body(request)
        asked = tree.get("request")
        if not isinstance(asked, dict):
            raise Refused('"request" must be an object.')
        first = Request.from_tree(all_placed(studio.grounds, asked, FILLED), "the request")
        count = number(tree, "count", 1, 1, MOST)
        requests = tuple(first.model_copy(update={"seed": (first.seed + more) % (1 << 63)}) for more in range(count))
        order = Draw(
            requests=requests, out=FOLDER, page="draw", previews=number(tree, "previews", 0, 0, 1000), device=studio.device(text(tree, "device", "", 20)),
            adapters="adapters",
        )  # fmt: skip
        return Answer({"order": await asyncio.to_thread(studio.line.put, order)})

    def preview(request: Asked) -> Response:
        """?order=: what it looks like by now; 204 before there is anything."""
        found = studio.line.picture(request.query_params.get("order", ""))
        return FileResponse(found, media_type="image/png") if found else Response(status_code=204)

    def history(request: Asked) -> Response:
        """?limit=&before=&name=: drawn pictures, the newest first."""
        query = dict(request.query_params)
        try:
            before = float(query.get("before") or "inf")
        except ValueError:
            raise Refused('"before" must be a number.') from None
        found = gallery(home, number(query, "limit", 40, 1, 200), before, str(home / query["name"]) if query.get("name") else "")
        return Answer({"pictures": [{"name": studio.grounds.name(one.path), "changed": one.changed} for one in found]})

    def carried(request: Asked) -> Response:
        """?name=: the request that a PNG carries, as the form has it."""
        path = studio.grounds.there(request.query_params.get("name", ""))
        tree = _shown(studio, read_request(path))
        tree["seed"] = str(tree["seed"])  # a page's numbers are exact up to 2^53
        return Answer({"request": tree, "missing": sorted(_missing(studio, tree))})

    async def again(request: Asked) -> Response:
        """{"name"}: drawn once more from what it carries, by the process that keeps its models open."""
        path = studio.grounds.there(text(await body(request), "name"))
        carried = read_request(path)
        all_placed(studio.grounds, _shown(studio, carried))
        how = PRECISIONS.get(carried.precision, "auto")
        order = Draw(requests=(carried,), out=AGAIN, title=f"Again: {path.name}", page="draw", device=devices()[0]["name"], precision=how, fill=False)
        return Answer({"order": await asyncio.to_thread(studio.line.put, order)})

    def same(request: Asked) -> Response:
        """?order=&name=: whether what the order drew has the same bytes as the picture."""
        job = studio.line.look(request.query_params.get("order", ""))
        path = studio.grounds.there(request.query_params.get("name", ""))
        drawn = [home / file for file in (job["result"] or {}).get("pictures", [])]
        if len(drawn) != 1:
            raise Refused("This order drew no one picture.")
        return Answer({"same": filecmp.cmp(path, drawn[0], shallow=False), "picture": studio.grounds.name(drawn[0])})

    async def trash(request: Asked) -> Response:
        """{"name"}: away, and {"back"} is what takes it back."""
        path = studio.grounds.there(text(await body(request), "name"))
        lies = await asyncio.to_thread(throw_away, home, path)
        return Answer({"back": lies.relative_to(home / FOLDER / TRASH).as_posix()})

    async def back(request: Asked) -> Response:
        """{"back"}: out of the trash."""
        return Answer({"name": studio.grounds.name(await asyncio.to_thread(take_back, home, text(await body(request), "back")))})

    return [
        Route("/draw", page),
        Route("/api/draw", known),
        Route("/api/draw", draw, methods=["POST"]),
        Route("/api/draw/read", read, methods=["POST"]),
        Route("/api/draw/preview", preview),
        Route("/api/draw/history", history),
        Route("/api/draw/request", carried),
        Route("/api/draw/again", again, methods=["POST"]),
        Route("/api/draw/same", same),
        Route("/api/draw/trash", trash, methods=["POST"]),
        Route("/api/draw/back", back, methods=["POST"]),
    ]


def _meanings(spec: type[BaseModel]) -> dict[str, str]:
    return {name: field.description or "" for name, field in spec.model_fields.items()}


def _shown(studio: Studio, request: Request) -> Tree:
    """A request of a PNG as pages name its files, without what is filled in while drawing."""

    def name(key: str, text: str) -> str:
        path = Path(text)
        return studio.grounds.name(path) if path.is_absolute() and studio.grounds.holds(path) else text

    shown: Tree = renamed(request.model_dump(mode="json"), name, FILLED)
    return shown


def _missing(studio: Studio, tree: Tree) -> set[str]:
    """Names in a request that lead nowhere here: a picture of another machine."""
    found = set[str]()

    def look(key: str, text: str) -> str:
        try:
            placed(studio.grounds, text, hub=key in MODELS)
        except DarkroomError:
            found.add(text)
        return text

    renamed(tree, look)
    return found
