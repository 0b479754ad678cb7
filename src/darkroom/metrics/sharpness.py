"""Is the picture sharp?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from darkroom.metrics.given import Given
from darkroom.metrics.memory import stamp

WIDTH = 11  # pixels of the blur that is tried, skimage's default

Floats = npt.NDArray[np.float64]


class Sharpness:
    """100 x (1 - the blur effect of Crété et al. 2007, eq. 7, as skimage.measure.blur_effect): how much of its neighbours' differences another blur takes away.

    At the picture's own size: compare pictures of equal size only. Noise is sharp too. NaN for a picture of one colour.
    """

    name = "sharpness"
    question = "Is it sharp?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = False
    blank = "they are of one colour"

    def __init__(self, given: Given) -> None:
        self.key = stamp(self.name, WIDTH)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [100 * (1 - blur_effect(np.asarray(picture.convert("L"), np.float64) / 255)) for picture in pictures]


def blur_effect(grey: Floats) -> float:
    """(h, w) -> 0 (sharp) to 1 (blurred); NaN where nothing differs from its neighbours."""
    from scipy.ndimage import sobel, uniform_filter1d

    found = []
    for axis in (0, 1):
        sharp = np.abs(sobel(grey, axis=axis, mode="reflect"))
        blurred = np.abs(sobel(uniform_filter1d(grey, WIDTH, axis=axis, mode="reflect"), axis=axis, mode="reflect"))
        inner = tuple(slice(2, side - 1) for side in grey.shape)
        total = float(sharp[inner].sum())
        found.append(float(np.maximum(0, sharp[inner] - blurred[inner]).sum()) / total if total else float("nan"))
    known = [share for share in found if share == share]
    return 1 - min(known) if known else float("nan")
