"""Pairs are formed by prompt and seed; what cannot be paired is left out of both arms and said in words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from darkroom.errors import DarkroomError
from darkroom.statistics import ComparisonError, Pairs

WHOLE = {(prompt, seed): 10.0 * i + seed for i, prompt in enumerate(["a cat", "a dog", "a hat"]) for seed in (1, 2)}


def test_gains_and_means_by_prompt() -> None:
    found = Pairs.match(WHOLE, {key: score + (key[1] if key[0] == "a dog" else 0) for key, score in WHOLE.items()})
    assert found.prompts == ("a cat", "a dog", "a hat") and (found.n, found.k) == (6, 3)
    np.testing.assert_allclose(found.gains, [0, 0, 1, 2, 0, 0])
    np.testing.assert_allclose(found.means, [0, 1.5, 0])
    assert found.mean == pytest.approx(0.5) and not found.left_out


def test_each_prompt_counts_the_same_however_many_seeds_it_has() -> None:
    found = Pairs.of([0, 0, 0, 0], [1, 1, 1, 5], ["a", "a", "a", "b"])
    assert found.mean == 3.0


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, "missing"])
@pytest.mark.parametrize("arm", ["base", "adapter"])
def test_a_pair_without_both_scores_is_left_out_and_named(bad: float | str | None, arm: str) -> None:
    arms = {"base": dict(WHOLE), "adapter": dict(WHOLE)}
    if bad == "missing":
        del arms[arm]["a dog", 2]
    else:
        arms[arm]["a dog", 2] = bad  # type: ignore[assignment]
    found = Pairs.match(arms["base"], arms["adapter"], ("base", "adapter"))
    assert found.n == 5 and found.left_out == (f'1 of 6 pairs is left out: no score in "{arm}" for prompt "a dog", seed 2',)


def test_many_missing_pairs_are_counted_and_the_first_named() -> None:
    fewer = {key: score for key, score in WHOLE.items() if key[1] == 1}
    (text,) = Pairs.match(WHOLE, fewer, skipped=1).left_out
    assert text.startswith("3 of 6 pairs are left out") and "and 2 more" in text and '"a cat", seed 2' in text


@pytest.mark.parametrize(
    ("control", "treated", "words"),
    [
        ({("a cat", 1): 1.0, ("a cat", 2): 2.0}, {("a cat", 1): 1.0, ("a cat", 2): 3.0}, r'one prompt only, "a cat": .* at least two prompts'),
        (WHOLE, {}, r'no pair has a score in both arms \(no score in "treated" for prompt "a cat", seed 1; .*and 3 more\): '),
        (WHOLE, dict.fromkeys(WHOLE, math.nan), r"no pair has a score in both arms"),
    ],
)
def test_what_cannot_go_on_says_why_and_the_way_out(control: dict, treated: dict, words: str) -> None:
    with pytest.raises(ComparisonError, match=words) as caught:
        Pairs.match(control, treated)
    assert isinstance(caught.value, DarkroomError) and isinstance(caught.value, ValueError)


def test_equal_but_for_rounding_is_equal() -> None:
    found = Pairs.of([1, 10, 60.3], [1 + 0.1, 10 + 0.1, 60.3 + 0.1], ["a", "b", "c"])
    assert np.ptp(found.gains) > 0, "else this test shows nothing"
    assert found.flat and not found.same
    assert Pairs.of([0.3, 1], [0.1 + 0.2, 1], ["a", "b"]).same
