"""The trial's pictures as one labelled PNG: prompts down, arms and seeds across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.files import atomic
from darkroom.sampling.sheet import Block, sheet


def grid(result: dict[str, Any], folder: Path, prompts: Sequence[str], seeds: Sequence[int], side: int = 128) -> Image.Image:
    """A picture of `side` pixels for every (prompt, arm, seed) of the trial result; rows are prompts, each arm is a block of columns.

    A picture that is missing or broken is a grey square.
    """
    arms = [arm["name"] for arm in result["arms"]]
    absent = _grey(folder / "shown" / "missing.png") if any("fault" in row for row in result["pictures"]) else None
    files = {(row["arm"], row["prompt"], row["seed"]): absent if "fault" in row and absent else folder / row["file"] for row in result["pictures"]}
    blocks = [Block(arm, [f"seed {seed}" for seed in seeds]) for arm in arms]
    return sheet(prompts, blocks, [[files[arm, prompt, seed] for arm in arms for seed in seeds] for prompt in prompts], side)


def _grey(path: Path) -> Path:
    with atomic(path) as part:
        Image.new("RGB", (8, 8), (200, 196, 188)).save(part, "PNG")
    return path
