"""A trial from what a person gave: a file, one that ships with Darkroom, or adapters and prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import RecipeError
from darkroom.evidence.arms import Trial
from darkroom.evidence.shipped import is_shipped, parse_place, shipped_trial
from darkroom.jobs.generate import parse_adapter
from darkroom.spec import Tree, override, read_toml


@dataclass(frozen=True)
class Given:
    """What was given; what is left out is as in `darkroom trial`."""

    file: str = ""
    """A TRIAL.toml, or the name of a shipped trial."""
    adapters: tuple[str, ...] = ()
    """Without a file: "FILE:WEIGHT@BRANCH" or run folders, each an arm against the base."""
    prompts: tuple[str, ...] = ()
    lines: Path | None = None
    """A text file with one more prompt a line."""
    seeds: int = 4
    base: str = "pocket"
    reference: str = ""
    scorer: str = ""
    world: str = "pocket"
    """Of a shipped trial."""
    places: tuple[str, ...] = ()
    """Of a shipped trial, "PLACE=FILE"."""
    settings: tuple[str, ...] = ()
    """Laid over it, "path=value"."""


def read_trial(given: Given) -> tuple[Trial, Trial | None]:
    """The trial, and the one that its pilot draws, where it has prompts for that (None: its own first ones). Raises a DarkroomError."""
    if is_shipped(given.file):
        places = dict(parse_place(text) for text in given.places)
        both = [shipped_trial(given.file, given.world, places, pilot) for pilot in (False, True)]
        trial, pilot = (Trial.from_tree(override(tree, given.settings), given.file) for tree in both)
        return trial, pilot
    if given.places:
        raise RecipeError(f"--fill {given.places[0]}: only trials that ship with Darkroom have places to fill.")
    tree = read_toml(Path(given.file)) if given.file else _quick(given)
    return Trial.from_tree(override(tree, given.settings), given.file or "trial"), None


def _quick(given: Given) -> Tree:
    """Each adapter against the base."""
    if not given.adapters:
        raise RecipeError("trial needs a TRIAL.toml, or --adapter FILE and some --prompt.")
    if given.seeds < 1:
        raise RecipeError(f"--seeds {given.seeds}: must be at least 1.")
    arms: list[Tree] = [{"name": "base"}]
    for text in given.adapters:
        worn = parse_adapter(text)
        branch = "" if worn.branch == "both" else f" {worn.branch}"
        arms.append({"name": f"{Path(worn.file).stem} {worn.weight:g}{branch}", "adapters": [worn.model_dump()]})
    return {
        "title": "Is it better than the base?", "base": given.base, "arms": arms, "prompts": [*given.prompts, *_lines(given.lines)],
        "seeds": list(range(1, given.seeds + 1)), "reference": given.reference, "scorer": given.scorer,
        "metrics": ["likeness", "clip", "aesthetic"] if given.reference else ["clip", "aesthetic"],
    }  # fmt: skip


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"--prompts {file}: cannot be read as text: {error}. Give a text file with one prompt a line.") from None
