"""Recipes of one's own: the form's values kept as a file, and settings of other programs brought in. Nothing is written over."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import RecipeError
from darkroom.files import write_text
from darkroom.jobs.migrate import Imported, import_diffusers, import_kohya
from darkroom.web.answer import Answer, body, text
from darkroom.web.grounds import Grounds, Refused
from darkroom.web.pages.train_values import OWN, wanted
from darkroom.web.studio import Studio

LARGEST = 500_000
"""Characters of settings."""
SCRIPT = re.compile(r"\btrain_[a-z_]+\.py\b|\baccelerate\s+launch\b")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,59}$")


def routes(studio: Studio) -> list[Route]:
    """POST /api/train/keep and /api/train/import."""

    async def keep(request: Request) -> Response:
        """{"values", "name"}: the form as recipes/NAME.toml; answers {"recipe": its name}."""
        tree = await body(request)
        if not isinstance(tree.get("values"), dict):
            raise Refused('"values" must be an object: the recipe.')
        recipe = await asyncio.to_thread(wanted, studio.grounds, tree["values"])
        return Answer({"recipe": _kept(studio.grounds, text(tree, "name", longest=100), recipe.to_toml())})

    async def bring(request: Request) -> Response:
        """{"text", "name"}: a JSON of the kohya_ss GUI, a TOML of sd-scripts, or a command line of diffusers' scripts, as a recipe; and what became of it."""
        tree = await body(request)
        found, outside = await asyncio.to_thread(brought, studio.grounds, text(tree, "text", longest=LARGEST))
        name = _kept(studio.grounds, text(tree, "name", "imported", 100), found.toml)
        lost = [row for row in found.rows if row.outcome in ("no_equal", "unknown") and row.given]
        rows = [{"key": row.source_key, "value": str(row.value)[:200], "why": row.why} for row in lost]
        return Answer({"recipe": name, "program": found.program, "counts": found.counts(), "todo": list(found.todo), "lost": rows, "outside": outside})

    return [Route("/api/train/keep", keep, methods=["POST"]), Route("/api/train/import", bring, methods=["POST"])]


def brought(grounds: Grounds, said: str) -> tuple[Imported, list[str]]:
    """Another program's settings as a recipe, and the paths that were left out of them: importing looks at files that settings name, so that those which lie
    outside of the grounds are taken away first. Raises RecipeError in the words of the mistake."""
    outside: list[str] = []
    if SCRIPT.search(said):
        try:
            words = shlex.split(said.replace("\\\n", " "), comments=True)
        except ValueError as error:
            raise RecipeError(f"This is no command line: {error}.") from None
        return import_diffusers(shlex.join(harmless(grounds, words, outside))), outside
    tree = _tree(said)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps(harmless(grounds, tree, outside)), encoding="utf-8")
        return import_kohya(path), outside


def _tree(said: str) -> dict[str, Any]:
    try:
        found = json.loads(said) if said.lstrip().startswith("{") else tomllib.loads(said)
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"This is neither JSON nor TOML: {error}. Give the JSON that kohya's GUI saved, sd-scripts' TOML, or diffusers' command line."
        ) from None
    if not isinstance(found, dict) or not found:
        raise RecipeError("This holds no settings.")
    return found


def harmless(grounds: Grounds, value: Any, outside: list[str]) -> Any:
    """The same without names of what lies on this machine and outside of the grounds; those are added to `outside`."""
    match value:
        case str() if _leads_out(grounds, value):
            outside.append(value[:200])
            return ""
        case dict():
            return {key: harmless(grounds, inner, outside) for key, inner in value.items()}
        case list():
            return [harmless(grounds, inner, outside) for inner in value]
        case _:
            return value


def _leads_out(grounds: Grounds, value: str) -> bool:
    option, equals, rest = value.partition("=")
    if equals and option.startswith("-"):
        return _leads_out(grounds, rest)
    if ".." in re.split(r"[/\\]", value) or value.startswith("~"):
        return True
    try:
        return bool(value) and os.path.lexists(value) and not grounds.holds(Path(value))
    except (OSError, ValueError):  # too long for a name, or with a NUL: no file
        return False


def _kept(grounds: Grounds, name: str, toml: str) -> str:
    """Write it to recipes/, under the next free name; what it is called there. Raises Refused."""
    stem = name.removesuffix(".toml").strip()
    if not NAME.match(stem):
        raise Refused(f'"{name[:60]}": is no name for a recipe. Use letters, digits, - and _.')
    folder, number = grounds.path(OWN), 1
    folder.mkdir(exist_ok=True)
    place = folder / f"{stem}.toml"
    while place.exists():
        number += 1
        place = folder / f"{stem}-{number}.toml"
    write_text(grounds.path(f"{OWN}/{place.name}"), toml)
    return grounds.name(place)
