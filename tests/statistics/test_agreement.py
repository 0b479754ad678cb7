"""Agreement as its inventors counted it, and a side preference that only swapped repeats reveal."""

from __future__ import annotations

import numpy as np
import pytest

from darkroom.statistics import ComparisonError
from darkroom.statistics.agreement import between, cohen, krippendorff, within
from darkroom.statistics.choice import Answer, Choice

KRIPPENDORFF_2011 = [  # "Computing Krippendorff's Alpha-Reliability", section D: four observers, twelve units; 0 is missing
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def test_alpha_of_krippendorffs_own_example() -> None:
    units = [[float(value) for value in unit if value] for unit in zip(*KRIPPENDORFF_2011, strict=True)]
    assert krippendorff(units, nominal=True) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(units) == pytest.approx(0.849, abs=5e-4)


def test_alpha_where_nothing_varies_is_not_known() -> None:
    assert krippendorff([[1, 1], [1, 1]]) is None
    assert krippendorff([[1], [0]]) is None


def test_kappa_is_statsmodels() -> None:
    oracle = pytest.importorskip("statsmodels.stats.inter_rater", reason="the oracle")
    random = np.random.default_rng(4)
    one = random.integers(-1, 2, 80)
    two = np.where(random.random(80) < 0.6, one, random.integers(-1, 2, 80))
    table = np.array([[((one == a) & (two == b)).sum() for b in (-1, 0, 1)] for a in (-1, 0, 1)])
    assert cohen(one.tolist(), two.tolist()) == pytest.approx(oracle.cohens_kappa(table).kappa)
    assert cohen(one.tolist(), two.tolist(), squared=True) == pytest.approx(oracle.cohens_kappa(table, wt="quadratic").kappa)


def test_kappa_needs_pairs_of_values() -> None:
    with pytest.raises(ComparisonError):
        cohen([1], [1, 0])
    assert cohen([1, 1], [1, 1]) is None


def look(answer: Answer, prompt: int, rater: str, swapped: bool = False, again: bool = False) -> Choice:
    left, right = ("b", "a") if swapped else ("a", "b")
    return Choice(left, right, answer, prompt, rater, 0, again)


def test_sides_are_forgotten_between_raters() -> None:
    """The same picture chosen from the other side is agreement; three raters, one of whom saw half of it."""
    ann = [look("left" if p % 3 else "right", p, "ann") for p in range(12)]
    bob = [look("right" if p % 3 else "left", p, "bob", swapped=True) for p in range(12)]
    found = between([*ann, *bob])
    assert found is not None and found.alpha == pytest.approx(1) and found.equal == 1 and (found.pairs, found.raters) == (12, 2)
    assert found.kappas == {("ann", "bob"): pytest.approx(1)}
    cas = [look("left", p, "cas") for p in range(6)]
    three = between([*ann, *bob, *cas])
    assert three is not None and three.alpha is not None and three.low is not None and three.high is not None
    assert 0 < three.alpha < 1 and three.low < three.alpha <= three.high and three.raters == 3
    units = [[c.value for c in (*ann, *bob, *cas) if c.prompt == p] for p in range(12)]
    assert three.alpha == pytest.approx(krippendorff(units))


def test_one_rater_agrees_with_nobody() -> None:
    assert between([look("left", 0, "ann"), look("left", 1, "ann")]) is None
    assert between([look("left", 0, "ann"), look("left", 1, "bob")]) is None


def test_swapped_repeats_tell_the_picture_from_the_side() -> None:
    """ann chooses the picture whatever its side; bob the left one whatever it shows."""
    choices = []
    for p in range(8):
        choices += [look("left" if p % 2 else "right", p, "ann"), look("right" if p % 2 else "left", p, "ann", swapped=True, again=True)]
        choices += [look("left", p, "bob"), look("left", p, "bob", swapped=True, again=True)]
    ann, bob = within(choices)
    assert (ann.rater, ann.count, ann.same, ann.left_twice, ann.right_twice, ann.p) == ("ann", 8, 8, 0, 0, 1.0) and ann.kappa == pytest.approx(1)
    assert (bob.rater, bob.count, bob.same, bob.left_twice, bob.right_twice) == ("bob", 8, 0, 8, 0) and bob.p == pytest.approx(2 / 2**8)
    assert within([look("left", 1, "ann")]) == []
