"""The trial's pictures as one labelled PNG: prompts down, arms and seeds across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

INK, PAPER, GREY = (28, 26, 23), (251, 250, 247), (120, 116, 108)
GAP, GUTTER, HEAD = 6, 22, 52


def grid(result: dict[str, Any], folder: Path, prompts: Sequence[str], seeds: Sequence[int], side: int = 128) -> Image.Image:
    """A picture of `side` pixels for every (prompt, arm, seed) of the trial result; rows are prompts, each arm is a block of columns."""
    arms = [arm["name"] for arm in result["arms"]]
    files = {(row["arm"], row["prompt"], row["seed"]): folder / row["file"] for row in result["pictures"]}
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    label = max(int(font.getlength(prompt)) for prompt in prompts) + 2 * GUTTER
    block = len(seeds) * (side + GAP) - GAP
    size = (label + len(arms) * (block + GUTTER), HEAD + len(prompts) * (side + GAP) + GUTTER)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for a, arm in enumerate(arms):
        left = label + a * (block + GUTTER)
        pen.text((left, 10), arm, INK, font)
        pen.text((left, 31), "seeds " + ", ".join(map(str, seeds)), GREY, small)
        for p, prompt in enumerate(prompts):
            for s, seed in enumerate(seeds):
                sheet.paste(_scaled(files[arm, prompt, seed], side), (left + s * (side + GAP), HEAD + p * (side + GAP)))
    for p, prompt in enumerate(prompts):
        pen.text((GUTTER, HEAD + p * (side + GAP) + side // 2 - 9), prompt, INK, font)
    return sheet


def _scaled(path: Path, side: int) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    enlarged = side > max(picture.size)
    picture = picture.resize(
        (round(picture.width * side / max(picture.size)), round(picture.height * side / max(picture.size))),
        Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS,
    )
    tile = Image.new("RGB", (side, side), PAPER)
    tile.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return tile
