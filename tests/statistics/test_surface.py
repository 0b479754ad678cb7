"""The search finds the top of surfaces whose top is known, in few looks, and always the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from darkroom.statistics import ComparisonError
from darkroom.statistics.surface import Box, climb, fit, search


def bowl(*top: float, tilt: float = 0.0) -> Any:
    """A quadratic with its top there; `tilt` couples the weights."""

    def score(point: tuple[float, ...]) -> float:
        away = np.array(point) - np.array(top)
        return float(3 - (away**2).sum() - tilt * away.prod() * (len(top) == 2))

    return score


@pytest.mark.parametrize("top", [(0.73,), (0.31,), (0.66, 0.42), (0.15, 1.0), (0.5, 0.9, 0.4)])
def test_the_top_of_a_bowl(top: tuple[float, ...]) -> None:
    found = search(bowl(*top, tilt=0.8), Box(len(top), budget=30), (1.0,) * len(top))
    assert np.allclose(found.best, top, atol=0.021) and len(found.points) <= 30
    assert found.points[0] == (1.0,) * len(top) and len(set(found.points)) == len(found.points), "nothing is looked at twice"


def test_a_top_beyond_the_box_is_sought_at_its_edge() -> None:
    assert search(bowl(2.0, 0.5), Box(2, budget=30), (1.0, 1.0)).best == pytest.approx((1.2, 0.5), abs=0.02)


def test_a_crooked_surface() -> None:
    """Narrow in one direction, and not quadratic: within 2 % of the best of a dense grid."""

    def score(point: tuple[float, ...]) -> float:
        a, b = point
        return float(np.exp(-((a - b - 0.2) ** 2) / 0.05) * (1 - (a - 0.8) ** 4) + 0.1 * np.sin(3 * a))

    axis = np.linspace(0, 1.2, 241)
    best = max(score((a, b)) for a in axis for b in axis)
    found = search(score, Box(2, budget=36), (1.0, 1.0))
    assert max(found.scores) >= best - 0.02 * abs(best)


def test_six_weights_of_two_adapters_blocks() -> None:
    top = (0.9, 0.6, 0.3, 1.0, 0.5, 0.7)
    found = search(bowl(*top), Box(6, budget=60), (1.0,) * 6)
    assert max(found.scores) >= 2.99 and max(found.scores) > bowl(*top)((1.0,) * 6) + 0.5


def test_a_flat_surface_stays_where_it_began() -> None:
    found = search(lambda point: 1.0, Box(2), (1.0, 1.0))
    assert found.best == (1.0, 1.0)


def test_it_looks_at_the_same_points_again() -> None:
    box = Box(3, budget=20)
    one, two = (search(bowl(0.4, 0.5, 0.6), box, (1.0, 1.0, 1.0)) for _ in range(2))
    assert one == two


def test_the_fit_is_numpys_polynomial_where_all_weigh_alike() -> None:
    x = np.linspace(0, 1, 9)
    y = 2 + 3 * x - 4 * x**2
    surface = fit(x[:, None], y, np.array([0.5]), 1e6)
    assert float(surface(np.array([0.3]))) == pytest.approx(np.polyval(np.polyfit(x, y, 2), 0.3), abs=1e-2)
    assert climb([(v,) for v in x], y.tolist(), Box(1, 0, 1, 9, 20)) in ((0.37,), (0.38,)), "3/8, in two decimals"


@pytest.mark.parametrize(
    ("box", "words"), [({"size": 0}, "at least one weight"), ({"size": 1, "low": 1, "high": 1}, "range"), ({"size": 4, "budget": 15}, "16 points")]
)
def test_what_cannot_be_searched(box: dict[str, Any], words: str) -> None:
    with pytest.raises(ComparisonError, match=words):
        Box(**box)
