"""Where on the picture the crop lies: about its centre, about its subject, or at random; always a pure function of what it depends on."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from darkroom.data.buckets import Fit
from darkroom.values import seed_for

Crop = Literal["centre", "subject", "random"]


def cropped(fit: Fit, crop: Crop, focus: tuple[float, float] | None, seed: int, epoch: int, sample: str, grain: int = 1) -> Fit:
    """The fit as this epoch shows it. A picture whose subject nobody has looked for is cut about its centre."""
    match crop:
        case "centre":
            return fit
        case "subject":
            return fit if focus is None else placed(fit, focus)
        case "random":
            return crop_at(fit, seed, epoch, sample, grain)


def placed(fit: Fit, focus: tuple[float, float]) -> Fit:
    """The crop with `focus` (parts of width and height, 0 to 1) as near to its middle as the picture's edges allow."""
    (wide, high), (width, height) = fit.resized, fit.bucket
    left = min(max(round(focus[0] * wide - width / 2), 0), wide - width)
    top = min(max(round(focus[1] * high - height / 2), 0), high - height)
    return dataclasses.replace(fit, left=left, top=top)


def crop_at(fit: Fit, seed: int, epoch: int, sample: str, grain: int = 1) -> Fit:
    """A crop drawn by (seed, epoch, sample), every place equally likely.

    Offsets are multiples of `grain` pixels: with the autoencoder's 8, a picture has few crops (`crop_count`), so that their latents can be kept.
    """
    dice = random.Random(seed_for(seed, "crop", epoch, sample))
    across, down = _places(fit, grain)
    return dataclasses.replace(fit, left=dice.randrange(across) * grain, top=dice.randrange(down) * grain)


def crop_count(fit: Fit, grain: int = 1) -> int:
    """How many crops `crop_at` can draw of this picture: so many latents of it may have to be kept."""
    across, down = _places(fit, grain)
    return across * down


def _places(fit: Fit, grain: int) -> tuple[int, int]:
    return tuple((whole - part) // grain + 1 for whole, part in zip(fit.resized, fit.bucket, strict=True))  # type: ignore[return-value]


def window(fit: Fit) -> tuple[float, float, float, float]:
    """What the crop keeps, as parts of the picture: left, top, right, bottom, 0 to 1."""
    (wide, high), (width, height) = fit.resized, fit.bucket
    return fit.left / wide, fit.top / high, (fit.left + width) / wide, (fit.top + height) / high
