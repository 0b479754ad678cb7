"""Outpainting: a larger canvas around a picture, and which part of it is to be drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from darkroom.errors import RecipeError

LARGEST = 4  # a side may be added that is so many times the picture's own


def extend(picture: Image.Image, left: int, top: int, right: int, bottom: int, overlap: int = 8) -> tuple[Image.Image, Image.Image]:
    """The canvas as RGB and a mask "L", 255 where it is to be drawn. All sides in pixels.

    The new area holds the picture mirrored outward and blurred, so that a strength below 1 has colours to start from. The mask reaches
    `overlap` pixels into the picture (at most a quarter of its shorter side), so that the seam is drawn anew; what it leaves out has the
    picture's own bytes. Raises RecipeError for sides that are negative, absurdly large, or all zero.
    """
    sides = (left, top, right, bottom)
    width, height = picture.size
    if min(sides) < 0 or not any(sides):
        raise RecipeError(f"outpaint {', '.join(map(str, sides))}: give the pixels to add left, top, right and bottom; at least one must be above 0.")
    if max(left, right) > LARGEST * width or max(top, bottom) > LARGEST * height:
        raise RecipeError(f"outpaint {', '.join(map(str, sides))}: more than {LARGEST} times the picture's own side ({width} x {height}). Go in several steps.")
    pixels = np.asarray(picture.convert("RGB"))
    around = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    canvas = Image.fromarray(around).filter(ImageFilter.GaussianBlur(max(2, min(width, height) / 16)))
    canvas.paste(picture, (left, top))
    reach = max(0, min(overlap, min(width, height) // 4))
    stays = [reach * bool(side) for side in sides]
    mask = Image.new("L", canvas.size, 255)
    mask.paste(0, (left + stays[0], top + stays[1], left + width - stays[2], top + height - stays[3]))
    return canvas, mask
