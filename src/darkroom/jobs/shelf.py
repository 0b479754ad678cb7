"""What there is to draw and compare with in a workspace: what runs learned, adapter files and models. Nothing is opened but headers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.jobs.inventory import Inventory
from darkroom.jobs.learned import steps_of
from darkroom.jobs.runs import Told


@dataclass(frozen=True)
class Wearable:
    """Something learned, to be worn or drawn with."""

    name: str
    """As a person reads it."""
    file: str
    """What jobs are given: the run's folder, or the file, below the workspace."""
    kind: str
    """ "adapter", "word" (textual inversion) or "model"."""
    run: str = ""
    trigger: str = ""
    steps: tuple[int, ...] = ()
    """Of a run, the steps of its checkpoints: "RUN@500" is that of step 500."""
    changed: float = 0.0
    """Seconds since 1970."""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def wearables(workspace: Path, runs: Iterable[Told], stock: Inventory) -> list[Wearable]:
    """Everything learned below the workspace, the newest first, of its runs (those in runs/) and of what lies in it."""
    found = [*_of_runs(workspace, runs), *_of_files(workspace, stock)]
    return sorted(found, key=lambda one: (-one.changed, one.name))


def _of_runs(workspace: Path, runs: Iterable[Told]) -> Iterator[Wearable]:
    for run in runs:
        if not run.folder.is_relative_to(workspace / "runs"):
            continue
        steps = tuple(steps_of(run.folder))
        if not run.product and not steps:
            continue
        kind = "model" if run.method.startswith("full") else "word" if run.method.startswith("inversion") else "adapter"
        where = run.folder.relative_to(workspace).as_posix()
        name = run.folder.relative_to(workspace / "runs").as_posix()
        yield Wearable(f"{name} ({run.method})", where, kind, where, _trigger(run.folder), steps, run.changed)


def _trigger(run: Path) -> str:
    """What the run's subject is called."""
    try:
        return str(tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8")).get("data", {}).get("subject", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _of_files(workspace: Path, stock: Inventory) -> Iterator[Wearable]:
    for adapter in stock.adapters:
        if not adapter.damaged and not _in_run(adapter.path, workspace):
            name = adapter.path.relative_to(workspace).as_posix()
            yield Wearable(name, name, "word" if adapter.word else "adapter", trigger=adapter.words, changed=adapter.changed)
    for model in stock.models:
        if not _in_run(model, workspace):
            name = model.relative_to(workspace).as_posix()
            yield Wearable(name, name, "model", changed=model.stat().st_mtime)


def _in_run(path: Path, workspace: Path) -> bool:
    """Whether it is what a run made, which is listed with the run."""
    return any((above / "recipe.toml").is_file() and (above / "steps").is_dir() for above in path.parents if above.is_relative_to(workspace))
