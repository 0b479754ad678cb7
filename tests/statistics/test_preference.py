"""Blind choices become strengths that tell the truth: solved by hand, statsmodels' logistic regression, and intervals that hold what they promise."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from scipy import optimize

from darkroom.statistics import ComparisonError
from darkroom.statistics.choice import ANSWERS, Answer, Choice
from darkroom.statistics.davidson import PRIOR, fit
from darkroom.statistics.preference import Rated, answers_needed, prefer


def answers(counts: dict[str, int], left: str = "new", right: str = "old", prompts: int = 10, rater: str = "ann") -> list[Choice]:
    """So many of each answer, the sides as they are given, prompts in turn."""
    said = [answer for answer, count in counts.items() for _ in range(count)]
    return [Choice(left, right, answer, i % prompts, rater, i) for i, answer in enumerate(said)]  # type: ignore[arg-type]


def both_sides(won: int, lost: int, ties: int = 0, rater: str = "ann") -> list[Choice]:
    """New against old with no preference for a side."""
    one = answers({"left": won, "right": lost, "tie": ties}, rater=rater)
    return [*one, *answers({"left": lost, "right": won, "tie": ties}, "old", "new", rater=rater)]


def test_the_answers_are_the_three() -> None:
    assert get_args(Answer) == ANSWERS


def test_without_ties_the_strength_is_the_odds() -> None:
    """35 of 50: log odds of 0.847, but for what the prior takes: (15 - 50 sigmoid(-d)) = d / (2 sd^2), solved by bisection."""
    rated = prefer(both_sides(35, 15))
    one = rated.preferences[0]
    by_hand = optimize.brentq(lambda d: 70 - 100 / (1 + math.exp(-d)) - d / (2 * PRIOR**2), -5, 5)
    assert math.log(one.probability / (1 - one.probability)) == pytest.approx(by_hand, abs=1e-8)
    assert abs(one.probability - 0.7) < 0.0015
    assert (one.arm, one.against, one.won, one.lost, one.ties, one.verdict) == ("new", "old", 70, 30, 0, "better")


def test_davidson_by_hand() -> None:
    """Two arms with ties, no side preference: the chance among the decided is won / (won + lost), and ties only say how often one cannot tell."""
    rated = prefer(both_sides(24, 16, 20))
    assert rated.preferences[0].probability == pytest.approx(0.6, abs=0.002)
    model = fit(both_sides(24, 16, 20))
    difference, habit = model.estimate(model.versus("new", "old")), float(model.top[-1])
    left, right, tie = math.exp(difference / 2), math.exp(-difference / 2), math.exp(habit)
    assert tie / (left + right + tie) == pytest.approx(20 / 60, abs=0.003)
    assert left / (left + right + tie) == pytest.approx(24 / 60, abs=0.003)


def test_three_arms_against_statsmodels() -> None:
    """Bradley-Terry without ties is logistic regression: the side preference is its intercept. The prior is small against 3,000 answers."""
    statsmodels = pytest.importorskip("statsmodels.api", reason="the oracle")
    random = np.random.default_rng(5)
    truth, side, arms = {"a": 0.0, "b": 0.6, "c": -0.4}, 0.3, ["a", "b", "c"]
    choices, rows, wins = [], [], []
    for i in range(3000):
        left, right = random.permutation(3)[:2]
        won = random.random() < 1 / (1 + math.exp(-(truth[arms[left]] - truth[arms[right]] + side)))
        choices.append(Choice(arms[left], arms[right], "left" if won else "right", i, "ann"))
        row = np.zeros(3)
        row[left], row[right] = 1.0, -1.0
        rows.append([1.0, row[1], row[2]])
        wins.append(float(won))
    oracle = statsmodels.Logit(wins, np.array(rows)).fit(disp=0)
    model = fit(choices)
    ours = [model.estimate(model.side("ann")), model.estimate(model.versus("b", "a")), model.estimate(model.versus("c", "a"))]
    assert ours == pytest.approx(oracle.params, abs=2e-3)
    low, high = model.interval(model.versus("b", "a"))
    inflation = math.sqrt(model.inflation(model.versus("b", "a")))
    assert inflation < 1.06, "independent answers are taken as such"
    assert (high - low) / 2 == pytest.approx(inflation * 1.96 * oracle.bse[1], rel=0.01)


def test_the_cluster_sandwich_is_statsmodels() -> None:
    """Answers of a prompt lean together: the inflation is the ratio of statsmodels' cluster-robust variance to its naive one."""
    statsmodels = pytest.importorskip("statsmodels.api", reason="the oracle")
    choices = simulate(np.random.default_rng(3), prompts=60, each=40, gain=0.2, spread=1.0)
    rows = [[1.0, 1.0 if choice.left == "new" else -1.0] for choice in choices]
    wins, groups = [float(choice.answer == "left") for choice in choices], [choice.prompt for choice in choices]
    model = statsmodels.Logit(wins, np.array(rows))
    robust = model.fit(disp=0, cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}).bse[1]
    naive = model.fit(disp=0).bse[1]
    ours = fit(choices)
    assert ours.inflation(ours.versus("new", "old")) == pytest.approx((robust / naive) ** 2 * 60 / 59, rel=0.01)
    assert (robust / naive) ** 2 > 3


def test_separable_answers_stay_finite() -> None:
    """10 of 10: about what half a win more on either side would say, and an interval that is not a point."""
    one = prefer(both_sides(5, 0)).preferences[0]
    assert 0.94 < one.probability < 0.97 and one.low > 0.5 and one.high < 1 and one.high - one.low > 0.1
    assert one.inflation == 1.0


def test_a_side_preference_is_not_an_arms_merit() -> None:
    """A rater who takes the left one whatever it shows, and another who takes the right: no arm gains by it, and both are found out."""
    ann = answers({"left": 20}) + answers({"left": 20}, "old", "new")
    rated = prefer([*ann, *answers({"right": 12, "left": 8}, rater="bob"), *answers({"right": 12, "left": 8}, "old", "new", rater="bob")])
    assert rated.preferences[0].probability == pytest.approx(0.5, abs=1e-9) and rated.preferences[0].verdict == "unclear"
    sides = {side.rater: side for side in rated.sides}
    assert sides["ann"].probability > 0.95 and sides["ann"].p < 1e-3 and (sides["ann"].left, sides["ann"].right) == (40, 0)
    assert sides["bob"].probability == pytest.approx(0.4, abs=0.01) and sides["bob"].low < 0.4 < sides["bob"].high


def test_nothing_changes_when_sides_or_names_are_swapped() -> None:
    choices = simulate(np.random.default_rng(1), 8, 6, 0.7, 0.5, ties=0.3)
    mirrored = [Choice(c.right, c.left, {"left": "right", "right": "left", "tie": "tie"}[c.answer], c.prompt, c.rater, c.seed) for c in choices]  # type: ignore[arg-type]
    one, two = (prefer(found, [("new", "old")]).preferences[0] for found in (choices, mirrored))
    assert [one.probability, one.low, one.high, one.p] == pytest.approx([two.probability, two.low, two.high, two.p], abs=1e-6)
    (turned,) = prefer(choices, [("old", "new")]).preferences
    assert [1 - turned.probability, 1 - turned.high, 1 - turned.low, turned.p] == pytest.approx([one.probability, one.low, one.high, one.p], abs=1e-6)


def test_p_and_interval_say_the_same() -> None:
    model = fit(simulate(np.random.default_rng(2), 9, 5, 0.5, 0.4, ties=0.2))
    direction = model.versus("new", "old")
    for end in model.interval(direction, 0.9):
        assert model.p(direction, end) == pytest.approx(0.1, abs=1e-5)


def test_strengths_are_in_order_and_sum_to_nothing() -> None:
    choices = [*both_sides(30, 10), *answers({"left": 30, "right": 10}, "old", "worst"), *answers({"left": 10, "right": 30}, "worst", "old")]
    rated = prefer(choices)
    assert [one.arm for one in rated.strengths] == ["new", "old", "worst"]
    assert sum(one.log_strength for one in rated.strengths) == pytest.approx(0, abs=1e-9)
    assert all(one.low < one.log_strength < one.high for one in rated.strengths)
    assert len(rated.preferences) == 2, "new and worst were never seen side by side"
    assert prefer(choices, [("new", "worst")]).preferences == ()


def simulate(random: np.random.Generator, prompts: int, each: int, gain: float, spread: float, ties: float = 0.0, raters: int = 1) -> list[Choice]:
    """Answers whose log odds lean prompt by prompt (`spread`), the sides drawn."""
    choices = []
    for prompt, lean in enumerate(random.normal(gain, spread, prompts)):
        for i in range(each):
            new_left = bool(random.random() < 0.5)
            prefers_new = random.random() < 1 / (1 + math.exp(-lean))
            answer: Any = "tie" if random.random() < ties else "left" if prefers_new == new_left else "right"
            choices.append(
                Choice("new", "old", answer, prompt, f"rater{i % raters}", i) if new_left else Choice("old", "new", answer, prompt, f"rater{i % raters}", i)
            )
    return choices


@pytest.mark.parametrize(("gain", "spread", "ties", "raters"), [(0.0, 0.0, 0.0, 1), (0.0, 1.5, 0.3, 2), (1.0, 1.0, 0.2, 1)])
def test_intervals_hold_the_truth_as_often_as_they_say(gain: float, spread: float, ties: float, raters: int) -> None:
    """200 blind ratings of 12 prompts: 95 % intervals miss in 10 of them on average; 18 or more would be chance once in 100."""
    points = np.random.default_rng(0).normal(gain, spread, 200_000)
    truth = float((1 / (1 + np.exp(-points))).mean())
    missed = 0
    for run in range(200):
        model = fit(simulate(np.random.default_rng(1000 + run), 12, 6, gain, spread, ties, raters))
        low, high = model.interval(model.versus("new", "old"))
        missed += not low <= math.log(truth / (1 - truth)) <= high
    print(f"missed {missed} of 200")
    assert missed <= 18


def test_answers_that_lean_together_are_not_taken_as_independent() -> None:
    """The trap itself: 12 prompts that each lean their own way, 20 answers each. Taken as independent, 95 % intervals would miss far too often."""
    missed = naive = 0
    for run in range(60):
        model = fit(simulate(np.random.default_rng(run), 12, 20, 0.0, 2.0))
        direction = model.versus("new", "old")
        missed += model.p(direction) < 0.05
        naive += math.sqrt(model.deviance(direction, 0.0)) > 1.96
    print(f"missed {missed}, naive {naive} of 60")
    assert missed <= 8 and naive >= 20


def test_five_raters_are_a_sample_of_people() -> None:
    """Five raters who disagree among themselves widen the interval, though every prompt looks alike."""
    choices = []
    for rater, share in enumerate((1.0, 1.0, 1.0, 0.2, 0.2)):
        for i in range(20):
            left, right = ("new", "old") if i % 2 else ("old", "new")
            choices.append(Choice(left, right, "left" if (i // 2 < 10 * share) == (left == "new") else "right", i, f"r{rater}", 0))
    model = fit(choices)
    assert len(model.clusters) == 3 and model.freedom == 4
    four = fit([choice for choice in choices if choice.rater != "r2"])
    assert len(four.clusters) == 1 and four.freedom == 19
    assert model.inflation(model.versus("new", "old")) > 3 > 1.5 > four.inflation(four.versus("new", "old"))


def test_the_answers_needed_show_it() -> None:
    """By drawing: with so many answers a chance of 0.7 is seen in about 8 of 10 cases."""
    needed = answers_needed(0.7)
    assert 40 <= needed <= 60
    random = np.random.default_rng(7)
    rates = []
    for wins in random.binomial(needed, 0.7, 150):
        odd = [
            Choice("new", "old", "left" if i < wins else "right", i % 40) if i % 2 else Choice("old", "new", "right" if i < wins else "left", i % 40)
            for i in range(needed)
        ]
        model = fit(odd)
        rates.append(model.p(model.versus("new", "old")) < 0.05)
    print(f"power {np.mean(rates)}")
    assert 0.68 <= np.mean(rates) <= 0.9
    assert answers_needed(0.7, ties=0.5) == pytest.approx(2 * needed, rel=0.03)
    assert answers_needed(0.7, inflation=3) == pytest.approx(3 * needed, rel=0.03)


def test_sentences() -> None:
    better: Rated = prefer(both_sides(15, 4, 3), [("new", "old")])
    assert better.preferences[0].sentence.startswith('blind rating: "new" is better than "old": a rater who can tell prefers it in ')
    assert '44 answers over 10 prompts by 1 rater: 30 to 8, and 6 "can\'t tell"' in better.preferences[0].sentence
    worse = prefer(both_sides(4, 15), [("new", "old")]).preferences[0]
    assert '"new" is worse than "old"' in worse.sentence and "what one rater prefers" in worse.notes[0]
    unclear = prefer(both_sides(5, 4), [("new", "old")]).preferences[0]
    assert "no preference between" in unclear.sentence and "it would take about 200 answers" in unclear.sentence


def test_many_comparisons_ask_for_more() -> None:
    """A comparison that would do alone does not beside eleven others of which nothing can be seen."""
    weak = both_sides(17, 8)
    alone = prefer(weak, [("new", "old")]).preferences[0]
    others = [
        choice for i in range(11) for choice in (*answers({"left": 5, "right": 5}, f"x{i}", f"y{i}"), *answers({"left": 5, "right": 5}, f"y{i}", f"x{i}"))
    ]
    one = next(found for found in prefer([*weak, *others]).preferences if found.arm == "new")
    assert alone.verdict == "better" and one.verdict == "unclear"
    assert "among 12 comparisons" in one.sentence


@pytest.mark.parametrize(("choices", "words"), [([], "no answer yet"), (answers({"left": 3}, prompts=1), "one prompt only")])
def test_what_cannot_be_judged(choices: list[Choice], words: str) -> None:
    with pytest.raises(ComparisonError, match=words):
        prefer(choices)
