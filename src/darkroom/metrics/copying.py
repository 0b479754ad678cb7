"""Is it a picture that was learned from, again?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from darkroom.errors import DatasetError
from darkroom.metrics.given import Given, pictures_key
from darkroom.metrics.memory import stamp
from darkroom.metrics.overlay import ZOOMS, Spectra, agreement, mirrored, spectra
from darkroom.metrics.sscd import Sscd

CODE = 1
"""Counts up when the same pictures come out otherwise."""

Floats = npt.NDArray[np.float32]


class Copying:
    """100 x the likeness to the nearest training picture, to something that sees copies and not meaning (SSCD's question; Somepalli et al. 2023).

    By default two pictures laid over each other (`overlay`). Of 45 photos of 9 subjects 95 % are below 68 to the nearest other photo of their subject, half
    below 42, the most alike (two drawings of one figure) at 74; other subjects' are below 38. As JPEG 40, at half the size, mirrored, blurred, brighter or
    cropped by 15 % on all sides they are at 99 or more, moved by 15 % and cut off at 80 or more. With `given.models["copying"]`, SSCD's TorchScript file:
    100 x its cosine, above 50 a copy by Somepalli et al.
    """

    name = "copying"
    question = "Is it a training picture again?"
    unit = "points of 100"
    higher_is_better = False
    per = "picture"
    prompted = False
    blank = ""

    def __init__(self, given: Given) -> None:
        if not given.training:
            raise DatasetError("copying needs the pictures that were learned from: name their folder with --training, or leave copying out.")
        source = given.models.get(self.name, "")
        self.near: Near = Sscd.load(source, given.training, given.device, given.memory) if source else Laid(given.training)
        self.copy_from = self.near.copy_from
        self.key = stamp(self.name, self.near.key, pictures_key(given.training))

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [score for score, _ in self.nearest(pictures)]

    def nearest(self, pictures: Sequence[Image.Image]) -> list[tuple[float, int]]:
        """For each picture its score and the number of the training picture that it is nearest to."""
        return [(100 * max(0.0, float(row.max())), int(row.argmax())) for row in map(self.near.to_each, pictures)]


class Near(Protocol):
    """What sees copies."""

    key: str
    copy_from: float
    """From which score on a picture is called a copy."""

    def to_each(self, picture: Image.Image) -> Floats:
        """(training pictures,) how near the picture is to each, or to its mirror image; 1 is the same."""
        ...


class Laid:
    """Pictures laid over each other."""

    key = stamp("overlay", CODE)
    copy_from = 80.0

    def __init__(self, training: Sequence[Image.Image]) -> None:
        self.training = training
        self.known: dict[float, Spectra] = {}

    def to_each(self, picture: Image.Image) -> Floats:
        """The whole picture on ever smaller parts of each training picture, and parts of it on the wholes."""
        aspect = round(picture.width / picture.height, 2)
        known = self._known(aspect)  # (training, side, zoom, ...)
        own = spectra(picture, aspect)
        found = [self._over(own[:1], known[:, :, zoom]) for zoom in range(len(ZOOMS))] + [
            self._over(own[zoom : zoom + 1], known[:, :, 0]) for zoom in range(1, len(ZOOMS))
        ]
        best: Floats = np.stack(found).max(0)
        return best

    def _over(self, own: Spectra, known: Spectra) -> Floats:
        """(1, ...) on (training, sides, ...): the better side of each."""
        flat = known.reshape(-1, *known.shape[2:])
        best: Floats = agreement(np.broadcast_to(own, flat.shape), flat).reshape(known.shape[:2]).max(1)
        return best

    def _known(self, aspect: float) -> Spectra:
        """Of the training pictures cropped to this aspect, as they are and mirrored."""
        if aspect not in self.known:
            seen = [spectra(picture, aspect) for picture in self.training]
            self.known[aspect] = np.stack([np.stack([one, mirrored(one)]) for one in seen])
        return self.known[aspect]
