"""What a picture is drawn over: a start picture, the part of it that is drawn, and the part that stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageChops, ImageOps

from darkroom.data.buckets import Fit
from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, RecipeError
from darkroom.sampling.canvas import extend
from darkroom.sampling.keep import face_mask, hold_mask, read_mask
from darkroom.sampling.request import Request
from darkroom.sampling.start import latent_mask, mask_pixels
from darkroom.sampling.upscale import upscale

ROOM = 1.5  # a start picture keeps its own size while its area is within this factor of the model's own


@dataclass(frozen=True)
class Source:
    """All parts are as large as what is drawn."""

    picture: Image.Image
    drawn: Image.Image | None
    """ "L", 255 where the picture is drawn anew; None: everywhere."""
    kept: Image.Image | None
    """ "L", 255 where the picture stays as it is; None: nowhere."""

    def latent_drawn(self, factor: int) -> torch.Tensor | None:
        """(1, 1, h, w), 1 where the loop draws and 0 where it puts the start picture back; None where it draws everywhere."""
        found = None
        if self.drawn is not None:
            found = latent_mask(mask_pixels(self.drawn), factor)
        if self.kept is not None and self.drawn is None:
            found = 1 - hold_mask(self.kept, factor)
        return found


def size_of(request: Request, resolution: int, grain: int) -> tuple[int, int]:
    """Width and height that a request with a start picture draws, both multiples of `grain`.

    Asked sides are kept (one alone takes the other from the picture's shape). Otherwise the picture's own size, brought near the model's own
    area where it is more than half as large again or smaller. Raises DatasetError for a picture too small to start from.
    """
    width, height = read_picture(Path(request.image)).size
    if min(width, height) < 8:
        raise DatasetError(f"{request.image}: {width} x {height} pixels is too small to start from; at least 8 x 8 are needed.")
    left, top, right, bottom = request.outpaint
    width, height = width + left + right, height + top + bottom
    if request.width and request.height:
        return request.width, request.height
    if request.width or request.height:
        scale = request.width / width if request.width else request.height / height
    else:
        room = resolution * resolution / (width * height)
        scale = 1.0 if 1 / ROOM <= room <= ROOM else math.sqrt(room)
        if any(request.outpaint) and room >= 1 / (2 * ROOM):
            scale = 1.0  # sides are added in the picture's own pixels as long as that can be drawn
    return tuple(asked or max(grain, round(side * scale / grain) * grain) for asked, side in ((request.width, width), (request.height, height)))  # type: ignore[return-value]


def source(request: Request) -> Source | None:
    """The start picture of a completed request with its masks, or None where it has none. Raises DatasetError or RecipeError."""
    if not request.image:
        return None
    picture = read_picture(Path(request.image))
    drawn = read_mask(Path(request.mask), picture.size, "mask") if request.mask else None
    kept = None
    if request.keep:
        kept = face_mask(picture) if request.keep == "face" else read_mask(Path(request.keep), picture.size, "keep")
    if any(request.outpaint):
        left, top, right, bottom = request.outpaint
        picture, added = extend(picture, left, top, right, bottom)
        drawn = added if drawn is None else ImageChops.lighter(added, _placed(drawn, added.size, left, top))
        kept = None if kept is None else _placed(kept, added.size, left, top)
    size = (request.width, request.height)
    picture = fitted(picture, size, request.upscaler)
    drawn, kept = (None if mask is None else fitted(mask, size) for mask in (drawn, kept))
    if drawn is not None:
        drawn = drawn.point(lambda value: 255 if value >= 128 else 0)
        if kept is not None:  # what is to stay wins over what is to be drawn
            drawn = ImageChops.subtract(drawn, kept.point(lambda value: 255 if value >= 128 else 0))
        kept = ImageOps.invert(drawn)
        if not drawn.getbbox():
            raise RecipeError("mask and keep leave nothing to draw: every part of the picture is to stay.")
    return Source(picture, drawn, kept)


def fitted(picture: Image.Image, size: tuple[int, int], upscaler: str = "lanczos") -> Image.Image:
    """Exactly `size`, by one cover crop about the centre; a picture of that size is left as it is."""
    if picture.size == size:
        return picture
    scale = max(size[0] / picture.width, size[1] / picture.height)
    if upscaler != "lanczos" and scale > 1:
        picture = upscale(picture, min(4, max(2, math.ceil(scale))), "realesrgan")
        scale = max(size[0] / picture.width, size[1] / picture.height)
    resized = (max(size[0], round(picture.width * scale)), max(size[1], round(picture.height * scale)))
    return Fit(size, resized, (resized[1] - size[1]) // 2, (resized[0] - size[0]) // 2).apply(picture)


def _placed(mask: Image.Image, size: tuple[int, int], left: int, top: int) -> Image.Image:
    canvas = Image.new("L", size, 0)
    canvas.paste(mask, (left, top))
    return canvas
