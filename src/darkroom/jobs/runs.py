"""The runs below a folder and what came of each. A broken one is listed with the reason: nothing that was trained is passed over."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from darkroom.errors import DarkroomError, OutputError, RunError
from darkroom.fence import hand_over
from darkroom.files import finite
from darkroom.jobs.inventory import EXPORT
from darkroom.train.recipe import Recipe
from darkroom.train.run import Checkpoint, Run

State = Literal["finished", "stopped", "interrupted", "not begun", "damaged"]
LAST = 20
"""The loss that is told is the mean of so many last steps: a single one says little."""
FRESH = 60.0
"""Seconds: a log written to so lately may belong to a training that is under way."""


@dataclass(frozen=True)
class Told:
    """One run, as far as it can be read."""

    folder: Path
    name: str
    """Its path below the folder that was searched."""
    state: State
    words: str
    """The state and what can be done; of a damaged one the reason."""
    when: str
    """When it was last written to: 2026-11-21 13:05."""
    changed: float
    """The same in seconds since 1970."""
    method: str = ""
    pictures: int | None = None
    done: int = 0
    total: int | None = None
    loss: float | None = None
    best: float | None = None
    """The lowest held-out loss, measured after `best_step` steps."""
    best_step: int | None = None
    product: str = ""
    """The file or folder of what was learned, in the run folder."""
    size: int | None = None
    """Its bytes."""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = finite(asdict(self) | {"folder": str(self.folder)})
        return found


def list_runs(folder: Path) -> list[Told]:
    """Every run in the folder and below it, the newest first. Raises RunError where there is no such folder."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder. `darkroom train` makes its runs in runs/; name another folder with `darkroom runs FOLDER`.")
    found = [look(place, folder) for place in _places(folder)]
    return sorted(found, key=lambda run: (-run.changed, run.name))


def _places(folder: Path) -> Iterator[Path]:
    for here, inner, files in os.walk(folder):
        if _is_run(set(inner), set(files)):
            yield Path(here)
            inner.clear()
        inner[:] = sorted(name for name in inner if not name.startswith("."))


def _is_run(folders: set[str], files: set[str]) -> bool:
    """A run, or what is left of one, but no export. recipe.toml alone is a training that was killed as it began; beside other files it is a person's own."""
    if files >= EXPORT and "log.jsonl" not in files:
        return False
    marks = {"recipe.toml", "facts.json"} & files
    return len(marks) == 2 or bool(marks and ({"steps", "previews"} & folders or "log.jsonl" in files)) or (files == {"recipe.toml"} and not folders)


def look(folder: Path, root: Path | None = None) -> Told:
    """What came of one run. Never raises for what is in the folder."""
    name = folder.relative_to(root).as_posix() if root and folder != root else folder.resolve().name
    changed = max((path.stat().st_mtime for path in (folder / "log.jsonl", folder / "facts.json", folder / "recipe.toml") if path.is_file()), default=0.0)
    plain: dict[str, Any] = {
        "folder": folder, "name": name, "when": datetime.fromtimestamp(changed).strftime("%Y-%m-%d %H:%M"), "changed": changed
    }  # fmt: skip
    known: dict[str, Any] = {}
    try:
        run = Run.open(folder)
        for more in (_of_recipe, _of_facts, _of_log, _of_product):
            known |= more(run)
        state, words = _state(run, known, changed)
    except (DarkroomError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        state, words = "damaged", _reason(error)
    return Told(**plain, **known, state=state, words=words)


def _reason(error: Exception) -> str:
    match error:
        case DarkroomError():
            return str(error)
        case KeyError():
            return f"{error} is missing in its files"
        case _:
            return f"its files cannot be read: {error}"


def _of_recipe(run: Run) -> dict[str, Any]:
    return {"method": described(run.recipe)}


def described(recipe: Recipe) -> str:
    """The method in a word or three: "lora 16", "lycoris loha 8"."""
    method = recipe.method.model_dump()
    words = ["dora" if method["kind"] == "lora" and method.get("dora") else method["kind"], method.get("algorithm"), method.get("rank")]
    return " ".join(str(word) for word in words if word)


def _of_facts(run: Run) -> dict[str, Any]:
    try:
        preflight = run.facts["preflight"]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"facts.json is no JSON ({error}). What was learned may be whole: see steps/.") from None
    return {"pictures": int(preflight["pictures"]), "total": int(preflight["steps"])}


def _of_log(run: Run) -> dict[str, Any]:
    rows = run.read_log()
    losses = [row["loss"] for row in rows if isinstance(row.get("loss"), float | int)][-LAST:]
    measured = [(row["validation"], row["step"]) for row in rows if isinstance(row.get("validation"), float | int)]
    best, best_step = min(measured, default=(None, None))
    return {"done": max((row["step"] for row in rows), default=0), "loss": sum(losses) / len(losses) if losses else None, "best": best, "best_step": best_step}


def _of_product(run: Run) -> dict[str, Any]:
    product = run.product
    if not product.exists():
        return {}
    files = [product] if product.is_file() else [path for path in product.rglob("*") if path.is_file()]
    for file in files:
        _check_tensors(file)
    return {"product": product.name, "size": sum(path.stat().st_size for path in files)}


def _check_tensors(file: Path) -> None:
    """Raises RunError where the header and the length of a .safetensors file do not agree; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(hand_over(file), framework="np"):
            pass
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file}: is damaged ({error}).") from None


def _state(run: Run, known: dict[str, Any], changed: float) -> tuple[State, str]:
    done, total = known["done"], known["total"]
    if known.get("product"):
        steps = run.facts.get("result", {}).get("steps", total)
        return "finished", "finished" if steps == total else f"finished: settled at step {steps} of {total}"
    saved = run.checkpoints()
    if saved:
        _check_checkpoint(saved[-1])
    at = saved[-1].step if saved else 0
    aside = " (or it is still under way)" if time.time() - changed < FRESH else ""
    if not done:
        return "not begun", f"not begun{aside}"
    if at == done:
        return "stopped", f"stopped at step {at} of {total}: can go on{aside}"
    return "interrupted", f"interrupted at step {done} of {total}: can go on from {f'step {at}' if at else 'the start'}{aside}"


def _check_checkpoint(saved: Checkpoint) -> None:
    try:
        parts = saved.facts.get("parts")
        for file in [saved.folder / "state" / name for name in parts] if parts else [saved.folder / "state.safetensors"]:
            _check_tensors(file)
    except RunError as error:
        raise RunError(f"steps/{saved.folder.name} is damaged ({error}). Delete it to go on from the one before.") from None


def new_place(out: Path | None, name: str) -> Path:
    """Where a new run goes: `out`, or the next free runs/NAME-001. Raises OutputError where a run is there already.

    Of several processes (WORLD_SIZE) only the first looks, and all of them must be told the same place.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if out is None:
            raise OutputError("--out is missing: several processes train one run, and each must know its folder.")
        if int(os.environ.get("RANK", "0")):
            return out
    place, number = out or Path("runs") / f"{name}-001", 1
    while out is None and place.exists():
        number += 1
        place = Path("runs") / f"{name}-{number:03d}"
    check_new(place)
    return place


def check_new(folder: Path) -> None:
    """Before a training is prepared. Raises OutputError where the folder holds a run, and says what came of it and which command is meant."""
    if not (folder / "recipe.toml").exists():
        return
    found, again = look(folder), f"choose another folder with --out, as --out {shlex.quote(str(_beside(folder)))}"
    match found.state:
        case "finished":
            raise OutputError(
                f"{folder}: this run is finished: {found.done} of {found.total} steps, and what it learned is {folder / found.product}. "
                f"Look at it with `darkroom runs show {shlex.quote(str(folder))}`; to train anew, {again}."
            )
        case "damaged":
            raise OutputError(f"{folder}: holds a run that is damaged: {found.words} To train anew, {again}.")
        case _:
            raise OutputError(
                f"{folder}: holds a run already: {found.words}. Go on with it: `darkroom resume {shlex.quote(str(folder))}`; to train anew, {again}."
            )


def _beside(folder: Path) -> Path:
    """The next name that is free: cat-002 after cat-001, cat-2 after cat."""
    stem, dash, number = folder.name.rpartition("-")
    stem, width, at = (stem, len(number), int(number)) if dash and number.isdecimal() else (folder.name, 1, 1)
    while (found := folder.with_name(f"{stem}-{at + 1:0{width}d}")).exists():
        at += 1
    return found


def lines(runs: Sequence[Told], folder: Path) -> list[str]:
    """As a table; below it what can be gone on with."""
    if not runs:
        return [f"There is no run in {folder}."]
    heads = ("run", "method", "pictures", "steps", "state", "loss", "held out", "size", "when")
    table = [heads, *(_cells(run) for run in runs)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    right = {2, 3, 5, 7}
    told = ["  ".join(f"{cell:>{w}}" if i in right else f"{cell:<{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip() for row in table]
    noted = [f"{run.name}: {run.words}" for run in runs if run.state != "finished"]
    return [*told, *(["", *noted] if noted else [])]


def _cells(run: Told) -> tuple[str, ...]:
    total = "?" if run.total is None else run.total
    return (
        run.name, run.method or "?", "?" if run.pictures is None else str(run.pictures), f"{run.done}/{total}", run.state,
        "" if run.loss is None else f"{run.loss:.4f}", "" if run.best is None else f"{run.best:.4f} at {run.best_step}",
        "" if run.size is None else readable(run.size), run.when,
    )  # fmt: skip


def readable(size: int) -> str:
    """Bytes as 812 B, 24.1 KiB, 109.0 MiB, 6.5 GiB."""
    amount, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
