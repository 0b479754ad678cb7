"""Aspect buckets: each picture goes to the shape that cuts away least, by one cover crop; where on the picture the crop lies is crops.py's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Fit:
    """How one picture becomes one bucket: scale to `resized` (width, height), cut `bucket` out of it at (top, left)."""

    bucket: tuple[int, int]  # width, height in pixels
    resized: tuple[int, int]  # width, height in pixels
    top: int
    left: int

    @property
    def lost(self) -> float:
        """The part of the picture that the crop cuts away, 0 to 1."""
        return 1 - self.bucket[0] * self.bucket[1] / (self.resized[0] * self.resized[1])

    def enlarges(self, width: int, height: int, most: float = 1.0) -> bool:
        """Whether a picture of this size is enlarged more than `most` times."""
        return self.resized[0] > width * most or self.resized[1] > height * most

    def apply(self, picture: Image.Image) -> Image.Image:
        """Scale and cut. The result is exactly `bucket` large."""
        scaled = picture.resize(self.resized, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return scaled.crop((self.left, self.top, self.left + self.bucket[0], self.top + self.bucket[1]))


def bucket_shapes(resolution: int, step: int, max_aspect: float = 2.0) -> list[tuple[int, int]]:
    """Widths and heights in multiples of `step` with at most resolution squared pixels and an aspect of at most `max_aspect`.

    For resolution 1024 and step 64 whatever `fit` chooses is one of SDXL's shapes (Podell et al. 2023, appendix I). Raises ValueError
    where the step is larger than the resolution.
    """
    if not 0 < step <= resolution:
        raise ValueError(f"bucket step {step} must be between 1 and the resolution, {resolution}")
    shapes = set()
    for width in range(step, int(resolution * math.sqrt(max_aspect)) + step, step):
        height = min(resolution**2 // width // step * step, int(width * max_aspect) // step * step)
        if height >= step and max(width / height, height / width) <= max_aspect:
            shapes |= {(width, height), (height, width)}
    return sorted(shapes | {(resolution // step * step,) * 2})


def fit(width: int, height: int, shapes: list[tuple[int, int]]) -> Fit:
    """The bucket whose aspect is nearest (in log), covered and cut about the centre."""
    aspect = math.log(width / height)
    bucket = min(shapes, key=lambda s: (abs(math.log(s[0] / s[1]) - aspect), -s[0] * s[1]))
    scale = max(bucket[0] / width, bucket[1] / height)
    resized = (max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale)))
    return Fit(bucket, resized, (resized[1] - bucket[1]) // 2, (resized[0] - bucket[0]) // 2)


def ladder(resolution: int, step: int, lowest: int = 0, max_aspect: float = 2.0) -> list[list[tuple[int, int]]]:
    """The shapes of this resolution, of one step less, and so on down to `lowest` (0: a quarter of it, as sd-scripts' min_bucket_reso 256 for 1024)."""
    least = max(step, lowest or resolution // 4)
    return [bucket_shapes(side, step, max_aspect) for side in range(resolution, min(least, resolution) - 1, -step)]


def fit_down(width: int, height: int, rungs: Sequence[list[tuple[int, int]]], most: float = 1.0) -> Fit:
    """The nearest bucket on the first rung of the ladder that does not enlarge the picture more than `most` times; `math.inf` is `fit` on the first.

    Where even the last one does, its fit is given all the same: `enlarges` tells, and the preflight refuses. sd-scripts' bucket_no_upscale gives a small
    picture a bucket of its own, both sides cut down to the step. On a ladder small pictures keep to one family of aspects and meet in its buckets, and
    little is cut away; they are reduced by less than a rung.
    """
    for shapes in rungs:
        found = fit(width, height, shapes)
        if not found.enlarges(width, height, most):
            return found
    return found
