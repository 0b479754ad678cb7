"""Names that forms send to where they lie: files of the grounds, what is built in, and hub ids. What a job is given can be nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from darkroom.web.grounds import Grounds, Refused

BUILT_IN = ("", "pocket", "pocket-refiner", "none")
HUB = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
FILES = ("file", "image", "mask", "keep", "reference", "training")
MODELS = ("base", "scorer", "model")
"""Keys of a request or a trial that name a file or folder, and those that name a model; so do the values of a table "models"."""
STEP = re.compile(r"^(.+)@(\d{1,9})$")


def placed(grounds: Grounds, name: str, hub: bool = False) -> str:
    """What a job is given for a name of a form: relative to the workspace, or whole for a folder besides it. "RUN@500" keeps its step.

    `hub`: a model, which may also be a hub id. Raises Refused.
    """
    if name in BUILT_IN:
        return name
    found = STEP.match(name)
    stem, step = (found[1], f"@{found[2]}") if found else (name, "")
    path = grounds.path(stem)
    if not path.exists():
        if hub and HUB.match(name):
            return name
        raise Refused(f"{name[:80]}: there is no such file or folder in the workspace.")
    return as_word(grounds, path) + step


def as_word(grounds: Grounds, path: Path) -> str:
    """A path for a job whose working folder is the workspace; never one that looks like an option."""
    real = path.resolve()
    if not real.is_relative_to(grounds.workspace):
        return str(real)
    word = real.relative_to(grounds.workspace).as_posix()
    return f"./{word}" if word.startswith("-") else word


def renamed(tree: Any, change: Callable[[str, str], str], left_out: Collection[str] = (), key: str = "") -> Any:
    """A request or a trial with `change(key, name)` in the place of every name of a file or a model, and without the keys that are left out."""
    match tree:
        case dict():
            return {name: renamed(value, change, left_out, "model" if key == "models" else name) for name, value in tree.items() if name not in left_out}
        case list() | tuple():
            return [renamed(value, change, left_out, key) for value in tree]
        case str() if key in (*FILES, *MODELS) and tree and (key, tree) != ("keep", "face"):
            return change(key, tree)
        case _:
            return tree


def all_placed(grounds: Grounds, tree: Any, left_out: Collection[str] = ()) -> Any:
    """A request or a trial with every name where a job finds it. Raises Refused for one outside of the grounds."""
    return renamed(tree, lambda key, name: placed(grounds, name, hub=key in MODELS), left_out)
