"""Whether two pictures are the same one again, by their thumbnails: laid over each other, small displacements taken out, nowhere different.

A figure of likeness over the whole would not do: two clocks that show seven and eight agree in 95 % of their pixels. So the largest difference counts.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt

from darkroom.data.prints import THUMB, WINDOWS, planes

CODE = 3
"""Counts up when other pictures come out as equal."""
WHOLE = (0.06, 11.0, 6.0)
"""Limits for two whole pictures: the part of the variance that stays unexplained, and the largest difference over an eighth of the side in brightness
and over a quarter in colour (grey levels). Of 360 pictures, 98 % of the copies at half the size, at JPEG quality 40 and mirrored stay within."""
SHIFTED = (0.2, 20.0, 12.0)
"""The same for a window laid over a window; wider, because a thumbnail's pixels do not fall on each other's."""
GAIN = 0.5
"""A window must leave at most so much unexplained of what the wholes leave: pictures that lie in register and differ all the same are two pictures."""
REACH = 1.5  # pixels of the thumbnail: the largest displacement that is taken out
AT_ONCE = 256  # pairs

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def coarse(thumbs: npt.NDArray[np.uint8]) -> Floats:
    """(2, n, 24): brightness in 4 x 4 blocks and both colours in 2 x 2, of the pictures and of their mirror images."""
    bright, colours = planes(thumbs)
    bright, colours = _blocks(bright, 4), _blocks(colours, 2)
    sides = [(bright, colours), (bright[..., ::-1], colours[..., ::-1])]
    found: Floats = np.stack([np.concatenate([b.reshape(len(b), 16), c.reshape(len(c), 8)], 1) for b, c in sides])
    return found


def score(thumbs: npt.NDArray[np.uint8], one: Ints, other: Ints, how: Ints, window: Ints) -> Floats:
    """(pairs,): below 1 they are the same picture. `one` is looked at through window `how` (mirrored from len(WINDOWS) on), `other` through `window`."""

    def piece(start: int) -> Floats:
        part = slice(start, start + AT_ONCE)
        return _score(thumbs[one[part]], thumbs[other[part]], how[part], window[part])

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(piece, range(0, len(one), AT_ONCE)))
    return np.concatenate([np.zeros(0, np.float32), *found])


def _score(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], how: Ints, window: Ints) -> Floats:
    """The best of: wholes, wholes with one mirrored, the windows; and the windows by their wider limits where they explain what the wholes do not."""
    a, b = planes(one), planes(other)
    straight, turned = (_differences(a, b, np.full_like(how, side), np.zeros_like(how)) for side in (0, len(WINDOWS)))
    through = _differences(a, b, how, window)
    wholes = np.where((how < len(WINDOWS))[:, None], straight, turned)
    apart = (through[:, 0] > GAIN * wholes[:, 0]) | ((how % len(WINDOWS) == 0) & (window == 0))
    shifted = np.where(apart, np.inf, (through / np.array(SHIFTED, np.float32)).max(1))
    best: Floats = np.minimum.reduce([(found / np.array(WHOLE, np.float32)).max(1) for found in (straight, turned, through)] + [shifted]).astype(np.float32)
    return best


def _differences(a: tuple[Floats, Floats], b: tuple[Floats, Floats], how: Ints, window: Ints) -> Floats:
    """(pairs, 3): unexplained variance, largest difference in brightness, largest in colour."""
    first, second = _laid(a, how), _laid(b, window)
    left = _registered(first[0], second[0])
    spread = np.maximum(first[0].var((1, 2)), second[0].var((1, 2))) + 1
    bright = np.abs(_blocks(left, 8)).max((1, 2))
    colour = np.abs(_blocks(first[1] - second[1], 4)).max((1, 2, 3))
    return np.stack([left.var((1, 2)) / spread, bright, colour], 1)


def _registered(first: Floats, second: Floats) -> Floats:
    """What is left of second - first when a small shift and stretch in both directions is taken out (least squares; Lucas and Kanade 1981)."""
    side = first.shape[-1]
    down, across = np.gradient((first + second) / 2, axis=(1, 2))
    place = ((np.arange(side) - (side - 1) / 2) / side).astype(np.float32)
    slopes = np.stack([across, across * place[None, None, :], down, down * place[None, :, None]], 1).reshape(len(first), 4, -1)
    gap = (second - first).reshape(len(first), -1, 1)
    steady = np.diag(np.array([50, 5, 50, 5], np.float32))  # where nothing slopes, nothing moves
    moved = np.linalg.solve(slopes @ slopes.transpose(0, 2, 1) + steady, slopes @ gap).clip(-REACH, REACH)
    left: Floats = (gap - slopes.transpose(0, 2, 1) @ moved).reshape(first.shape)
    return left


def _laid(seen: tuple[Floats, Floats], window: Ints) -> tuple[Floats, Floats]:
    """Brightness and colours of each picture through its window, smoothed a little: thin lines fall differently into the pixels of a rescaled copy."""
    across, down = _lens(THUMB)
    bright = down[window] @ seen[0] @ across[window].transpose(0, 2, 1)
    across, down = _lens(THUMB // 2)
    colours = down[window][:, None] @ seen[1] @ across[window].transpose(0, 2, 1)[:, None]
    return bright.astype(np.float32, copy=False), colours.astype(np.float32, copy=False)


@cache
def _lens(side: int) -> tuple[Floats, Floats]:
    """Matrices that take a row (a column) of `side` pixels to the `side` pixels of each window; the second half of them mirror it first."""
    across = [_area(left, right, side) for left, _, right, _ in WINDOWS]
    down = [_area(top, bottom, side) for _, top, _, bottom in WINDOWS]
    turned = [matrix[:, ::-1] for matrix in across]
    return np.stack([*across, *turned]).astype(np.float32), np.stack([*down, *down]).astype(np.float32)


def _area(low: float, high: float, side: int) -> Floats:
    """Mean over the area of each pixel of the window from low to high, then the weights 1 2 1."""
    edges = low + (high - low) * np.arange(side + 1) / side
    pixels = np.arange(side + 1) / side
    shared = np.minimum(edges[1:, None], pixels[None, 1:]) - np.maximum(edges[:-1, None], pixels[None, :-1])
    area = shared.clip(0) / shared.clip(0).sum(1, keepdims=True)
    padded = np.pad(area, ((1, 1), (0, 0)), "edge")
    return np.asarray((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, np.float32)


def _blocks(values: Floats, count: int) -> Floats:
    """Means over count x count blocks of the last two axes."""
    size = values.shape[-1] // count
    means: Floats = values.reshape(*values.shape[:-2], count, size, count, size).mean((-3, -1))
    return means
