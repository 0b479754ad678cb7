"""What a run was made from, and what was made of it: pictures and base before it, and after it exports, merged adapters and trials, known by their hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from darkroom.errors import DarkroomError
from darkroom.jobs.inventory import Inventory
from darkroom.train.run import Run


@dataclass(frozen=True)
class Link:
    """One thing before or after a run."""

    kind: Literal["pictures", "held out", "class", "base", "adapter", "export", "merged", "trial"]
    name: str
    path: Path | None
    """None of what is not in the workspace, as a model on the hub."""
    words: str
    sha256: str = ""


def made_from(folder: Path, root: Path) -> list[Link]:
    """Pictures and base of a run, as its recipe and receipt name them; `root` is what relative names of its recipe are below. Raises a DarkroomError."""
    run = Run.open(folder)
    recipe, facts = run.recipe, run.facts
    many, held = len(facts.get("pictures", ())), len(facts.get("held_out", ()))
    found = [Link("pictures", recipe.data.images, _place(recipe.data.images, root), f"{many} pictures learned from", str(facts.get("pictures_sha256", "")))]
    if held:
        named = recipe.validation.pictures
        found.append(Link("held out", named or recipe.data.images, _place(named or recipe.data.images, root), f"{held} pictures held out"))
    if recipe.data.prior.prompt:
        found.append(Link("class", recipe.data.prior.pictures or recipe.data.prior.prompt, _place(recipe.data.prior.pictures, root), "pictures of the class"))
    return [*found, Link("base", recipe.base, _place(recipe.base, root), "the base model", str(facts.get("base_sha256", "")))]


def _place(name: str, root: Path) -> Path | None:
    path = root / name
    return path if name and path.exists() else None


def came_of(folder: Path, stock: Inventory) -> list[Link]:
    """What a run learned, and what in the stock was made of it. Raises a DarkroomError."""
    run = Run.open(folder)
    product, digest = run.product, str(run.facts.get("result", {}).get("adapter_sha256", ""))
    found = [Link("adapter", product.name, product, "what it learned", digest)] if product.exists() else []
    if not digest:
        return found
    return [*found, *_exports(digest, stock), *_merged(digest, stock), *_trials(digest, folder, stock)]


def _exports(digest: str, stock: Inventory) -> Iterator[Link]:
    for place in stock.exports:
        facts = _read(place / "facts.json", _stamp(place / "facts.json"))
        if facts.get("adapter_sha256") == digest:
            yield Link("export", place.name, place, f"exported after {facts.get('adapter_step')} steps", digest)


def _merged(digest: str, stock: Inventory) -> Iterator[Link]:
    for adapter in stock.adapters:
        if digest in adapter.sha256:
            yield Link("merged", adapter.path.name, adapter.path, f"made of {', '.join(adapter.made_of)}")


def _trials(digest: str, folder: Path, stock: Inventory) -> Iterator[Link]:
    for place in stock.trials:
        tried = _read(place / "trial.json", _stamp(place / "trial.json"))
        receipt: Any = tried.get("receipt")
        worn = {**receipt.get("adapters", {}), **receipt.get("embeddings", {})} if isinstance(receipt, dict) else {}
        inside = any(Path(file).is_absolute() and Path(file).is_relative_to(folder) for file in worn)
        if digest in worn.values() or inside:
            sentence = next((str(row.get("sentence", "")) for row in tried.get("comparisons", ()) if isinstance(row, dict)), "")
            yield Link("trial", str(tried.get("title") or place.name), place, sentence or "tried")


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(64)
def _read(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    """A JSON object; an empty one where it is damaged. The stamp tells one writing of the file from another."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def receipt_of(folder: Path) -> dict[str, Any]:
    """facts.json without its lists, which are told elsewhere: what a person reads. {} where there is none."""
    try:
        facts = Run.open(folder).facts
    except (DarkroomError, OSError, ValueError):
        return {}
    plain = {key: value for key, value in facts.items() if key not in ("pictures", "held_out", "preflight", "base_files")}
    return plain | {"pictures": len(facts.get("pictures", ())), "held_out": len(facts.get("held_out", ()))}
