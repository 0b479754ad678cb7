"""Pictures as one labelled PNG: rows and columns, in blocks where there are more than two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, PAPER, GREY = (28, 26, 23), (251, 250, 247), (120, 116, 108)
GAP, GUTTER, HEAD = 6, 22, 52
LABEL = 340  # pixels of a row's label before it is broken into lines


@dataclass(frozen=True)
class Block:
    """Neighbouring columns under one heading; each column has a label of its own ("" where it needs none)."""

    heading: str
    columns: Sequence[str]


def sheet(rows: Sequence[str], blocks: Sequence[Block], files: Sequence[Sequence[Path]], side: int = 128, title: str = "") -> Image.Image:
    """Labelled pictures, each within `side` pixels: files[row][column], columns counted through all blocks."""
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    lines = [_wrapped(row, font, LABEL) for row in rows]
    label = max((int(font.getlength(line)) for row in lines for line in row), default=0) + 2 * GUTTER
    heads = [_wrapped(block.heading, font, max(side, len(block.columns) * (side + GAP) - GAP)) for block in blocks]
    top = (44 if title else 0) + 12 + 20 * max((len(head) for head in heads), default=0) + (20 if any(any(b.columns) for b in blocks) else 0)
    widths = [len(block.columns) * (side + GAP) - GAP for block in blocks]
    heights = [max(side, 20 * len(row)) + GAP for row in lines]
    page = Image.new("RGB", (label + sum(widths) + GUTTER * len(blocks), top + sum(heights) + GUTTER), PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((GUTTER, 12), title, INK, ImageFont.load_default(22))
    left, number = label, 0
    for block, head, width in zip(blocks, heads, widths, strict=True):
        below = 10 + (44 if title else 0)
        for line in head:
            pen.text((left, below), line, INK, font)
            below += 20
        for index, column in enumerate(block.columns):
            x = left + index * (side + GAP)
            pen.text((x, top - 19), _cut(column, small, side), GREY, small)
            y = top
            for at, height in enumerate(heights):
                page.paste(_scaled(files[at][number], side), (x, y))
                y += height
            number += 1
        left += width + GUTTER
    y = top
    for words, height in zip(lines, heights, strict=True):
        first = y + (height - GAP - 20 * len(words)) // 2
        for index, line in enumerate(words):
            pen.text((GUTTER, first + 20 * index), line, INK, font)
        y += height
    return page


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, font, width))
    return lines or [""]


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def _scaled(path: Path, side: int) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    longest = max(picture.size)
    how = Image.Resampling.NEAREST if side > longest else Image.Resampling.LANCZOS
    picture = picture.resize((max(1, round(picture.width * side / longest)), max(1, round(picture.height * side / longest))), how)
    tile = Image.new("RGB", (side, side), PAPER)
    tile.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return tile
