"""Equivalence is claimed as seldom as it says where the difference is as large as the margin."""

from __future__ import annotations

import numpy as np
import pytest

from darkroom.statistics import ComparisonError, Pairs, equivalence
from support.trials import heavy, normal, pairs, scores, trial


@pytest.mark.parametrize("margin", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("gain", [0.0, 0.5, -0.8])
def test_two_one_sided_tests_are_statsmodels(margin: float, gain: float) -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="the oracle")
    found = trial(np.random.default_rng(17), 11, 3, gain=gain)
    ours = equivalence(found, margin)
    assert ours.p == pytest.approx(weightstats.ttost_paired(found.means, np.zeros(11), -margin, margin)[0])
    assert ours.inside == (ours.p < 0.05), "the interval and the tests say the same"
    assert ours.confidence == pytest.approx(0.9)


@pytest.mark.parametrize("draw", [normal, heavy])
def test_a_difference_as_large_as_the_margin_is_called_equal_in_5_percent(draw) -> None:
    control, treated = scores(np.random.default_rng(18), 400, 20, 4, draw, gain=1.0)
    p = [equivalence(pairs(c, t), 1.0).p for c, t in zip(control, treated, strict=True)]
    assert np.mean(np.array(p) < 0.05) <= 0.07
    assert np.mean(np.array(p) < 0.05) >= 0.02, "nor is it never called so"


def test_equal_arms_are_found_equal_where_the_margin_is_wide() -> None:
    control, treated = scores(np.random.default_rng(19), 50, 20, 4)
    assert sum(equivalence(pairs(c, t), 1.0).p < 0.05 for c, t in zip(control, treated, strict=True)) >= 45


@pytest.mark.parametrize(("gain", "p"), [(0.1, 0.0), (0.0, 0.0), (0.6, 1.0), (0.5, 1.0)])
def test_without_spread_it_is_a_matter_of_size(gain: float, p: float) -> None:
    assert equivalence(Pairs.of([1.0, 2.0], [1.0 + gain, 2.0 + gain], ["a", "b"]), 0.5).p == p


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_must_be_stated(margin: float) -> None:
    with pytest.raises(ComparisonError, match=r"state one above 0"):
        equivalence(trial(np.random.default_rng(0), 5, 2), margin)
