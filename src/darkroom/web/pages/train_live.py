"""Trainings that are watched: what their folders say, and what the queue knows of those that were ordered."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import DarkroomError
from darkroom.jobs.inventory import Inventory, take_stock
from darkroom.jobs.live import Logs, frames
from darkroom.jobs.runs import FRESH, Told, list_runs, look
from darkroom.train.run import Run
from darkroom.web.answer import Answer
from darkroom.web.grounds import Refused
from darkroom.web.studio import Studio

OPEN = ("waiting", "running")
SLOW = 20
"""A listing is kept for so many times as long as it took: twenty pages that watch must not keep the disk busy."""


class Shelf:
    """The runs of a workspace; looked at again where their files changed, and seldom where that takes long."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.logs = studio, Logs()
        self.lock, self.asking = threading.Lock(), threading.Lock()
        self.asked: tuple[float, dict[str, dict[str, Any]]] = (0.0, {})
        self.listed: list[Told] = []
        self.until = 0.0
        self.stocks: dict[Path, tuple[float, Inventory]] = {}
        self.looks: dict[Path, tuple[Any, Told]] = {}

    def all(self) -> list[Told]:
        """Every run in the workspace, the newest first."""
        with self.lock:
            began = time.monotonic()
            if began >= self.until:
                self.listed = list_runs(self.studio.grounds.workspace)
                self.until = time.monotonic() + max(2.0, SLOW * (time.monotonic() - began))
            return self.listed

    def forget(self) -> None:
        """Look anew the next time."""
        self.until = 0.0
        self.stocks.clear()

    def inventory(self, root: Path) -> Inventory:
        """What lies below one of the grounds' folders; kept as long as the listing."""
        with self.lock:
            began = time.monotonic()
            known = self.stocks.get(root)
            if known is None or began >= known[0]:
                found = take_stock(root)
                known = (time.monotonic() + max(3.0, SLOW * (time.monotonic() - began)), found)
                self.stocks[root] = known
            return known[1]

    def stock(self) -> dict[str, list[Any]]:
        """Pictures, models and adapters of all grounds, by name."""
        grounds, found = self.studio.grounds, dict[str, list[Any]](pictures=[], models=[], adapters=[])
        for root in (grounds.workspace, *grounds.others.values()):
            stock = self.inventory(root)
            found["pictures"] += [[grounds.name(path), count] for path, count in stock.pictures if grounds.holds(path)]
            found["models"] += [grounds.name(path) for path in stock.models if grounds.holds(path)]
            found["adapters"] += [asdict(one) | {"path": None, "name": grounds.name(one.path)} for one in stock.adapters if grounds.holds(one.path)]
        return found

    def look(self, folder: Path) -> Told:
        """One run."""
        stamp = _stamp(folder)
        known = self.looks.get(folder)
        if known is None or known[0] != stamp:
            known = (stamp, look(folder))
            self.looks[folder] = known
        return known[1]

    def orders(self) -> dict[str, dict[str, Any]]:
        """By run folder the newest order that trains it; asked of the queue at most twice a second."""
        with self.asking:
            if time.monotonic() >= self.asked[0]:
                found: dict[str, dict[str, Any]] = {}
                for job in self.studio.line.list(200):
                    if job.get("run"):
                        found.setdefault(job["run"].rstrip("/"), job)
                self.asked = (time.monotonic() + 0.5, found)
            return dict(self.asked[1])

    def told(self, run: Told, order: dict[str, Any] | None) -> dict[str, Any]:
        """A run as pages show it: "state" is what goes on, "words" what came of it."""
        name = self.studio.grounds.name(run.folder)
        fields = ("method", "pictures", "done", "total", "loss", "best", "best_step", "product", "size", "when", "changed")
        found = {"run": name, "state": _state(run, order), "words": run.words, "order": order and _brief(order)}
        return found | {field: getattr(run, field) for field in fields}


def shelf_of(studio: Studio) -> Shelf:
    """The one shelf of a studio."""
    found: Shelf = studio.__dict__.setdefault("_shelf", Shelf(studio))
    return found


def routes(studio: Studio) -> list[Route]:
    """/api/train/runs and /api/train/run."""
    shelf = shelf_of(studio)

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


def _brief(order: dict[str, Any]) -> dict[str, Any]:
    return {key: order[key] for key in ("id", "state", "wish", "place", "title", "device", "message", "again", "followed_by", "progress", "began", "ended")}


def _unborn(run: str, order: dict[str, Any]) -> dict[str, Any]:
    """An ordered training that has no run folder yet: it waits, or is being prepared."""
    words = order["message"] if order["state"] == "failed" else "waits for its turn" if order["state"] == "waiting" else "is being prepared"
    state = "failed" if order["state"] == "failed" else "waiting" if order["state"] == "waiting" else "training"
    nothing = dict.fromkeys(("pictures", "total", "loss", "best", "best_step", "size"))
    plain = {"run": run, "state": state, "words": words, "order": _brief(order), "method": "", "done": 0, "product": "", "when": "", "changed": order["put"]}
    return nothing | plain


def _state(run: Told, order: dict[str, Any] | None) -> str:
    """training | waiting | paused | failed | and what `runs` says: finished, stopped, interrupted, not begun, damaged."""
    if order and order["state"] in OPEN:
        return "training" if order["state"] == "running" else "waiting"
    if run.state in ("finished", "damaged"):
        return run.state
    quiet = time.time() - run.changed
    if quiet < (FRESH / 3 if run.state == "stopped" else FRESH) and (order is None or run.changed > (order["ended"] or 0) + 1):
        return "training"  # by the command line: its log grows
    if order and order["state"] in ("paused", "failed"):
        return str(order["state"])
    return run.state


def _stamp(folder: Path) -> tuple[int, ...]:
    found = []
    for name in ("log.jsonl", "facts.json", "recipe.toml", "steps", "."):
        try:
            found.append((folder / name).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


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
