"""The verdict is a sentence that anybody can read, right as often as it says, and silent about nothing that matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from darkroom.statistics import Case, Judgement, Measure, Pairs, judge
from support.trials import pairs, scores, trial

CLIP = Measure("clip", "Does it show what the prompt says?", "points of 100")


def verdict(found: Pairs, **measure: Any) -> Judgement:
    return judge([Case("base", "adapter", Measure(**{**vars(CLIP), **measure}), found)])[0]


def planted(gain: float, prompts: int = 20, seeds: int = 4, seed: int = 0, **how: float) -> Pairs:
    return trial(np.random.default_rng(seed), prompts, seeds, gain=gain, **how)


@pytest.mark.parametrize(
    ("gain", "higher_is_better", "words"),
    [
        (3.0, True, '"adapter" is better than "base": higher by '),
        (-3.0, True, '"adapter" is worse than "base": lower by '),
        (3.0, False, '"adapter" is worse than "base": higher by '),
        (-3.0, False, '"adapter" is better than "base": lower by '),
    ],
)
def test_better_and_worse_say_question_direction_unit_and_basis(gain: float, higher_is_better: bool, words: str) -> None:
    found = verdict(planted(gain), higher_is_better=higher_is_better)
    assert found.sentence.startswith("clip (Does it show what the prompt says?): " + words)
    assert " points of 100 (95% interval " in found.sentence and "80 pairs over 20 prompts" in found.sentence
    assert ("higher is better" if higher_is_better else "lower is better") in found.sentence
    assert found.verdict == ("better" if (gain > 0) == higher_is_better else "worse") and found.notes == ()


def test_no_difference_says_what_would_have_been_seen_and_what_it_would_take() -> None:
    found = verdict(planted(0.25, prompts=8))
    assert found.verdict == "unclear" and found.plan is not None
    here = found.plan.here
    assert 'no difference between "adapter" and "base" can be seen with 32 pairs over 8 prompts' in found.sentence
    assert f"would have shown a true difference of {found.plan.visible:.1f} points of 100 in 8 of 10 cases" in found.sentence
    assert here is not None and "as small as the one measured (" in found.sentence
    told = int(found.sentence.split("about ")[1].split(" pairs")[0].replace(",", ""))
    assert here.pairs <= told <= 1.1 * here.pairs + 4


def test_a_stated_margin_is_what_is_planned_for() -> None:
    found = verdict(planted(0.1, prompts=8), margin=0.5)
    assert found.verdict == "unclear" and "as small as the margin (0.50 points of 100)" in found.sentence and found.plan.difference == 0.5


def test_equivalent_needs_a_margin_and_says_it() -> None:
    found = verdict(planted(0.0, prompts=40), margin=2.0)
    assert found.verdict == "equivalent" and "are equivalent: any difference is smaller than 2 points of 100 (90% interval" in found.sentence
    assert verdict(planted(0.0, prompts=40)).verdict == "unclear"
    seen = verdict(planted(1.0, prompts=60), margin=2.0)
    assert seen.verdict == "equivalent" and "a difference of +" in seen.sentence and "can be seen, and it is smaller than 2 points" in seen.sentence


def test_many_comparisons_must_show_more() -> None:
    """What stands alone falls among twenty, and the sentence says why."""
    alone = next(found for seed in range(99) if 0.01 < (found := verdict(planted(0.5, seed=seed))).difference.p < 0.04)
    pair = next(planted(0.5, seed=seed) for seed in range(99) if verdict(planted(0.5, seed=seed)).difference == alone.difference)
    others = [Case("base", f"arm {i}", CLIP, planted(0.0, seed=100 + i)) for i in range(19)]
    among = judge([Case("base", "adapter", CLIP, pair), *others])[0]
    assert alone.verdict == "better" and among.verdict == "unclear"
    assert among.p_corrected == pytest.approx(20 * among.difference.p)
    assert "among 20 comparisons chance brings such a one too often (corrected p = " in among.sentence


def test_a_trial_of_nothing_claims_something_in_5_percent() -> None:
    """100 A/A trials of three metrics; and a planted gain of 1.5 is found in nine of ten."""
    rng = np.random.default_rng(40)
    wrong = 0
    for _ in range(100):
        control, treated = scores(rng, 3, 8, 4)
        wrong += any(one.verdict != "unclear" for one in judge([Case("a", "b", CLIP, pairs(c, t)) for c, t in zip(control, treated, strict=True)]))
    assert wrong <= 10  # 5 expected; more than 10 has a chance of 1 %
    assert sum(verdict(planted(1.5, seed=seed)).verdict == "better" for seed in range(20)) >= 18


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Pairs.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ["a", "b", "c"]), "the arms drew the same pictures"),
        (Pairs.of([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], ["a", "b", "c"]), "no spread to judge by"),
        (planted(9.0, prompts=4), "With 4 prompts a permutation test cannot give less than p = 0.12"),
        (planted(5.0, seed=3), ""),
    ],
)
def test_what_the_figures_would_hide_is_said(found: Pairs, words: str) -> None:
    notes = verdict(found).notes
    assert any(words in note for note in notes) if words else notes == ()


def test_seeds_that_favour_an_arm_are_said() -> None:
    rng = np.random.default_rng(4)
    control, treated = scores(rng, 1, 12, 4, seed=4.0)
    assert any("Some seeds favour one arm whatever the prompt" in note and "more than 4 would" in note for note in verdict(pairs(control[0], treated[0])).notes)


def test_pairs_left_out_are_said_with_what_it_may_mean() -> None:
    whole = {(f"prompt {i}", seed): float(i + seed) for i in range(6) for seed in (1, 2)}
    gained = {key: score + 1 + key[1] / 10 for key, score in whole.items() if key != ("prompt 2", 2)}
    (note,) = verdict(Pairs.match(whole, gained, ("base", "adapter"))).notes
    assert note.startswith('1 of 12 pairs is left out: no score in "adapter" for prompt "prompt 2", seed 2.') and "flatters" in note


def test_equal_scores_everywhere_read_well() -> None:
    found = verdict(Pairs.of([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ["a", "b", "c"]))
    assert found.sentence.endswith(
        '"adapter" and "base" scored exactly the same in all 3 pairs over 3 prompts: no difference can be seen, and none was measured.'
    )
    assert found.plan is None and found.p_corrected == 1.0
    assert verdict(Pairs.of([1.0, 2.0], [1.0, 2.0], ["a", "b"]), margin=0.1).verdict == "equivalent"


def test_a_difference_as_small_as_dust_has_no_plan() -> None:
    gains = np.array([1.0, -1.0, 0.5, -0.5, 1e-5, 0.0])
    found = verdict(Pairs.of([0.0] * 6, gains, range(6)))
    assert "would not be seen with 10,000 prompts either" in found.sentence


def test_judged_alike_every_time() -> None:
    found = planted(0.4, prompts=25)
    assert verdict(found) == verdict(found)


def test_nothing_to_judge_is_nothing() -> None:
    assert judge([]) == []
