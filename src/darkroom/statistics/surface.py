"""The highest point of a score over a box of weights, with few looks: a grid, then a quadratic surface fitted near the best, climbed and looked at again.

With the same prompts, seeds and noise at every point a score is a smooth function of the weights, so that a quadratic near the top tells where the top is
(Box & Wilson 1951). What is found was chosen for being high: how high it truly is must be asked of other pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.pairs import ComparisonError, Floats

Point = tuple[float, ...]
PLACES = 2  # decimals of a weight that a person would write
NEARER = (1.0, 0.5, 0.25)  # where the surface leads nowhere new, one of fewer and nearer points is asked


@dataclass(frozen=True)
class Box:
    """What may be tried."""

    size: int
    """How many weights."""
    low: float = 0.0
    high: float = 1.2
    points: int = 4
    """Of the grid, along each weight."""
    budget: int = 25
    """Points that are looked at in all, the starting point among them."""

    def __post_init__(self) -> None:
        if self.size < 1 or not self.low < self.high:
            raise ComparisonError(f"{self.size} weights from {self.low:g} to {self.high:g}: give at least one weight, and a range from low to high")
        if self.budget < self.least:
            raise ComparisonError(
                f"{self.budget} points for {self.size} weights: a quadratic surface of them has {self.least - 1} numbers, so that {self.least} points are "
                "the fewest. Raise budget, or search fewer weights."
            )

    @property
    def least(self) -> int:
        """The numbers of a quadratic surface, and one."""
        return (self.size + 1) * (self.size + 2) // 2 + 1

    @property
    def spacing(self) -> float:
        """Between neighbours of the grid."""
        return (self.high - self.low) / (self.points - 1)


@dataclass(frozen=True)
class Looked:
    """Points in the order in which they were looked at, and their scores."""

    points: tuple[Point, ...]
    scores: tuple[float, ...]

    @property
    def best(self) -> Point:
        """The highest; of equals the first."""
        return self.points[int(np.argmax(self.scores))]


def search(score: Callable[[Point], float], box: Box, start: Point) -> Looked:
    """Look at `start`, at the grid, and then where the fitted surface is highest, until it stays where it is or the budget is spent.

    Where the whole grid would take more than two thirds of the budget (three weights or more), as many points of a Sobol sequence take its place. Points are
    rounded to two decimals. A pure function of its arguments, so that a search whose scores are kept goes on where it was stopped.
    """
    first = list(dict.fromkeys([_rounded(start), *_spread(box)]))[: box.budget]
    points, scores = first, [score(point) for point in first]
    while len(points) < box.budget:
        following = next((top for part in NEARER if (top := climb(points, scores, box, part)) not in points), None)
        if following is None:
            break
        points.append(following)
        scores.append(score(following))
    return Looked(tuple(points), tuple(scores))


def _spread(box: Box) -> list[Point]:
    axis = np.linspace(box.low, box.high, box.points)
    if box.points**box.size <= box.budget * 2 / 3:
        return [_rounded(point) for point in itertools.product(axis, repeat=box.size)]
    from scipy.stats import qmc

    count = max(box.least, box.budget * 2 // 3) - 1
    drawn = qmc.Sobol(box.size, scramble=True, rng=np.random.default_rng(0)).random_base2(int(np.ceil(np.log2(count))))[:count]
    return [_rounded(point) for point in box.low + drawn * (box.high - box.low)]


def climb(points: Sequence[Point], scores: Sequence[float], box: Box, part: float = 1.0) -> Point:
    """The top of the quadratic surface near the best point, at most this part of a spacing away from it and within the box."""
    from scipy import optimize

    spacing = part * box.spacing
    x, best = np.array(points), np.array(points[int(np.argmax(scores))])
    surface = fit(x, np.array(scores), best, 1.2 * spacing)
    reach = [(max(box.low, at - spacing), min(box.high, at + spacing)) for at in best]
    starts = [best, *(np.array(corner) for corner in itertools.product(*reach))][:33]
    tops = [optimize.minimize(lambda at: -float(surface(at)), begin, bounds=reach, method="L-BFGS-B") for begin in starts]
    return _rounded(min(tops, key=lambda top: float(top.fun)).x)


def fit(x: Floats, y: Floats, centre: Floats, width: float) -> Callable[[Floats], Floats]:
    """The quadratic surface through (n, d) points, by least squares weighted towards the centre (Cleveland & Devlin 1988, with a normal weight)."""
    weight = np.exp(-(((x - centre) / width) ** 2).sum(1) / 4)
    terms = _terms(x - centre)
    ridge = 1e-4 * np.eye(terms.shape[1]) * np.r_[0.0, np.ones(terms.shape[1] - 1)]  # more numbers than near points: as flat as can be
    found = np.linalg.solve(terms.T @ (weight[:, None] * terms) + ridge * weight.sum(), terms.T @ (weight * y))

    def surface(at: Floats) -> Floats:
        value: Floats = (_terms(np.atleast_2d(at) - centre) @ found)[0]
        return value

    return surface


def _terms(x: Floats) -> Floats:
    """(n, d) -> (n, 1 + d + d (d + 1) / 2): 1, each, and each product."""
    pairs = itertools.combinations_with_replacement(range(x.shape[1]), 2)
    return np.stack([np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i, j in pairs)], 1)


def _rounded(point: Sequence[float] | Floats) -> Point:
    return tuple(round(float(value), PLACES) + 0.0 for value in point)
