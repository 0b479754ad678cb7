"""What all pages know of the workspace: its runs and what else lies in it, looked at again where files changed, and seldom where that takes long."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkroom.jobs.inventory import Inventory, take_stock
from darkroom.jobs.live import Logs
from darkroom.jobs.queue import Line
from darkroom.jobs.runs import FRESH, Told, list_runs, look
from darkroom.jobs.shelf import Wearable, wearables
from darkroom.web.grounds import Grounds

OPEN = ("waiting", "running")
SLOW = 20
"""A listing is kept for so many times as long as it took: twenty pages that watch must not keep the disk busy."""


class Shelf:
    """The runs of a workspace; looked at again where their files changed, and seldom where that takes long."""

    def __init__(self, grounds: Grounds, line: Line) -> None:
        self.grounds, self.line, self.logs = grounds, line, Logs()
        self.lock, self.asking = threading.Lock(), threading.Lock()
        self.asked: tuple[float, list[dict[str, Any]]] = (0.0, [])
        self.ended = 0.0
        self.listed: list[Told] = []
        self.until = 0.0
        self.stocks: dict[Path, tuple[float, Inventory]] = {}
        self.looks: dict[Path, tuple[Any, Told]] = {}

    def all(self) -> list[Told]:
        """Every run in the workspace, the newest first."""
        self._notice()
        with self.lock:
            began = time.monotonic()
            if began >= self.until:
                self.listed = list_runs(self.grounds.workspace)
                self.until = time.monotonic() + max(2.0, SLOW * (time.monotonic() - began))
            return self.listed

    def forget(self) -> None:
        """Look anew the next time."""
        self.until = 0.0
        self.stocks.clear()

    def inventory(self, root: Path) -> Inventory:
        """What lies below one of the grounds' folders; kept as long as the listing."""
        self._notice()
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
        grounds, found = self.grounds, dict[str, list[Any]](pictures=[], models=[], adapters=[])
        for root in (grounds.workspace, *grounds.others.values()):
            stock = self.inventory(root)
            found["pictures"] += [[grounds.name(path), count] for path, count in stock.pictures if grounds.holds(path)]
            found["models"] += [grounds.name(path) for path in stock.models if grounds.holds(path)]
            found["adapters"] += [asdict(one) | {"path": None, "name": grounds.name(one.path)} for one in stock.adapters if grounds.holds(one.path)]
        return found

    def wearables(self) -> list[Wearable]:
        """What pages draw and compare with, the newest first."""
        return wearables(self.grounds.workspace, self.all(), self.inventory(self.grounds.workspace))

    def look(self, folder: Path) -> Told:
        """One run."""
        stamp = _stamp(folder)
        known = self.looks.get(folder)
        if known is None or known[0] != stamp:
            known = (stamp, look(folder))
            self.looks[folder] = known
        return known[1]

    def orders(self) -> dict[str, dict[str, Any]]:
        """By run folder the newest order that trains it."""
        found: dict[str, dict[str, Any]] = {}
        for job in self._jobs():
            if job.get("run"):
                found.setdefault(job["run"].rstrip("/"), job)
        return found

    def _jobs(self) -> list[dict[str, Any]]:
        """Asked of the queue at most twice a second."""
        with self.asking:
            if time.monotonic() >= self.asked[0]:
                self.asked = (time.monotonic() + 0.5, self.line.list(200))
            return self.asked[1]

    def _notice(self) -> None:
        """What a job has made is there as soon as it ended, however long a listing is kept."""
        ended = max((job["ended"] or 0.0 for job in self._jobs()), default=0.0)
        if ended > self.ended:
            self.ended = ended
            self.forget()

    def told(self, run: Told, order: dict[str, Any] | None) -> dict[str, Any]:
        """A run as pages show it: "state" is what goes on, "words" what came of it."""
        name = self.grounds.name(run.folder)
        fields = ("method", "pictures", "done", "total", "loss", "best", "best_step", "product", "size", "when", "changed")
        found = {"run": name, "state": _state(run, order), "words": run.words, "order": order and brief(order)}
        return found | {field: getattr(run, field) for field in fields}


def brief(order: dict[str, Any]) -> dict[str, Any]:
    """An order as pages of runs show it."""
    return {key: order[key] for key in ("id", "state", "wish", "place", "title", "device", "message", "again", "followed_by", "progress", "began", "ended")}


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
