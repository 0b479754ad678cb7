"""Sizes with intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import Pairs, effect_size
from support.trials import trial


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_one_seed_a_prompt_is_the_exact_interval_of_d(confidence: float) -> None:
    """At each end the noncentral t has the measured t in its tail: scipy's distribution, which the search did not use."""
    found = trial(np.random.default_rng(2), 12, 1, gain=0.8)
    effect = effect_size(found, confidence)
    t = stats.ttest_1samp(found.means, 0).statistic
    shrink = effect.g / effect.d
    ends = [end / shrink * np.sqrt(12) for end in (effect.g_low, effect.g_high)]
    assert effect.d == pytest.approx(t / np.sqrt(12))
    assert stats.nct.cdf(t, 11, ends) == pytest.approx([(1 + confidence) / 2, (1 - confidence) / 2], abs=1e-5)
    assert shrink == pytest.approx(1 - 3 / (4 * 11 - 1), rel=2e-3), "Hedges' approximation of the exact factor"


def test_g_is_unbiased_and_d_is_not() -> None:
    """Prompts of variance 0.98 (0.7^2 in each arm), pictures of 2, a gain of 1: the true size is 1 / sqrt(2.98)."""
    rng, true = np.random.default_rng(9), 1 / np.sqrt(2.98)
    found = [effect_size(trial(rng, 6, 2, gain=1.0)) for _ in range(1500)]
    assert np.mean([one.g for one in found]) == pytest.approx(true, rel=0.04)
    assert np.mean([one.d for one in found]) > 1.06 * true


@pytest.mark.parametrize(("prompts", "seeds", "gain"), [(8, 4, 0.0), (8, 4, 1.5), (20, 1, 0.7), (20, 3, 3.0)])
def test_both_intervals_hold_the_truth(prompts: int, seeds: int, gain: float) -> None:
    rng = np.random.default_rng(14)
    g, wins = gain / np.sqrt(2.98), stats.norm.cdf(gain / np.sqrt(2.98))
    found = [effect_size(trial(rng, prompts, seeds, gain=gain)) for _ in range(400)]
    assert np.mean([one.g_low <= g <= one.g_high for one in found]) >= 0.93
    assert np.mean([one.wins_low <= wins <= one.wins_high for one in found]) >= 0.93


def test_swapping_the_arms_is_the_mirror() -> None:
    found = trial(np.random.default_rng(3), 9, 3, gain=0.6)
    there, back = effect_size(found), effect_size(Pairs.of(found.gains, np.zeros(27), found.prompt.tolist(), found.seeds))
    assert [back.d, back.g, back.g_low, back.g_high] == pytest.approx([-there.d, -there.g, -there.g_high, -there.g_low], abs=1e-6)
    assert [back.wins, back.wins_low, back.wins_high] == pytest.approx([1 - there.wins, 1 - there.wins_high, 1 - there.wins_low])


def test_ties_count_half_and_winning_always_is_not_certainty() -> None:
    tied = effect_size(Pairs.of([1, 1, 1, 1], [1, 1, 2, 0], ["a", "b", "c", "d"]))
    assert tied.wins == 0.5
    always = effect_size(Pairs.of([0] * 6, [1, 2, 3, 1, 2, 2.5], range(6)))
    assert always.wins == always.wins_high == 1.0 and 0.4 < always.wins_low < 0.8


def test_without_spread_there_is_a_size_but_no_interval() -> None:
    flat = effect_size(Pairs.of([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], ["a", "b", "c"]))
    assert flat.d == flat.g == np.inf and flat.g_low is flat.g_high is None


def test_an_enormous_size_ends_too() -> None:
    """t = 1.7 million, where scipy's search alone would not end; the ends are those of t = 1,000, scaled."""
    huge = effect_size(Pairs.of([0.0] * 3, [1e6, 1e6 + 1, 1e6 + 2], ["a", "b", "c"]))
    assert 0.1 < huge.g_low / huge.g < 1 < huge.g_high / huge.g < 3
