"""Compare: a trial is made, its report is looked at, and its pictures are rated blind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.errors import DarkroomError
from darkroom.evidence.answers import raters
from darkroom.evidence.arms import Trial
from darkroom.evidence.planning_text import plan_lines
from darkroom.evidence.rated import rated, rated_lines
from darkroom.evidence.rating import open_trial
from darkroom.evidence.shipped import shipped_trial, shipped_trials
from darkroom.files import write_text
from darkroom.web.answer import Answer, body, text
from darkroom.web.grounds import Refused
from darkroom.web.naming import all_placed, placed
from darkroom.web.pages.compare_rating import rating_routes
from darkroom.web.studio import Studio

FOLDER = "trials"
METRICS = ("clip", "aesthetic", "likeness", "sharpness", "diversity", "copying", "imagenet", "dino", "hpsv2", "pickscore", "imagereward")
"""What a trial can ask, those first that need nothing else; `drift` is asked by `darkroom score` and `pick`."""
LOOKED_AT = 500


def routes(studio: Studio) -> list[Route]:
    """/compare and /api/compare..."""

    def page(request: Request) -> Response:
        return studio.page(request, "compare", metrics=METRICS)

    def trials(request: Request) -> Response:
        """Every trial of the workspace, the newest first, and what one could be made of."""
        found = [_brief(studio, folder) for folder in _folders_of_trials(studio) if studio.grounds.holds(folder / "trial.json")]
        things = [one.told() for one in studio.shelf.wearables()]
        folders = _folders(studio.grounds.workspace)
        return Answer({"trials": sorted(found, key=lambda one: -one["changed"]), "things": things, "folders": folders, "shipped": shipped_trials()})

    def trial(request: Request) -> Response:
        """?name=: what one found."""
        folder = studio.grounds.there(request.query_params.get("name", ""))
        return Answer(_told(studio, folder))

    async def make(request: Request) -> Response:
        """{"name", "trial": tree, "plan": bool}: the trial is written as trials/NAME.toml and put into the queue."""
        tree = await body(request)
        name = _free(studio.grounds.workspace, text(tree, "name", longest=80))
        asked = tree.get("trial")
        if not isinstance(asked, dict):
            raise Refused('"trial" must be an object.')
        whole = Trial.from_tree(all_placed(studio.grounds, asked), "the trial")
        file = studio.grounds.path(f"{FOLDER}/{name}.toml")
        write_text(file, whole.to_toml())
        plan = ("--plan",) if tree.get("plan") is True else ()
        argv = ["trial", f"{FOLDER}/{name}.toml", "--out", f"{FOLDER}/{name}", *plan]
        return Answer(studio.put(f"{'Plan: ' if plan else ''}{whole.title}", argv, "compare") | {"name": f"{FOLDER}/{name}"})

    async def ship(request: Request) -> Response:
        """{"trial", "world", "fill": {place: file}, "plan": bool}: a trial that ships with Darkroom, its places filled, into the queue."""
        tree = await body(request)
        trial, world, fill = text(tree, "trial", longest=80), text(tree, "world", longest=80), tree.get("fill")
        if not isinstance(fill, dict) or not all(isinstance(file, str) for file in fill.values()):
            raise Refused('"fill" must be an object of names.')
        whole = Trial.from_tree(all_placed(studio.grounds, shipped_trial(trial, world, fill)), trial)
        ways = [part for place, file in _filled(studio, trial, world, fill) for part in ("--fill", f"{place}={file}")]
        plan = ("--plan",) if tree.get("plan") is True else ()
        name = f"{FOLDER}/{_free(studio.grounds.workspace, trial)}"
        argv = ["trial", trial, "--world", world, *ways, "--out", name, *plan]
        return Answer(studio.put(f"{'Plan: ' if plan else ''}{whole.title}", argv, "compare") | {"name": name})

    def plan(request: Request) -> Response:
        """?order=: what a plan that is done says, in words."""
        job = studio.line.look(request.query_params.get("order", ""))
        if job["state"] != "done" or not isinstance(job["result"], dict) or "plans" not in job["result"]:
            raise Refused("This order holds no plan.")
        return Answer({"lines": plan_lines(job["result"])})

    return [
        Route("/compare", page),
        Route("/api/compare/plan", plan),
        Route("/api/compare", trials),
        Route("/api/compare/trial", trial),
        Route("/api/compare/trial", make, methods=["POST"]),
        Route("/api/compare/shipped", ship, methods=["POST"]),
        *rating_routes(studio),
    ]


def _filled(studio: Studio, trial: str, world: str, fill: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Places of a shipped trial with what fills them where a job finds it."""
    (places,) = (one["worlds"][world]["places"] for one in shipped_trials() if one["name"] == trial)
    kinds = {place["name"]: place["kind"] for place in places}
    for place, file in fill.items():
        yield place, file if kinds[place] == "text" else placed(studio.grounds, file, hub=kinds[place] == "model")


def _folders_of_trials(studio: Studio) -> list[Path]:
    """Trials of the workspace that came to an end, not those deeper than three folders, nor what links lead to."""
    home = studio.grounds.workspace
    return [folder for folder in studio.shelf.inventory(home).trials if len(folder.relative_to(home).parts) <= 3][:LOOKED_AT]


def _brief(studio: Studio, folder: Path) -> dict[str, Any]:
    stat = (folder / "trial.json").stat()
    facts = _facts(str(folder), stat.st_mtime_ns)
    return {
        **facts,
        "name": studio.grounds.name(folder),
        "changed": stat.st_mtime,
        "raters": raters(folder),
    }


@lru_cache(maxsize=LOOKED_AT)
def _facts(folder: str, changed: int) -> dict[str, Any]:
    """What a list says of a trial. One that cannot be read says so."""
    try:
        result = open_trial(Path(folder))
        verdicts = Counter(row["verdict"] for row in result["comparisons"])
        return {
            "title": result.get("title", ""),
            "arms": [arm["name"] for arm in result["arms"]],
            "pictures": len(result["pictures"]),
            "verdicts": verdicts,
            "error": "",
        }
    except (DarkroomError, KeyError, TypeError) as error:
        return {"title": "", "arms": [], "pictures": 0, "verdicts": {}, "error": str(error)}


def _told(studio: Studio, folder: Path) -> dict[str, Any]:
    """A trial for its page: sentences, ratings, and the report's name."""
    result = open_trial(folder)
    keys = ("arm", "against", "metric", "verdict", "sentence", "notes", "mean", "low", "high", "p_corrected", "confidence")
    facts = rated(folder, result) if (folder / "ratings").is_dir() else None
    report = folder / "report.html"
    return {
        "name": studio.grounds.name(folder), "title": result.get("title", ""), "about": result.get("about", ""), "arms": result["arms"],
        "contrasts": result.get("contrasts", []), "comparisons": [{key: row.get(key) for key in keys} for row in result["comparisons"]],
        "faults": result.get("faults", []), "pictures": len(result["pictures"]), "rated": facts, "rated_lines": rated_lines(facts) if facts else [],
        "report": studio.grounds.name(report) if report.is_file() else "", "stamp": report.stat().st_mtime_ns if report.is_file() else 0,
    }  # fmt: skip


def _folders(workspace: Path) -> list[str]:
    """Folders that held-out pictures could lie in."""
    places = [workspace, workspace / "datasets"]
    found = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    skipped = {"runs", "trials", "datasets", "adapters", "exports", "uploads"}
    return sorted(path.relative_to(workspace).as_posix() for path in found if path.name not in skipped)[:LOOKED_AT]


def _free(workspace: Path, name: str) -> str:
    """The name as a folder's, counted up where it is taken."""
    stem = "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())[:60] or "trial"
    taken, number = workspace / FOLDER, 1
    found = stem
    while (taken / found).exists() or (taken / f"{found}.toml").exists():
        number += 1
        found = f"{stem}-{number}"
    return found
