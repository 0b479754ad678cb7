"""Are two pictures one again? Laid over each other at every small shift, at several sizes and mirrored, where do their details agree best?

A figure of meaning would not do: two photos of one dog are alike to CLIP and are no copies. So the brightness is brought to 64 x 64, smooth shading is taken
out (where the details are is what differs between two photos of one thing), and what is left is correlated over all shifts at once in the frequency domain:
template matching by normalised cross-correlation (Lewis 1995), weighted towards detail as phase correlation is (Kuglin & Hines 1975). numpy only.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 64
LOW, HIGH = 3.0, 16.0  # cycles a side: shading below, grain and compression above
BAND = 24  # cycles a side from which the weight is below 0.01
ZOOMS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
REACH = 6  # pixels of SIDE: shifts up to 9 %
BLOCK = 512  # spectra at once

Spectra = npt.NDArray[np.complex64]  # (n, 2 BAND + 1, BAND + 1)


def spectra(picture: Image.Image, aspect: float = 0.0) -> Spectra:
    """(len(ZOOMS), ...) of the middle of the picture, ever smaller parts of it; each of length 1, or all 0 for a picture of one colour.

    `aspect`, width over height, is what it is cropped to first: a picture learned from was cropped to be drawn again.
    """
    found = []
    for zoom in ZOOMS:
        grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=_middle(picture, aspect, zoom), reducing_gap=3.0)
        found.append(_spectrum(np.asarray(grey, np.float32)))
    return np.stack(found)


def mirrored(found: Spectra) -> Spectra:
    """Of the pictures' mirror images: the taper is symmetrical, so that they need not be looked at again."""
    turned = found[:, ::-1].conj()  # f(-x) has the spectrum F(fy, -fx) = conj F(-fy, fx)
    phase = np.exp(2j * np.pi * np.arange(BAND + 1) / SIDE)  # flipping an array moves it by one pixel
    return np.asarray(turned * phase, np.complex64)


def agreement(one: Spectra, other: Spectra) -> npt.NDArray[np.float32]:
    """(n, ...) and (n, ...) -> (n,) the largest correlation over all shifts, -1 to 1."""
    rows, columns = _shifts()
    found = [((rows @ (one[start : start + BLOCK] * other[start : start + BLOCK].conj())) @ columns).real.max((1, 2)) for start in range(0, len(one), BLOCK)]
    return np.concatenate([np.zeros(0, np.float32), *found]).astype(np.float32)


def _middle(picture: Image.Image, aspect: float, zoom: float) -> tuple[float, float, float, float]:
    width, height = float(picture.width), float(picture.height)
    if aspect:
        width, height = min(width, height * aspect), min(height, width / aspect)
    left, top = (picture.width - width * zoom) / 2, (picture.height - height * zoom) / 2
    return left, top, left + width * zoom, top + height * zoom


def _spectrum(grey: npt.NDArray[np.float32]) -> Spectra:
    """The weighted band, scaled so that a correlation of whole spectra (both halves of fx) is 1."""
    taper, weight = _window()
    whole = np.fft.rfft2((grey - grey.mean()) * taper)[:, : BAND + 1]
    band = np.concatenate([whole[-BAND:], whole[: BAND + 1]]) * weight
    twice = np.where(np.arange(BAND + 1) == 0, 1.0, 2.0)
    length = np.sqrt((np.abs(band) ** 2 * twice).sum())
    return np.asarray(band / length if length > 1 else np.zeros_like(band), np.complex64)


@cache
def _window() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A taper in space, so that no edge of the paper is compared, and the weights of the frequencies."""
    hann = np.hanning(SIDE + 2)[1:-1]
    radius = np.hypot(*np.meshgrid(np.arange(-BAND, BAND + 1), np.arange(BAND + 1), indexing="ij"))
    return np.sqrt(np.outer(hann, hann)), radius * np.exp(-((radius / HIGH) ** 4)) * (1 - np.exp(-((radius / LOW) ** 4)))


@cache
def _shifts() -> tuple[Spectra, Spectra]:
    """The inverse transform at the shifts within reach alone: (2 REACH + 1, 2 BAND + 1) and (BAND + 1, 2 REACH + 1)."""
    shifts = np.arange(-REACH, REACH + 1)
    rows = np.exp(2j * np.pi * np.outer(shifts, np.arange(-BAND, BAND + 1)) / SIDE)
    columns = np.exp(2j * np.pi * np.outer(np.arange(BAND + 1), shifts) / SIDE) * np.where(np.arange(BAND + 1) == 0, 1.0, 2.0)[:, None]
    return rows.astype(np.complex64), columns.astype(np.complex64)
