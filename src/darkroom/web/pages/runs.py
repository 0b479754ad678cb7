"""Runs and adapters: what was made from what, receipts and checkpoints, and what can be made of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import DarkroomError
from darkroom.jobs.lineage import Link, came_of, made_from, receipt_of
from darkroom.jobs.live import MOST, thinned
from darkroom.train.run import Run
from darkroom.web.answer import Answer, body, text
from darkroom.web.ask import ask
from darkroom.web.grounds import Refused
from darkroom.web.pages import runs_orders
from darkroom.web.pages.train_values import word
from darkroom.web.studio import Studio

ADAPTERS = "adapters"
"""Where `darkroom generate` looks for <lora:NAME:WEIGHT>, and where uploads are put."""


def routes(studio: Studio) -> list[Route]:
    """The page, and /api/runs/..."""
    shelf = studio.shelf

    def page(request: Request) -> Response:
        return studio.page(request, "runs")

    def stock(request: Request) -> Response:
        """Every adapter file below the grounds, the newest first."""
        return Answer({"adapters": sorted(shelf.stock()["adapters"], key=lambda adapter: -adapter["changed"])})

    def run(request: Request) -> Response:
        """?name=: one run with its receipt, checkpoints, and what came before and after it."""
        folder = studio.grounds.there(request.query_params.get("name", ""))
        told = shelf.told(shelf.look(folder), shelf.orders().get(studio.grounds.name(folder)))
        found = told | {"receipt": receipt_of(folder), "checkpoints": [], "before": [], "after": [], "recipe": "", "warning": ""}
        try:
            found |= _whole(studio, folder)
        except (DarkroomError, OSError, ValueError, KeyError, TypeError, AttributeError) as why:
            found["warning"] = f"Not all of it can be read: {why}"
        return Answer(found)

    async def adapter(request: Request) -> Response:
        """?name=: what `darkroom adapter show` says of a file."""
        name = request.query_params.get("name", "")
        path = studio.grounds.there(name)
        if path.suffix != ".safetensors":
            raise Refused("This is no adapter: a .safetensors file is one.")
        facts = await ask(studio, ["adapter", "show", word(studio.grounds, name)])
        return Answer(facts | {"path": studio.grounds.name(path)})

    async def adopt(request: Request) -> Response:
        """{"name"}: an uploaded adapter into adapters/; nothing is written over."""
        source = studio.grounds.there(text(await body(request), "name", longest=1024))
        name = studio.grounds.name(source)
        if not name.startswith("uploads/") or source.suffix != ".safetensors":
            raise Refused("Only an adapter that was uploaded is moved.")
        return Answer({"name": studio.grounds.name(await asyncio.to_thread(_moved, studio, source))})

    return [
        Route("/runs", page),
        Route("/api/runs/adapters", stock),
        Route("/api/runs/run", run),
        Route("/api/runs/adapter", adapter),
        Route("/api/runs/adopt", adopt, methods=["POST"]),
        *runs_orders.routes(studio),
    ]


def _whole(studio: Studio, folder: Path) -> dict[str, Any]:
    grounds, run, shelf = studio.grounds, Run.open(folder), studio.shelf
    stocks = [shelf.inventory(root) for root in (grounds.workspace, *grounds.others.values())]
    log = shelf.logs.of(folder)
    rows = log.since("")["rows"]
    held = {int(row["step"]): row["validation"] for row in rows if "validation" in row}
    best = min(held, key=lambda step: held[step], default=None)
    saved = [
        {"step": one.step, "held_out": held.get(one.step), "best": one.step == best, "file": grounds.name(one.folder / run.recipe.product)}
        for one in run.checkpoints() if (one.folder / run.recipe.product).is_file()
    ]  # fmt: skip
    links = [_link(studio, link) for link in made_from(folder, grounds.workspace)]
    after = [_link(studio, link) for stock in stocks for link in came_of(folder, stock)]
    unique = list({(link["kind"], link["name"], link["path"]): link for link in after}.values())
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    picked = folder / "pick" / "pick.html"
    return {
        "before": links, "after": unique, "checkpoints": saved, "recipe": text, "rows": thinned(rows, MOST // 4),
        "pick": grounds.name(picked) if picked.is_file() else None, "subject": run.recipe.data.subject,
    }  # fmt: skip


def _link(studio: Studio, link: Link) -> dict[str, Any]:
    """As JSON; what lies outside of the grounds is named and not linked."""
    path = studio.grounds.name(link.path) if link.path is not None and studio.grounds.holds(link.path) else None
    return {"kind": link.kind, "name": path or Path(link.name).name or link.name, "path": path, "words": link.words, "sha256": link.sha256}


def _moved(studio: Studio, source: Path) -> Path:
    folder = studio.grounds.path(ADAPTERS)
    folder.mkdir(exist_ok=True)
    target, number = folder / source.name, 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem}-{number}{source.suffix}"
    source.rename(target)
    studio.shelf.forget()
    return target
