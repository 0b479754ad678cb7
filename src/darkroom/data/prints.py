"""What a picture is recognised by: perceptual hashes of the whole and of windows into it, as it is and mirrored, and a small thumbnail to compare by eye.

The hash is imagehash's `phash` (64 signs of low frequencies, Zauner 2010). Where a picture has nothing at a frequency, as every symmetrical drawing has at
half of them, the sign would be noise, and a JPEG copy differ in 20 bits of 64; so a weak fixed pattern is added first, which decides those bits and no other.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image

CUT = 0.05
"""How much of the width or height a window leaves away at a side."""
_SIDES = ((0.0, 1.0), (CUT, 1.0), (0.0, 1.0 - CUT))
WINDOWS = (*((left, top, right, bottom) for left, right in _SIDES for top, bottom in _SIDES), (CUT, CUT, 1.0 - CUT, 1.0 - CUT))
"""(left, top, right, bottom) as parts of width and height: the whole, without one side, without two that meet, without all four."""
PRINTS = 2 * len(WINDOWS)
"""Hashes of a picture: of each window, then of each window of the mirrored picture."""
THUMB = 32
"""Side of the thumbnail's brightness; its two colours have half of it. Aspect is not kept: a stretched copy is a copy."""
THUMB_BYTES = THUMB * THUMB * 3 // 2
SOURCE, HASHED = 64, 32  # pixels: what windows are cut from, and what phash transforms
SPREAD, PATTERN = 40.0, 6.0  # standard deviations in grey levels: of the picture, and of the pattern on it
FAINT = 8.0  # a picture fainter than this is not raised to SPREAD: that would hash its noise

Prints = npt.NDArray[np.uint64]
Planes = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def prints(picture: Image.Image) -> Prints:
    """(PRINTS,) hashes of an upright picture of any size."""
    grey = picture.convert("L").resize((SOURCE, SOURCE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    values = np.asarray(grey, np.float32)
    scale = SPREAD / max(float(values.std()), FAINT)
    even = Image.fromarray((values - values.mean()) * scale + 128)
    turned = even.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array([_hash(side, window) for side in (even, turned) for window in WINDOWS], np.uint64)


def _hash(picture: Image.Image, window: tuple[float, float, float, float]) -> int:
    import imagehash

    left, top, right, bottom = (SOURCE * part for part in window)
    small = np.asarray(picture.resize((HASHED, HASHED), Image.Resampling.BICUBIC, box=(left, top, right, bottom)))
    marked = Image.fromarray((small + pattern()).clip(0, 255).round().astype(np.uint8))
    return int(np.packbits(imagehash.phash(marked).hash).view(">u8")[0])


@functools.cache
def pattern() -> npt.NDArray[np.float32]:
    """(HASHED, HASHED) of standard deviation PATTERN: equally strong in each of the 63 frequencies that phash looks at, with fixed signs."""
    from scipy.fft import idctn

    signs = np.random.default_rng(7).choice([-1.0, 1.0], (8, 8))
    signs[0, 0] = 0
    spectrum = np.zeros((HASHED, HASHED))
    spectrum[:8, :8] = signs
    made = idctn(spectrum, norm="ortho")
    return np.asarray(made * (PATTERN / made.std()), np.float32)


def thumb(picture: Image.Image) -> bytes:
    """THUMB_BYTES: brightness (THUMB x THUMB), then blue and red difference at half the side, as JPEG stores colour."""
    small = picture.convert("RGB").resize((THUMB, THUMB), Image.Resampling.BOX).convert("YCbCr")
    brightness, *colours = small.split()
    half = (THUMB // 2, THUMB // 2)
    return brightness.tobytes() + b"".join(plane.resize(half, Image.Resampling.BOX).tobytes() for plane in colours)


def planes(thumbs: npt.NDArray[np.uint8]) -> Planes:
    """(n, THUMB_BYTES) thumbnails as brightness (n, THUMB, THUMB) and colours (n, 2, THUMB / 2, THUMB / 2), 0 to 255."""
    cut, half = THUMB * THUMB, THUMB // 2
    return thumbs[:, :cut].reshape(-1, THUMB, THUMB).astype(np.float32), thumbs[:, cut:].reshape(-1, 2, half, half).astype(np.float32)
