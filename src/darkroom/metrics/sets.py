"""How far is one set of pictures from another? KID and CMMD over embeddings, by unbiased estimators, each with its standard error. numpy only.

A set metric is one number for a whole folder: it cannot be paired picture by picture, so that its own error must say what may be concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darkroom.errors import DatasetError

Floats = NDArray[np.float64]
Kernel = Callable[[Floats, Floats], Floats]  # (a, d), (b, d) -> (a, b)
BLOCK = 1 << 22  # kernel values held at once: 32 MiB
SIGMA, SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, section 4, and their code


@dataclass(frozen=True)
class SetDistance:
    """An unbiased estimate: where both sets come from one source it is 0 on average, and so below 0 half of the time."""

    value: float
    error: float
    """Its standard error, by the jackknife."""
    pictures: int
    references: int


def kid(pictures: ArrayLike, references: ArrayLike, groups: Sequence[Hashable] = ()) -> SetDistance:
    """Kernel Inception Distance (Binkowski et al. 2018, section 4): MMD^2 with the kernel (x.y / d + 1)^3. (n, d) and (m, d) Inception features; n, m >= 3.

    Over all pictures at once; others average subsets of 1,000, which has the same expectation and a larger error. See `mmd` for `groups` and what is raised.
    """
    return mmd(pictures, references, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3, groups)


def cmmd(pictures: ArrayLike, references: ArrayLike, groups: Sequence[Hashable] = (), sigma: float = SIGMA) -> SetDistance:
    """CLIP-MMD (Jayasumana et al. 2024): 1000 x MMD^2 with the kernel exp(-|x - y|^2 / (2 sigma^2)). (n, d) and (m, d) CLIP embeddings, brought to length 1.

    Theirs keeps the diagonal of the kernel matrices and is therefore larger by about 1000 / n + 1000 / m times 1 - the mean kernel; this one is unbiased, as
    the paper's equation is. Raises DatasetError as `mmd` does, and for an embedding of length 0.
    """

    def kernel(x: Floats, y: Floats) -> Floats:
        return np.exp((x @ y.T - 1) / sigma**2)  # unit vectors: |x - y|^2 = 2 - 2 x.y

    found = mmd(_unit(pictures, "pictures"), _unit(references, "references"), kernel, groups)
    return SetDistance(SCALE * found.value, SCALE * found.error, found.pictures, found.references)


def mmd(pictures: ArrayLike, references: ArrayLike, kernel: Kernel, groups: Sequence[Hashable] = ()) -> SetDistance:
    """The squared maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3), in float64 and blocks of bounded memory.

    The error is the two-sample jackknife's: each picture, and each reference, left out in turn (Efron & Tibshirani 1993, eq. 11.5). `groups[i]` is the prompt
    of picture i: pictures of one prompt are not independent, so that pairs of them count in no sum, and whole prompts are left out. Raises DatasetError for
    fewer than three of either set (or three prompts), for embeddings of different widths and for NaN.
    """
    x, y = _matrix(pictures, "pictures"), _matrix(references, "references")
    if x.shape[1] != y.shape[1]:
        raise DatasetError(f"embeddings of {x.shape[1]} and of {y.shape[1]} numbers cannot be compared: see both sets through one model.")
    label, alone = _labels(groups, len(x)), np.arange(len(y))
    own, other = _own_sums(x, kernel, label), _own_sums(y, kernel, alone)
    across, back = _cross_sums(x, y, kernel, label)
    n, m = _by_group(label, np.ones(len(x))), np.ones(len(y))
    left_n, left_m = len(x) - n, len(y) - m
    pairs_n, pairs_m = (n * left_n).sum(), (m * left_m).sum()
    value = own.sum() / pairs_n + other.sum() / pairs_m - 2 * across.sum() / (len(x) * len(y))
    without_x = (own.sum() - 2 * own) / (pairs_n - 2 * n * left_n) + other.sum() / pairs_m - 2 * (across.sum() - across) / (left_n * len(y))
    without_y = own.sum() / pairs_n + (other.sum() - 2 * other) / (pairs_m - 2 * left_m) - 2 * (across.sum() - back) / (len(x) * left_m)
    return SetDistance(float(value), float(np.sqrt(_jackknife(without_x) + _jackknife(without_y))), len(x), len(y))


def _jackknife(values: Floats) -> float:
    """The variance from the estimates without each part."""
    return float((len(values) - 1) * values.var())


def _own_sums(x: Floats, kernel: Kernel, label: NDArray[np.intp]) -> Floats:
    """(g,) the sum of the kernel of each group with all others; no picture with itself, nor with its group."""
    rows = np.zeros(len(x))
    for start, part in _blocks(x, x, kernel):
        part[label[start : start + len(part), None] == label] = 0.0
        rows[start : start + len(part)] = part.sum(1)
    return _by_group(label, rows)


def _by_group(label: NDArray[np.intp], values: Floats) -> Floats:
    """(n,) -> (g,) sums."""
    return np.asarray(np.bincount(label, values), np.float64)


def _cross_sums(x: Floats, y: Floats, kernel: Kernel, label: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """(g,) and (m,) sums of the kernel between the sets."""
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for start, part in _blocks(x, y, kernel):
        rows[start : start + len(part)] = part.sum(1)
        columns += part.sum(0)
    return _by_group(label, rows), columns


def _blocks(x: Floats, y: Floats, kernel: Kernel) -> Iterator[tuple[int, Floats]]:
    """(first row, kernel of some rows of x with all of y)."""
    step = max(1, BLOCK // len(y))
    for start in range(0, len(x), step):
        yield start, kernel(x[start : start + step], y)


def _matrix(embeddings: ArrayLike, name: str) -> Floats:
    matrix = np.asarray(embeddings, np.float64)
    if matrix.ndim != 2 or len(matrix) < 3:
        count = len(matrix) if matrix.ndim else 0
        raise DatasetError(f"{count} {name}: the distance between two sets and its error need at least 3 of each, and mean little below some 50.")
    bad = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(bad):
        raise DatasetError(
            f"{name}: the embedding of number {bad[0] + 1} is NaN or infinite ({len(bad)} of {len(matrix)} are). Leave it out, or see it again in float32."
        )
    return matrix


def _unit(embeddings: ArrayLike, name: str) -> Floats:
    matrix = _matrix(embeddings, name)
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not length.all():
        raise DatasetError(f"{name}: the embedding of number {int(np.argmin(length)) + 1} has length 0, which has no direction. Leave it out.")
    return np.asarray(matrix / length)


def _labels(groups: Sequence[Hashable], n: int) -> NDArray[np.intp]:
    """(n,) 0, 1, ... for each group in the order in which it first comes; each picture its own where none are given."""
    if len(groups) == 0:
        return np.arange(n)
    if len(groups) != n:
        raise DatasetError(f"{len(groups)} prompts for {n} pictures: name one for each.")
    place = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    if len(place) < 3:
        raise DatasetError(
            f"{len(place)} prompts: the error by prompts needs at least 3. Give more prompts, or leave them out and take the pictures for independent."
        )
    return np.array([place[group] for group in groups])
