"""What can be made of runs and adapters, each as an order: export, pick, convert, resize, merge. Nothing is written over, and nothing is deleted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import RecipeError
from darkroom.web.answer import Answer, body, number, text
from darkroom.web.grounds import Refused
from darkroom.web.pages.train_values import word
from darkroom.web.studio import Studio

LAYOUTS = ("kohya", "diffusers", "peft")
WAYS = ("concat", "svd", "sum")
LICENCE = re.compile(r"^[a-z0-9][a-z0-9.+-]{0,60}$")
PLAIN = re.compile(r"^[^/\\\0-\x1f]{0,120}$")
MOST = 16
"""Adapters in one merge."""
Tree = dict[str, Any]


def routes(studio: Studio) -> list[Route]:
    """POST /api/runs/WHAT with the choices; answers {"order": ID}."""
    orders: dict[str, Callable[[Studio, Tree], Tree]] = {"export": export, "pick": pick, "convert": convert, "resize": resize, "merge": merge}

    async def order(request: Request) -> Response:
        made = orders.get(request.path_params["what"])
        if made is None:
            raise Refused("That cannot be made of a run.")
        tree = await body(request)
        answer = await asyncio.to_thread(made, studio, tree)
        studio.shelf.forget()
        return Answer(answer)

    return [Route("/api/runs/{what}", order, methods=["POST"])]


def export(studio: Studio, tree: Tree) -> Tree:
    """{"run", "to", "step", "name", "weight", "license", "trial"}."""
    run, to = _there(studio, tree, "run"), _fresh(studio, text(tree, "to", longest=300))
    argv = ["export", run, "--to", to, "--weight", f"{_weight(tree.get('weight', 1.0)):g}"]
    if tree.get("step") is not None:
        argv += ["--checkpoint", str(number(tree, "step", 0, 0, 10**9))]
    if name := text(tree, "name", "", 120):
        argv += ["--name", _plain(name, "name")]
    if licence := text(tree, "license", "", 60):
        if not LICENCE.match(licence):
            raise RecipeError(f'license = "{licence}": is no licence as the hub writes them, for example cc-by-4.0, mit, openrail++ or other.')
        argv += ["--license", licence]
    if tree.get("trial"):
        argv += ["--trial", _there(studio, tree, "trial")]
    return studio.put(f"Export {run} to {to}", argv, "runs") | {"to": to}


def pick(studio: Studio, tree: Tree) -> Tree:
    """{"run", "device"}: which checkpoint is the one to keep."""
    run = _there(studio, tree, "run")
    return studio.put(f"Pick the best step of {run}", ["pick", run], "runs", text(tree, "device", "", 40))


def convert(studio: Studio, tree: Tree) -> Tree:
    """{"file", "to"}: the same adapter in another layout, beside it."""
    file, to = _there(studio, tree, "file"), text(tree, "to", longest=20)
    if to not in LAYOUTS:
        raise RecipeError(f'to = "{to}": a layout is one of {", ".join(LAYOUTS)}.')
    return studio.put(f"{file} for {to}", ["adapter", "convert", file, "--to", to], "runs")


def resize(studio: Studio, tree: Tree) -> Tree:
    """{"file", "rank", "out"}: the nearest LoRA of fewer ranks."""
    file, rank = _there(studio, tree, "file"), number(tree, "rank", 0, 1, 4096)
    out = _fresh(studio, _ending(text(tree, "out", longest=300)))
    return studio.put(f"{file} to rank {rank}", ["adapter", "resize", file, "--rank", str(rank), "--out", out], "runs") | {"to": out}


def merge(studio: Studio, tree: Tree) -> Tree:
    """{"files": [{"name", "weight"}], "how", "rank", "out"}: several adapters as one."""
    files = tree.get("files")
    if not isinstance(files, list) or not 2 <= len(files) <= MOST or not all(isinstance(one, dict) for one in files):
        raise RecipeError(f"A merge takes 2 to {MOST} adapters, each with its weight.")
    how, rank = text(tree, "how", "concat", 20), number(tree, "rank", 0, 0, 4096)
    if how not in WAYS:
        raise RecipeError(f'how = "{how}": is one of {", ".join(WAYS)}.')
    if how == "svd" and not rank:
        raise RecipeError("rank = 0: svd wants the rank to come down to.")
    shares = [f"{_there(studio, one, 'name')}:{_weight(one.get('weight', 1.0)):g}" for one in files]
    out = _fresh(studio, _ending(text(tree, "out", longest=300)))
    argv = ["adapter", "merge", *shares, "--out", out, "--how", how, *(["--rank", str(rank)] if how == "svd" else [])]
    return studio.put(f"Merge {len(files)} adapters to {out}", argv, "runs") | {"to": out}


def _there(studio: Studio, tree: Tree, key: str) -> str:
    """A file or folder of the grounds as a word of the command line. Raises Refused."""
    name = text(tree, key, longest=1024)
    studio.grounds.there(name)
    return word(studio.grounds, name)


def _fresh(studio: Studio, name: str) -> str:
    """A place that is not there yet. Raises Refused, RecipeError."""
    if not name.strip():
        raise RecipeError("The place to write to has no name.")
    if studio.grounds.path(name).exists():
        raise RecipeError(f"{name}: is there already, and is not written over. Choose another name.")
    return word(studio.grounds, name)


def _ending(name: str) -> str:
    return name if not name.strip() or name.endswith(".safetensors") else f"{name}.safetensors"


def _plain(name: str, key: str) -> str:
    if not PLAIN.match(name) or name.startswith((".", "-")):
        raise RecipeError(f'{key} = "{name[:60]}": is no file name. Use letters, digits, - and _.')
    return name


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -10 <= value <= 10:
        raise RecipeError(f"weight = {value!r}: is a number from -10 to 10.")
    return float(value)
