"""The trial's pictures as one labelled PNG: prompts down, arms and seeds across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.sampling.sheet import Block, sheet


def grid(result: dict[str, Any], folder: Path, prompts: Sequence[str], seeds: Sequence[int], side: int = 128) -> Image.Image:
    """A picture of `side` pixels for every (prompt, arm, seed) of the trial result; rows are prompts, each arm is a block of columns."""
    arms = [arm["name"] for arm in result["arms"]]
    files = {(row["arm"], row["prompt"], row["seed"]): folder / row["file"] for row in result["pictures"]}
    blocks = [Block(arm, [f"seed {seed}" for seed in seeds]) for arm in arms]
    return sheet(prompts, blocks, [[files[arm, prompt, seed] for arm in arms for seed in seeds] for prompt in prompts], side)
