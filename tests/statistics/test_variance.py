"""Where the spread comes from: against statsmodels' mixed model and its analysis of variance, and unbiased where prompts have unequal numbers of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import Pairs, components, seed_effect
from darkroom.statistics.interval import student
from support.trials import pairs, scores, trial

pd = pytest.importorskip("pandas", reason="the oracle")
pytest.importorskip("statsmodels", reason="the oracle")


def test_balanced_components_are_the_mixed_models() -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    found = trial(np.random.default_rng(3), 12, 4)
    found = Pairs.of(np.zeros(48), found.gains, found.prompt.tolist())  # the seeds not named: part of what is within
    model = MixedLM(found.gains, np.ones(found.n), groups=found.prompt).fit(reml=True)
    ours = components(found)
    assert ours.within == pytest.approx(model.scale, rel=1e-3)
    assert ours.between == pytest.approx(float(np.asarray(model.cov_re)[0, 0]), rel=1e-3)
    assert ours.error(12, 4) == pytest.approx(found.means.std(ddof=1) / np.sqrt(12)), "the error of the mean is that of the prompts' means"


def test_unequal_numbers_of_pictures_are_allowed_for() -> None:
    rng, sizes = np.random.default_rng(4), [1, 2, 3, 5, 8, 2, 4, 1]
    prompts = np.repeat(range(8), sizes).tolist()
    each = [components(Pairs.of(np.zeros(26), rng.normal(0, 1.5, 8)[prompts] + rng.normal(0, 2, 26), prompts)) for _ in range(600)]
    assert np.mean([one.within for one in each]) == pytest.approx(4, rel=0.05)
    assert np.mean([one.total for one in each]) == pytest.approx(2.25 + 4, rel=0.05), "unbiased, though `between` is raised to 0 where it fell below"
    assert min(one.between for one in each) == 0.0


def test_one_seed_a_prompt_cannot_tell_them_apart() -> None:
    found = components(trial(np.random.default_rng(1), 9, 1))
    assert found.within is None and found.seeds == 1 and found.total == found.between


def test_the_seeds_own_effect_is_statsmodels_anova() -> None:
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    found = trial(np.random.default_rng(6), 7, 4, seed=0.5)
    frame = pd.DataFrame({"gain": found.gains, "prompt": found.prompt, "seed": found.seeds})
    table = sm.stats.anova_lm(ols("gain ~ C(prompt) + C(seed)", frame).fit())
    ours = components(found)
    rest, prompt, seed = (table.loc[row, "sum_sq"] / table.loc[row, "df"] for row in ("Residual", "C(prompt)", "C(seed)"))
    assert (ours.within, ours.between, ours.seed) == pytest.approx((rest, max(0, (prompt - rest) / 4), max(0, (seed - rest) / 7)))
    assert seed_effect(found) == pytest.approx(table.loc["C(seed)", "PR(>F)"], rel=1e-6)


def test_the_seeds_own_effect_is_seen_where_it_is_and_seldom_where_it_is_not() -> None:
    rng = np.random.default_rng(8)
    assert sum((seed_effect(trial(rng, 8, 4)) or 1) < 0.05 for _ in range(200)) <= 18  # 5 % of 200 is 10; more than 18 has a chance of 0.6 %
    assert sum((seed_effect(trial(rng, 8, 4, seed=2.0)) or 1) < 0.05 for _ in range(50)) >= 45


@pytest.mark.parametrize(
    "found",
    [
        Pairs.of([0, 0], [1, 2], ["a", "b"]),  # no seeds named
        Pairs.of([0, 0, 0], [1, 2, 3], ["a", "a", "b"], [1, 2, 1]),  # not a rectangle
        Pairs.of([0, 0, 0, 0], [1, 1, 2, 2], ["a", "a", "b", "b"], [1, 2, 1, 2]),  # nothing left to judge by
    ],
)
def test_no_rectangle_no_answer(found: Pairs) -> None:
    assert seed_effect(found) is None


@pytest.mark.parametrize(("prompts", "seeds"), [(8, 4), (20, 4), (10, 8)])
@pytest.mark.parametrize("seed", [0.0, 0.3, 1.0])
def test_seeds_that_favour_an_arm_do_not_pass_for_a_difference(prompts: int, seeds: int, seed: float) -> None:
    """1,200 A/A trials in which all prompts share seeds that may favour an arm: prompts' means alone would miss 0 in up to half of them."""
    control, treated = scores(np.random.default_rng(51), 1200, prompts, seeds, seed=seed)
    missed = np.mean([student(pairs(c, t)).p < 0.05 for c, t in zip(control, treated, strict=True)])
    alone = stats.ttest_1samp((treated - control).mean(2), 0, axis=1).pvalue < 0.05
    assert missed <= 0.07
    if seed == 1.0:
        assert alone.mean() > 0.15
    if seed == 0.0:
        assert missed >= 0.02, "nor is it asleep where seeds do not matter"
