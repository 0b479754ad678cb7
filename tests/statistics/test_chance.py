"""Tests that err as often as they say: scipy and statsmodels as oracles, and error rates over simulated trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import ComparisonError, Pairs, holm, sign_flip, wilcoxon
from darkroom.statistics.chance import EXACT, FLIPS, sign_flip_p
from support.trials import heavy, normal, scores, skewed, trial


@pytest.mark.parametrize("prompts", [2, 5, 9, 12])
def test_exact_sign_flips_are_scipys(prompts: int) -> None:
    for seed in range(5):
        found = trial(np.random.default_rng(seed), prompts, 2, gain=0.4)
        oracle = stats.permutation_test((found.means,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
        ours = sign_flip(found)
        assert ours.exact and ours.p == pytest.approx(oracle.pvalue) and ours.p >= ours.smallest == 2 ** (1 - prompts)


def test_many_prompts_are_sampled_seeded_and_never_give_0() -> None:
    """Phipson & Smyth: (b + 1) / (m + 1), near the t test where scores are normal."""
    found = trial(np.random.default_rng(0), 40, 2, gain=0.4)
    ours = sign_flip(found)
    assert not ours.exact and ours == sign_flip(found) and ours != sign_flip(found, seed=1)
    assert ours.p == pytest.approx(stats.ttest_1samp(found.means, 0).pvalue, rel=0.25, abs=3e-3)
    sure = sign_flip(trial(np.random.default_rng(0), 40, 2, gain=50.0))
    assert sure.p == sure.smallest == 1 / (FLIPS + 1)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [trial(np.random.default_rng(2), prompts, 2, gain=0.3) for prompts in (8, EXACT + 6)]
    whole = [sign_flip(one) for one in found]
    monkeypatch.setattr("darkroom.statistics.chance.BLOCK", 100)
    assert [sign_flip(one) for one in found] == whole


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
@pytest.mark.parametrize("prompts", [8, 20])
def test_the_sign_flip_test_errs_in_5_percent_whatever_the_shape(draw: Any, prompts: int) -> None:
    control, treated = scores(np.random.default_rng(21), 400, prompts, 4, draw)
    p = sign_flip_p((treated - control).mean(2))
    assert (p <= 0.05).mean() <= 0.07
    if draw is normal:
        assert (p <= 0.05).mean() >= 0.025 and (p <= 0.5).mean() == pytest.approx(0.5, abs=0.08), "nor is it asleep"


@pytest.mark.parametrize("prompts", [5, 12, 30])
def test_wilcoxon_is_scipys_without_ties(prompts: int) -> None:
    found = trial(np.random.default_rng(prompts), prompts, 3, gain=0.5)
    assert wilcoxon(found) == pytest.approx(stats.wilcoxon(found.means).pvalue)


def test_wilcoxon_with_ties_is_exact_too() -> None:
    means = [1.0, 1.0, -1.0, 2.0, 3.0, 3.0, 0.0, 4.0]
    oracle = stats.wilcoxon([m for m in means if m], method=stats.PermutationMethod(n_resamples=np.inf))
    assert wilcoxon(Pairs.of([0.0] * 8, means, range(8))) == pytest.approx(oracle.pvalue)
    shifted = Pairs.of([0.1] * 8, [0.1 + m for m in means], range(8))  # ties but for rounding
    assert wilcoxon(shifted) == pytest.approx(oracle.pvalue)
    assert wilcoxon(Pairs.of([1.0, 2.0], [1.0, 2.0], ["a", "b"])) == 1.0


def test_holm_is_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="the oracle")
    for seed in range(20):
        p = np.random.default_rng(seed).beta(0.4, 1, 1 + seed).tolist()
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])
    assert holm([]) == [] and holm([0.5, 0.5]) == [1.0, 1.0]


def test_a_family_errs_in_5_percent_of_trials() -> None:
    """Eight arms and metrics, all of them A/A, correlated through their baseline: without the correction a third of trials would claim something."""
    rng = np.random.default_rng(30)
    baseline = rng.normal(size=(400, 1, 12))
    p = stats.ttest_1samp(rng.normal(size=(400, 8, 12)) - baseline, 0, axis=2).pvalue
    assert np.mean([min(holm(row)) < 0.05 for row in p]) <= 0.07
    assert (p.min(1) < 0.05).mean() > 0.2


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(bad: float) -> None:
    with pytest.raises(ComparisonError, match="between 0 and 1"):
        holm([0.1, bad])
