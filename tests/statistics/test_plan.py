"""The plan keeps its word: statsmodels' power, and the power found by drawing such trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import ComparisonError, Components, Pairs, components, plan, power, smallest_visible
from darkroom.statistics.interval import student
from darkroom.statistics.plan import _Goal
from support.trials import heavy, pairs, scores, trial


@pytest.mark.parametrize("size", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("wanted", [0.8, 0.95])
def test_one_seed_a_prompt_is_the_paired_t_tests_plan(size: float, wanted: float) -> None:
    powers = pytest.importorskip("statsmodels.stats.power", reason="the oracle")
    pilot = trial(np.random.default_rng(1), 15, 1)
    difference = size * pilot.means.std(ddof=1)
    (design,) = plan(pilot, difference, wanted).alternatives
    solved = float(np.ravel(powers.TTestPower().solve_power(effect_size=size, power=wanted, alpha=0.05))[0])
    assert design.prompts == np.ceil(solved)
    assert design.power == pytest.approx(powers.TTestPower().power(size, design.prompts, 0.05), abs=1e-6)
    assert smallest_visible(1 / np.sqrt(15), 14) == pytest.approx(float(np.ravel(powers.TTestPower().solve_power(nobs=15, power=0.8, alpha=0.05))[0]), rel=1e-4)


def seen(control: Any, treated: Any) -> float:
    """The share of trials in which the interval excludes 0."""
    return float(np.mean([student(pairs(c, t)).p < 0.05 for c, t in zip(control, treated, strict=True)]))


@pytest.mark.parametrize(("seeds", "seed"), [(1, 0.0), (4, 0.0), (4, 0.25), (8, 0.4)])
def test_the_stated_power_holds_within_5_points(seeds: int, seed: float) -> None:
    """The variances known: 0.98 between prompts, 2 within, and the seeds' own. 1,000 trials of the planned size with the planted difference."""
    rng = np.random.default_rng(23)
    known = Components(0.98, 2 * seed**2, 2.0, 2.98 + 2 * seed**2, 1e6, 10**6, 10**3)
    design = _Goal(1.0, 0.8, 0.05, 2, None).design(known, seeds)
    assert design is not None and 0.8 <= design.power < 0.85
    assert seen(*scores(rng, 1000, design.prompts, seeds, gain=1.0, seed=seed)) == pytest.approx(design.power, abs=0.05)
    assert seen(*scores(rng, 1000, design.prompts, seeds, heavy, gain=1.0, seed=seed)) >= design.power - 0.05, "heavy tails hide their spread, and see more"


def test_components_of_a_large_pilot_are_the_planted_ones() -> None:
    spread = components(trial(np.random.default_rng(23), 3000, 12, seed=0.4))
    assert (spread.between, spread.within) == (pytest.approx(0.98, rel=0.1), pytest.approx(2.0, rel=0.05))
    assert spread.seed == pytest.approx(0.32, rel=1), "twelve seeds say little about their own spread"


def test_what_the_pilot_had_is_what_it_would_have_shown() -> None:
    """`had` and `visible` of a design of 10 x 4, against 1,000 trials each."""
    rng = np.random.default_rng(24)
    known = Components(0.98, 0.0, 2.0, 2.98, 1e6, 10**6, 10**3)
    error, freedom = known.error(10, 4), known.known(10, 4)
    for gain, stated in ((1.0, power(1.0, error, freedom)), (smallest_visible(error, freedom), 0.8)):
        assert seen(*scores(rng, 1000, 10, 4, gain=gain)) == pytest.approx(stated, abs=0.05)


def test_safe_prompts_suffice_in_8_of_10_pilots() -> None:
    """Plain plans from a pilot of 10 x 4 fall short in about half of the cases; the safe ones do not, for designs of fewer, equal and more seeds."""
    rng = np.random.default_rng(25)
    plain, safe = [], []
    for _ in range(150):
        pilot = trial(rng, 10, 4)
        pilot = Pairs.of(np.zeros(40), pilot.gains, pilot.prompt.tolist())  # seeds not shared
        for design in plan(pilot, 0.6, seeds=(1, 4, 16)).alternatives:
            error = np.sqrt(0.98 + 2 / design.seeds)
            plain.append(power(0.6, error / np.sqrt(design.prompts), design.prompts - 1) >= 0.8)
            safe.append(power(0.6, error / np.sqrt(design.safe_prompts), design.safe_prompts - 1) >= 0.8)
    assert 0.3 < np.mean(plain) < 0.7
    assert np.mean(safe) == pytest.approx(0.8, abs=0.07)


def test_seeds_that_all_prompts_share_cannot_be_averaged_out_by_prompts() -> None:
    goal, spread = _Goal(0.8, 0.8, 0.05, 2, None), Components(0.5, 1.0, 1.0, 2.5, 9, 10, 4)
    enough = goal.design(spread, 30)
    assert goal.design(spread, 4) is None and enough is not None and enough.prompts < 60
    pilot = trial(np.random.default_rng(30), 10, 4, seed=3.0)
    assert components(pilot).seed > 1 and [one.seeds for one in plan(pilot, 50.0).alternatives] == [4, 8, 16]


def test_the_table_trades_prompts_against_seeds_and_says_the_cost() -> None:
    pilot = trial(np.random.default_rng(26), 10, 4)
    pilot = Pairs.of(np.zeros(40), pilot.gains, pilot.prompt.tolist())  # seeds of their own for each prompt
    found = plan(pilot, 0.7, arms=3, seconds_per_picture=2.5)
    assert [one.seeds for one in found.alternatives] == [1, 2, 4, 8, 16]
    prompts = [one.prompts for one in found.alternatives]
    assert prompts == sorted(prompts, reverse=True) and [one.pictures for one in found.alternatives] == sorted(one.pictures for one in found.alternatives)
    for one in found.alternatives:
        assert one.pairs == one.prompts * one.seeds and one.pictures == 3 * one.pairs and one.seconds == 2.5 * one.pictures
        assert one.safe_prompts is None or one.safe_prompts > one.prompts
    assert found.here is not None and found.here.seeds == 4 and found.fewest is not None and found.fewest.seeds == 1


def test_more_comparisons_take_more_pictures() -> None:
    pilot = trial(np.random.default_rng(27), 10, 4)
    alone, among = plan(pilot, 0.7), plan(pilot, 0.7, comparisons=20)
    assert among.here.prompts > 1.3 * alone.here.prompts and among.visible > alone.visible


def test_a_pilot_of_one_seed_plans_one_seed() -> None:
    assert [one.seeds for one in plan(trial(np.random.default_rng(28), 10, 1), 0.7).alternatives] == [1]


def test_what_10_000_prompts_would_not_show_has_no_plan() -> None:
    found = plan(trial(np.random.default_rng(29), 10, 2), 1e-5)
    assert found.alternatives == () and found.here is found.fewest is None and 0.05 <= found.had < 0.051


def test_without_any_spread_two_prompts_do() -> None:
    found = plan(Pairs.of([1.0] * 4, [2.0] * 4, ["a", "a", "b", "b"]), 0.5)
    assert found.visible == 0.0 and all((one.prompts, one.power) == (2, 1.0) for one in found.alternatives)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"difference": 0.0}, "smallest one that would matter"),
        ({"difference": float("nan")}, "cannot be planned for"),
        ({"power_wanted": 80}, r"a power of 80: it lies between 0 and 1"),
        ({"confidence": 95}, r"a confidence of 95: it lies between 0 and 1"),
    ],
)
def test_a_question_without_an_answer_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ComparisonError, match=words):
        plan(trial(np.random.default_rng(0), 5, 2), **{"difference": 1.0, **changes})


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 40])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15, 0.05 / 80])
def test_power_grows_with_the_difference_up_to_1(freedom: int, alpha: float) -> None:
    """With few prompts and many comparisons too, where scipy's noncentral t gives NaN on the far side."""
    found = np.array([power(shift, 1.0, freedom, alpha) for shift in np.linspace(0.1, 60, 200)])
    assert np.diff(found).min() > -1e-6 and alpha < found[0] < found[-1] <= 1
    rng = np.random.default_rng(0)
    t = (rng.normal(size=200_000) + 9) / np.sqrt(rng.chisquare(freedom, 200_000) / freedom)
    assert power(9, 1.0, freedom, alpha) == pytest.approx((abs(t) > stats.t.ppf(1 - alpha / 2, freedom)).mean(), abs=0.005)
