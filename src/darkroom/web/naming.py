"""Names that forms send to where they lie: files of the grounds, what is built in, and hub ids. What a job is given can be nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from darkroom.web.grounds import Grounds, Refused

BUILT_IN = ("", "pocket", "pocket-refiner", "none")
HUB = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
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
