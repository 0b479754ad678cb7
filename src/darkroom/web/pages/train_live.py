"""Trainings that are watched: what their folders say, and what the queue knows of those that were ordered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import DarkroomError
from darkroom.jobs.live import frames
from darkroom.train.run import Run
from darkroom.web.answer import Answer
from darkroom.web.grounds import Refused
from darkroom.web.shelf import OPEN, brief
from darkroom.web.studio import Studio


def routes(studio: Studio) -> list[Route]:
    """/api/train/runs and /api/train/run."""
    shelf = studio.shelf

    def runs(request: Request) -> Response:
        """Every run, those that go on first; orders whose run folder is not there yet among them."""
        orders = shelf.orders()
        found = [shelf.told(run, orders.pop(studio.grounds.name(run.folder), None)) for run in shelf.all() if studio.grounds.holds(run.folder)]
        unborn = [_unborn(run, order) for run, order in orders.items() if order["state"] in OPEN or (order["state"], order["command"]) == ("failed", "train")]
        return Answer({"runs": sorted([*unborn, *found], key=lambda run: run["state"] not in ("training", "waiting"))})

    def run(request: Request) -> Response:
        """?name=&after=: one run, and the rows of its log that are new."""
        name = request.query_params.get("name", "")
        folder = studio.grounds.path(name)
        order = shelf.orders().get(studio.grounds.name(folder))
        if not (folder / "recipe.toml").is_file():
            if order is None:
                raise Refused(f"{name[:80]}: is no run. `darkroom train` makes one.")
            return Answer(_unborn(studio.grounds.name(folder), order) | {"rows": [], "after": "", "anew": True, "frames": [], "checkpoints": []})
        log = shelf.logs.of(folder)
        fresh = log.since(request.query_params.get("after", "")[:64])
        told = shelf.told(shelf.look(folder), order)
        speed = log.speed
        left = (told["total"] - told["done"]) / speed if speed and told["total"] and told["state"] == "training" else None
        shown = [{"step": one.step, "prompt": one.prompt, "name": studio.grounds.name(one.path), "stamp": one.stamp} for one in frames(folder)]
        return Answer(told | fresh | {"latest": log.latest(), "speed": speed, "left": left, "frames": shown, **_of_recipe(folder)})

    return [Route("/api/train/runs", runs), Route("/api/train/run", run)]


def _unborn(run: str, order: dict[str, Any]) -> dict[str, Any]:
    """An ordered training that has no run folder yet: it waits, or is being prepared."""
    words = order["message"] if order["state"] == "failed" else "waits for its turn" if order["state"] == "waiting" else "is being prepared"
    state = "failed" if order["state"] == "failed" else "waiting" if order["state"] == "waiting" else "training"
    nothing = dict.fromkeys(("pictures", "total", "loss", "best", "best_step", "size"))
    plain = {"run": run, "state": state, "words": words, "order": brief(order), "method": "", "done": 0, "product": "", "when": "", "changed": order["put"]}
    return nothing | plain


def _of_recipe(folder: Path) -> dict[str, Any]:
    """What the pictures of the strip were asked to be, what was saved, and what a preflight said."""
    run = Run(folder)
    try:
        recipe = run.recipe
        facts = run.facts
    except (DarkroomError, OSError, json.JSONDecodeError):
        return {"prompts": [], "checkpoints": [], "subject": "", "facts": {}}
    kept = ("device", "precision", "result", "held_out")
    told = {key: facts[key] for key in kept if key in facts}
    saved = [{"step": one.step, "best": False} for one in run.checkpoints()]
    preflight = facts.get("preflight", {})
    return {
        "prompts": list(recipe.preview.prompts or (recipe.template,)), "checkpoints": saved, "subject": recipe.data.subject, "base": recipe.base,
        "facts": told | {"held_out": len(facts.get("held_out", ())), "memory_mib": preflight.get("memory_mib")},
    }  # fmt: skip
