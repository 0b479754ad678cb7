"""Train: a recipe as a form, the preflight of what it says, and the order to train it."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.jobs.form import notes, schema
from darkroom.jobs.memory_room import memory_mib
from darkroom.jobs.queue import devices
from darkroom.jobs.settings import command, differing_toml
from darkroom.train.recipe import Recipe
from darkroom.web.answer import Answer, body, text
from darkroom.web.ask import LONGEST, ask
from darkroom.web.grounds import Refused
from darkroom.web.naming import HUB
from darkroom.web.pages import train_live, train_recipes
from darkroom.web.pages.train_values import FORM, file_of, read_recipe, recipes, shown, wanted, word, word_of
from darkroom.web.studio import Studio

FETCHED = 3600.0
"""Seconds that a preflight may take whose base comes from the hub: the first one downloads it."""
LONGEST_WORD = 100_000
"""Bytes of one word of a command: Linux takes 131,071."""
REMEMBERED = 200
"""Preflights that went well, of which one is asked for before a training is ordered."""


@dataclass(frozen=True)
class Asked:
    """What a page asks to train, as a command."""

    recipe: Recipe
    before: Recipe
    argv: tuple[str, ...]
    stamp: str
    """The command and the recipe file's text, hashed: the same stamp is the same training."""


def routes(studio: Studio) -> list[Route]:
    """The page, and /api/train/..."""
    checked: OrderedDict[str, None] = OrderedDict()
    shelf = studio.shelf

    def page(request: Request) -> Response:
        return studio.page(request, "train")

    def form(request: Request) -> Response:
        """What the form is made from, and what can be chosen."""
        found = [asdict(one) for one in recipes(studio.grounds)]
        places = [dict(device) | {"memory_mib": memory_mib(device["name"])} for device in devices()]
        return Answer({"schema": schema(), "recipes": found, "devices": places})

    def recipe(request: Request) -> Response:
        """?name=: its values, and what its author says of each."""
        name = request.query_params.get("name", "")
        file = file_of(studio.grounds, name)
        return Answer({"name": name, "values": shown(studio.grounds, read_recipe(studio.grounds, name)), "notes": notes(file.read_text("utf-8-sig"))})

    def choices(request: Request) -> Response:
        """Folders of pictures and base models that the grounds hold, for a field that wants one."""
        stock = shelf.stock()
        return Answer({"pictures": stock["pictures"], "models": stock["models"]})

    async def plan(request: Request) -> Response:
        """{"recipe", "values"}: what differs from the recipe, as TOML and as a command. Tells the first mistake in the values."""
        asked = await asyncio.to_thread(read, studio, await body(request))
        return Answer({"stamp": asked.stamp, "toml": differing_toml(asked.before, asked.recipe), "command": shlex.join(["darkroom", *asked.argv])})

    async def check(request: Request) -> Response:
        """The same, asked of `darkroom train --check`; given up as soon as the page no longer waits for it."""
        asked = await asyncio.to_thread(read, studio, await body(request))
        longest = FETCHED if HUB.match(asked.recipe.base) else LONGEST
        work = asyncio.create_task(ask(studio, [*asked.argv, "--check"], longest))
        try:
            while not work.done():
                if await request.is_disconnected():
                    work.cancel()
                    return Response(status_code=204)
                await asyncio.wait([work], timeout=0.3)
        finally:
            work.cancel()
        facts = await work
        checked[asked.stamp] = None
        while len(checked) > REMEMBERED:
            checked.popitem(last=False)
        return Answer({"stamp": asked.stamp, "preflight": facts["preflight"]})

    async def start(request: Request) -> Response:
        """{"recipe", "values", "name", "device"}: into the queue. Answers {"order", "run"}."""
        tree = await body(request)
        asked = await asyncio.to_thread(read, studio, tree)
        if asked.stamp not in checked:
            raise Refused("These values have had no preflight yet. Look at it first: it says what will happen, and what would go wrong.")
        return Answer(await asyncio.to_thread(_put, studio, asked, text(tree, "name", "", 100), text(tree, "device", "", 40)))

    async def resume(request: Request) -> Response:
        """{"run"}: go on with a run that no order of the queue stands for, as one that was begun on the command line."""
        tree = await body(request)
        run = studio.grounds.name(studio.grounds.there(text(tree, "run", longest=1024)))
        return Answer(await asyncio.to_thread(studio.put, f"{run}: go on", ["resume", word(studio.grounds, run)], "train"))

    return [
        Route("/train", page),
        Route("/api/train/form", form),
        Route("/api/train/recipe", recipe),
        Route("/api/train/choices", choices),
        Route("/api/train/plan", plan, methods=["POST"]),
        Route("/api/train/check", check, methods=["POST"]),
        Route("/api/train/start", start, methods=["POST"]),
        Route("/api/train/resume", resume, methods=["POST"]),
        *train_live.routes(studio),
        *train_recipes.routes(studio),
    ]


def read(studio: Studio, tree: dict[str, Any]) -> Asked:
    """What a page's body asks for. Raises Refused, RecipeError."""
    values = tree.get("values")
    if not isinstance(values, dict):
        raise Refused('"values" must be an object: the recipe.')
    name = text(tree, "recipe", longest=1024)
    before, recipe = read_recipe(studio.grounds, name), wanted(studio.grounds, values)
    argv = tuple(command(word_of(studio.grounds, name), before, recipe))
    if any("\0" in word or len(word.encode()) > LONGEST_WORD for word in argv):
        raise Refused(f"{FORM}: one of its values holds a NUL, or more than {LONGEST_WORD:,} bytes: no command takes it.")
    content = file_of(studio.grounds, name).read_bytes()
    return Asked(recipe, before, argv, hashlib.sha256("\0".join(argv).encode() + b"\0" + content).hexdigest())


def _put(studio: Studio, asked: Asked, name: str, device: str) -> dict[str, Any]:
    run = new_run(studio, name or _usual(asked))
    title = f"{Path(asked.argv[1]).stem}: {asked.recipe.data.subject or run}"
    return studio.put(title, [*asked.argv, "--out", run], "train", device) | {"run": run}


def _usual(asked: Asked) -> str:
    trigger = "".join(letter if letter.isalnum() else "-" for letter in asked.recipe.trigger)
    return f"{Path(asked.argv[1]).stem}-{trigger or 'run'}"


def new_run(studio: Studio, name: str) -> str:
    """A free run folder of that name: runs/NAME-001, or the next number. Raises Refused."""
    if "/" in name or name.startswith((".", "-")):
        raise Refused(f'{FORM}: a run called "{name[:60]}": give it a name without "/", which does not begin with "." or "-".')
    ordered = {job["run"] for job in studio.line.list(200)}
    number = 1
    while (run := f"runs/{name}-{number:03d}") in ordered or studio.grounds.path(run).exists():
        number += 1
    return run
