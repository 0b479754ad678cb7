"""An interval that tells the truth: scipy's where pairs are independent, and honest where many seeds share a prompt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from darkroom.statistics import Difference, Pairs, bootstrap, paired
from darkroom.statistics.interval import bootstrap_reach
from support.trials import heavy, normal, scores, skewed, trial

PROMPTS, SEEDS = 8, 4
CLUSTERS = [prompt for prompt in range(PROMPTS) for _ in range(SEEDS)]
SCORES = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3))


def album(rng: np.random.Generator, gain: float = 0.0, between: float = 1.0, within: float = 0.5) -> tuple[Any, Any]:
    """Scores of two arms: what the second arm gains differs from prompt to prompt (`between`) and from seed to seed (`within`)."""
    control = rng.normal(size=PROMPTS * SEEDS)
    return control, control + gain + np.repeat(rng.normal(0, between, PROMPTS), SEEDS) + rng.normal(0, within, PROMPTS * SEEDS)


def numbers(found: Difference) -> list[float]:
    return [found.mean, found.low, found.high, found.p, found.effect]


@given(st.lists(st.tuples(SCORES, SCORES), min_size=3, max_size=30), st.sampled_from([0.8, 0.95, 0.99]))
@settings(deadline=None, max_examples=60)
def test_one_pair_a_cluster_is_the_paired_t_test(pairs: list[tuple[float, float]], confidence: float) -> None:
    control, treated = (np.array(scores) for scores in zip(*pairs, strict=True))
    assume(np.ptp(treated - control) > 1e-6)
    found = paired(control, treated, range(len(pairs)), confidence)
    oracle = stats.ttest_rel(treated, control)
    interval = oracle.confidence_interval(confidence)
    assert [found.mean, found.low, found.high, found.p] == pytest.approx(
        [(treated - control).mean(), interval.low, interval.high, oracle.pvalue], rel=1e-9, abs=1e-9
    )
    assert found.effect == pytest.approx((treated - control).mean() / np.std(treated - control, ddof=1), rel=1e-9, abs=1e-9)
    assert (found.pairs, found.clusters, found.confidence) == (len(pairs), len(pairs), confidence)


def test_many_seeds_of_few_prompts_are_tested_by_their_prompts() -> None:
    """Clusters of unequal sizes, in any order: scipy on the means, formed by hand."""
    gains = {"a": [1.0, 2.0, 3.0], "b": [5.0], "c": [-1.0, 0.0]}
    flat = [(name, gain) for name, several in gains.items() for gain in several]
    mixed = [flat[i] for i in (3, 0, 5, 1, 4, 2)]
    found = paired([10.0] * 6, [10 + gain for _, gain in mixed], [name for name, _ in mixed])
    interval = stats.ttest_1samp([2.0, 5.0, -0.5], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.pairs, found.clusters) == (6, 3)


def test_where_nothing_changed_the_interval_seldom_says_so() -> None:
    """Calibration over 400 A/A trials: 95 % intervals miss 0 in at most 7 % (and in at least 2 %, or else they would be too wide).

    Taking all pictures for independent misses it in more than a quarter of the same trials: that is what the clusters are for.
    """
    rng = np.random.default_rng(20240229)
    trials = [album(rng) for _ in range(400)]
    missed = sum(paired(control, treated, CLUSTERS).verdict() != "unclear" for control, treated in trials)
    naive = sum(paired(control, treated, range(len(control))).verdict() != "unclear" for control, treated in trials)
    assert 0.02 <= missed / 400 <= 0.07
    assert naive / 400 > 0.25


@pytest.mark.parametrize("gain", [2.0, -2.0])
def test_a_planted_effect_is_found(gain: float) -> None:
    rng = np.random.default_rng(7)
    found = [paired(*album(rng, gain, between=0.5), CLUSTERS) for _ in range(50)]
    assert sum(d.verdict() == ("better" if gain > 0 else "worse") for d in found) >= 48
    assert sum(d.verdict(higher_is_better=False) == ("worse" if gain > 0 else "better") for d in found) >= 48
    assert sum(d.low <= gain <= d.high for d in found) >= 44, "the truth is in the interval about 19 times of 20"


@given(st.lists(st.tuples(SCORES, SCORES, st.integers(0, 4)), min_size=4, max_size=20), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_order_is_nothing_and_swapping_arms_is_the_minus_sign(rows: list[tuple[float, float, int]], random: Any) -> None:
    control, treated, clusters = (list(column) for column in zip(*rows, strict=True))
    assume(len(set(clusters)) > 1 and np.ptp([t - c for t, c in zip(treated, control, strict=True)]) > 1e-6)
    found = paired(control, treated, clusters)
    assume(not 0 < found.high - found.low < 1e-6)  # the means of the prompts agree but for rounding
    mixed = rows.copy()
    random.shuffle(mixed)
    assert numbers(paired(*zip(*mixed, strict=True))) == pytest.approx(numbers(found), rel=1e-6, abs=1e-9)
    swapped = paired(treated, control, clusters)
    assert numbers(swapped) == pytest.approx([-found.mean, -found.high, -found.low, found.p, -found.effect], rel=1e-6, abs=1e-9)


def test_more_confidence_is_a_wider_interval_and_p_agrees_with_it() -> None:
    control, treated = album(np.random.default_rng(3), gain=0.8)
    found = {c: paired(control, treated, CLUSTERS, c) for c in (0.5, 0.9, 0.95, 0.99, 0.999)}
    widths = [d.high - d.low for d in found.values()]
    assert widths == sorted(widths) and len(set(widths)) == 5
    assert all((d.p < 1 - c) == (d.verdict() != "unclear") for c, d in found.items())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("arm", [0, 1])
def test_a_score_that_is_no_number_is_refused(bad: float, arm: int) -> None:
    scores = [[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]]
    scores[arm][1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        paired(scores[0], scores[1], [0, 1, 2])


@pytest.mark.parametrize("clusters", [["one"] * 3, []])
def test_one_prompt_is_refused(clusters: list[str]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        paired([1.0] * len(clusters), [2.0] * len(clusters), clusters)


@pytest.mark.parametrize("lengths", [(3, 3, 2), (3, 1, 3), (1, 3, 3), (2, 3, 3), (3, 2, 3)])
def test_unequal_lengths_are_refused_with_their_numbers(lengths: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{lengths[0]} control scores, {lengths[1]} treated ones and {lengths[2]} clusters"):
        paired([1.0] * lengths[0], [2.0] * lengths[1], list(range(lengths[2])))


@pytest.mark.parametrize(("gain", "verdict", "p", "effect"), [(1.0, "better", 0.0, math.inf), (-1.0, "worse", 0.0, -math.inf), (0.0, "unclear", 1.0, 0.0)])
def test_without_any_spread_the_difference_is_what_it_is(gain: float, verdict: str, p: float, effect: float) -> None:
    found = paired([1.0, 2.0, 3.0, 4.0], [1.0 + gain, 2.0 + gain, 3.0 + gain, 4.0 + gain], [0, 0, 1, 1])
    assert (found.low, found.mean, found.high) == (gain, gain, gain)
    assert (found.verdict(), found.p, found.effect) == (verdict, p, effect)


def test_spread_inside_prompts_only_does_not_break() -> None:
    found = paired([0.0] * 4, [1.0, -1.0, 1.0, -1.0], ["a", "a", "b", "b"])
    assert (found.mean, found.verdict(), found.p, found.effect) == (0.0, "unclear", 1.0, 0.0)


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
@pytest.mark.parametrize(("prompts", "seeds"), [(5, 4), (10, 4), (30, 2)])
def test_both_intervals_hold_0_in_a_a_trials_of_any_shape(draw: Any, prompts: int, seeds: int) -> None:
    """400 A/A trials of crossed prompts x seeds: normal, heavy-tailed and skewed scores. Neither interval misses 0 in more than 7 %."""
    rng = np.random.default_rng(11)
    control, treated = scores(rng, 400, prompts, seeds, draw)
    means = (treated - control).mean(2)
    student = [paired(c.ravel(), t.ravel(), np.repeat(range(prompts), seeds).tolist()) for c, t in zip(control, treated, strict=True)]
    reach = bootstrap_reach(means, 0.95, 1999)
    assert sum(d.verdict() != "unclear" for d in student) / 400 <= 0.07
    assert (np.abs(means.mean(1)) > reach).mean() <= 0.07


def test_the_bootstrap_is_neither_too_wide_for_many_prompts_nor_blind_to_them() -> None:
    """With 40 prompts it is Student's interval, nearly; and taking pictures for independent would miss the truth far more often."""
    rng = np.random.default_rng(5)
    found = trial(rng, 40, 4)
    ours, theirs = bootstrap(found), paired(np.zeros(160), found.gains, found.prompt.tolist())
    assert ours is not None and (ours.high - ours.low) == pytest.approx(theirs.high - theirs.low, rel=0.1)
    control, treated = scores(rng, 400, 8, 4, arm=2.0)
    gains = (treated - control).reshape(400, 32)
    naive = np.abs(gains.mean(1)) > bootstrap_reach(gains, 0.95, 999)
    assert naive.mean() > 0.2


def test_the_bootstrap_is_what_a_plain_loop_finds() -> None:
    """Other resamples, ratio by ratio."""
    means = np.array([0.3, -0.1, 0.8, 0.4, 1.5, 0.2])
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(20000):
        drawn = rng.choice(means, len(means))
        spread = drawn.std(ddof=1)
        ratios.append(abs(drawn.mean() - means.mean()) / (spread / np.sqrt(6)) if spread > 1e-9 else np.inf)
    expected = np.quantile(ratios, 0.95, method="higher") * means.std(ddof=1) / np.sqrt(6)
    assert bootstrap_reach(means, 0.95) == pytest.approx(expected, rel=0.05)


def test_the_bootstrap_draws_the_same_each_time_and_says_where_it_cannot() -> None:
    found = trial(np.random.default_rng(1), 8, 2)
    assert bootstrap(found) == bootstrap(found) != bootstrap(found, seed=1)
    assert bootstrap(Pairs.of([0, 0, 0], [1, 2, 4], ["a", "b", "c"])) is None
    flat = bootstrap(Pairs.of([0, 0, 0], [1, 1, 1], ["a", "b", "c"]))
    assert flat is not None and (flat.low, flat.high) == (1.0, 1.0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trial(np.random.default_rng(2), 12, 2)
    whole = bootstrap(found, resamples=999)
    monkeypatch.setattr("darkroom.statistics.interval.BLOCK", 200)
    assert bootstrap(found, resamples=999) == whole
