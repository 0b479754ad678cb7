"""The rule of `pick`: simulated histories with a known turn, rates of false turns, scipy as the oracle of its tests, and plain cases by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from darkroom.statistics import ComparisonError
from darkroom.statistics.plateau import Curve, Rule, bent, choose, turned

STEPS = tuple(range(0, 1001, 100))


def unit(rng: np.random.Generator, count: int, wander: float, noise: float = 1.0) -> Any:
    """(steps, count): what each unit does by itself, in part a walk, for checkpoints follow from each other."""
    return np.cumsum(rng.normal(0, wander, (len(STEPS), count)), 0) + rng.normal(0, noise, (len(STEPS), count)) + rng.normal(0, 3, (1, count))


def history(rng: np.random.Generator, prompts: int, turn: float, wander: float) -> dict[str, Curve]:
    """Likeness levels off with a time of 60 steps; from `turn` on the held-out loss rises and pictures are copied. Drift grows evenly."""
    s = np.array(STEPS, float)[:, None]
    learned, late = 1 - np.exp(-s / 60), np.maximum(0, s - turn) / 500

    def each(count: int, spread: float) -> Any:
        return 1 + rng.normal(0, spread, (1, count))

    likeness = 60 + 15 * learned * each(prompts, 0.2) - late + unit(rng, prompts, wander)
    loss = 0.05 * (1 - 0.2 * learned + 0.1 * late * each(6, 0.3)) + 2e-4 * unit(rng, 6, wander)
    copying = 4 * late * each(prompts, 0.3) + unit(rng, prompts, wander)
    drift = 8 * s / 1000 * each(prompts, 0.3) + unit(rng, prompts, wander)
    return {
        "likeness": Curve("likeness", STEPS, likeness), "loss": Curve("loss", STEPS, loss, False),
        "copying": Curve("copying", STEPS, copying, False), "drift": Curve("drift", STEPS, drift - drift[0], False),
    }  # fmt: skip


@pytest.mark.parametrize("prompts", [6, 12])
@pytest.mark.parametrize("wander", [0.0, 0.4])
def test_it_chooses_before_the_turn_and_after_the_learning(prompts: int, wander: float) -> None:
    """300 histories that turn at 300 to 600: at most 1 in 20 is chosen later, and at most 1 in 20 before 95 % were learned."""
    rng, late, early = np.random.default_rng(5), 0, 0
    for _ in range(300):
        turn = float(rng.choice([300, 400, 500, 600]))
        found = history(rng, prompts, turn, wander)
        choice = choose([found["likeness"], found["loss"]], [found["loss"], found["copying"]], [found["drift"]])
        late += choice.step > turn
        early += choice.step < 180
    assert late <= 15 and early <= 15


@pytest.mark.parametrize("prompts", [3, 12])
@pytest.mark.parametrize("wander", [0.0, 0.4])
def test_what_does_not_turn_is_seldom_said_to(prompts: int, wander: float) -> None:
    """300 histories without a turn: at most 5 % of each kind of guard sees one (6 % allows for 300 being few)."""
    rng, false = np.random.default_rng(6), {"loss": 0, "copying": 0, "drift": 0}
    for _ in range(300):
        found = history(rng, prompts, 1e9, wander)
        false["loss"] += turned(found["loss"]) is not None
        false["copying"] += turned(found["copying"]) is not None
        false["drift"] += bent(found["drift"]) is not None
    assert max(false.values()) <= 18, false


def test_more_checkpoints_cost_no_certainty() -> None:
    """Flat curves of 20 checkpoints turn no more often than those of 5."""
    rng = np.random.default_rng(9)
    for count in (5, 20):
        flat = [Curve("x", tuple(range(count + 1)), rng.normal(size=(count + 1, 8))) for _ in range(300)]
        assert sum(turned(curve) is not None for curve in flat) <= 18


def test_a_planted_turn_is_seen_where_it_is() -> None:
    """Eight prompts: 95 of 100 turns at 400 are seen, half of them within a checkpoint of it."""
    rng, places = np.random.default_rng(7), []
    for _ in range(100):
        turn = turned(history(rng, 8, 400, 0.2)["copying"])
        places.append(turn.since if turn else 10_000)
    assert np.median(np.abs(np.array(places) - 400)) <= 100 and np.mean(np.array(places) < 10_000) >= 0.95


def test_a_broken_line_is_numpys_on_both_sides() -> None:
    """Where the break is there, each unit's slopes are those of straight lines fitted before it and after it; the sign is that of worsening."""
    x = np.array([0, 10, 20, 40, 60, 90])
    values = np.where(x[:, None] <= 20, 5 - 0.1 * x[:, None], 3 + 0.3 * (x[:, None] - 20)) * np.array([[1.0, 2.0, 4.0]])
    line = Curve("loss", tuple(x.tolist()), values, higher_is_better=False).broken(20, 0)
    assert line.after.mean == pytest.approx(0.3 * 7 / 3) and line.bend.mean == pytest.approx(0.4 * 7 / 3) and line.misfit == pytest.approx(0, abs=1e-20)
    assert line.after.mean == pytest.approx(np.mean([np.polyfit(x[2:], values[2:, unit], 1)[0] for unit in range(3)]))
    assert Curve("likeness", tuple(x.tolist()), values).broken(20, 0).after.mean == pytest.approx(-0.3 * 7 / 3)
    assert Curve("loss", tuple(x.tolist()), values, False).broken(0, 0).bend.mean == 0.0, "from its first step on a line has no bend"


def test_a_change_is_scipys_paired_t_test() -> None:
    rng = np.random.default_rng(8)
    curve = Curve("x", (0, 10, 20), rng.normal(size=(3, 9)))
    oracle = stats.ttest_rel(curve.values[2], curve.values[1], alternative="greater")
    change = curve.change(10, 20)
    assert change.p == pytest.approx(float(oracle.pvalue)) and change.mean == pytest.approx(float((curve.values[2] - curve.values[1]).mean()))
    low, high = stats.ttest_rel(curve.values[2], curve.values[1]).confidence_interval(0.95)
    assert (change.mean - change.reach(0.95), change.mean + change.reach(0.95)) == (pytest.approx(float(low)), pytest.approx(float(high)))


def rows(*means: float, units: int = 4, spread: float = 0.01) -> Any:
    """Means with a small spread of the changes."""
    rng = np.random.default_rng(0)
    return np.array(means)[:, None] + np.arange(units) + rng.normal(0, spread, (len(means), units)) * (np.arange(len(means)) > 0)[:, None]


def test_the_earliest_within_the_margin_wins() -> None:
    curve = Curve("likeness", (0, 10, 20, 30, 40), rows(0, 5, 9.8, 10, 9.9))
    assert choose([curve]).step == 20
    assert choose([curve], rule=Rule(margin=0.0)).step == 30
    assert choose([curve], rule=Rule(margin=0.6, most=0.6)).step == 10


def test_unsure_is_not_as_good() -> None:
    """A shortfall of half the gain is within one huge standard error, and no plateau all the same."""
    values = np.array([[0, 0, 0], [0, 30, -15], [10, 10, 10]], float)
    assert choose([Curve("likeness", (0, 10, 20), values)]).step == 20


def test_a_guard_ends_the_window() -> None:
    goal = Curve("likeness", (0, 10, 20, 30, 40, 50), rows(0, 4, 6, 8, 10, 12))
    guard = Curve("copying", (0, 10, 20, 30, 40, 50), rows(5, 1, 1, 1, 4, 7), higher_is_better=False)
    free, held = choose([goal]), choose([goal], [guard])
    assert (free.step, free.turns) == (50, ())
    assert (held.step, held.window, held.together) == (30, (10, 20, 30), True) and held.first_turn is not None
    assert (held.first_turn.since, held.first_turn.step) == (30, 40) and held.first_turn.change.mean == pytest.approx(6, abs=0.05)


def test_what_only_falls_or_falls_back_has_not_turned() -> None:
    steps = (0, 10, 20, 30, 40)
    assert turned(Curve("loss", steps, rows(9, 5, 3, 2, 1.9), higher_is_better=False)) is None
    assert turned(Curve("copying", steps, rows(5, 1, 1.02, 1, 0.9), higher_is_better=False)) is None


def test_even_growth_does_not_bend_and_a_faster_one_does() -> None:
    assert bent(Curve("drift", (0, 10, 20, 30, 40), rows(0, 1, 2, 3, 4, spread=0.0), higher_is_better=False)) is None
    assert bent(Curve("drift", (0, 10, 20, 40), rows(0, 1, 2, 4, spread=0.0), higher_is_better=False)) is None, "a longer interval is no faster growth"
    assert bent(Curve("drift", (0, 10, 20, 30, 40), rows(0, 4, 5, 5.2, 5.3), higher_is_better=False)) is None, "what levels off grows ever slower"
    found = bent(Curve("drift", (0, 10, 20, 30, 40), rows(0, 1, 2, 6, 10), higher_is_better=False))
    assert found is not None and (found.since, found.step) == (20, 30) and found.change.mean == pytest.approx(8, abs=0.05)


def test_of_goals_that_contradict_each_other_the_least_is_lost() -> None:
    """Likeness 20, 90, 100 %; held-out loss 100, 80, 0 %: the middle one loses 20 % at most."""
    steps = (0, 10, 20, 30)
    choice = choose([Curve("likeness", steps, rows(0, 2, 9, 10)), Curve("loss", steps, rows(10, 0, 2, 10), higher_is_better=False)])
    assert (choice.step, choice.together) == (20, False)
    assert [(short.curve, short.best, short.passes) for short in choice.shorts] == [("likeness", 30, False), ("loss", 10, False)]
    assert [short.lost for short in choice.shorts] == [pytest.approx(0.1, abs=0.01), pytest.approx(0.2, abs=0.01)]


def test_a_goal_that_gained_nothing_decides_nothing() -> None:
    steps = (0, 10, 20, 30)
    worse, loss = Curve("likeness", steps, rows(9, 1, 2, 3)), Curve("loss", steps, rows(9, 3, 1, 2), higher_is_better=False)
    choice = choose([worse, loss])
    assert (choice.step, choice.together) == (20, True) and choice.shorts[0].gained == 0.0


def test_a_guard_that_turns_at_once_leaves_the_first_checkpoint() -> None:
    steps = (0, 10, 20, 30)
    choice = choose([Curve("likeness", steps, rows(0, 1, 5, 10))], [Curve("loss", steps, rows(1, 1, 6, 12), higher_is_better=False)])
    assert (choice.step, choice.window) == (10, (10,)), "it rises all along, though faster from 20 on"


def test_one_held_out_picture_has_no_error_and_turns_nothing() -> None:
    steps = (0, 10, 20, 30)
    loss = Curve("loss", steps, np.array([[5.0], [1.0], [3.0], [9.0]]), higher_is_better=False)
    assert turned(loss) is None and np.isnan(loss.change(0, 10).error) and np.isnan(loss.change(0, 10).reach(0.95))
    assert choose([loss]).step == 10


def test_what_never_varies() -> None:
    flat = Curve("likeness", (0, 10, 20), np.ones((3, 4)))
    assert choose([flat], [flat], [flat]).step == 10 and flat.change(0, 10).p == 1.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Curve("x", (0, 10), np.ones((3, 2))), "a row of units for each step"),
        (lambda: Curve("x", (10, 0), np.ones((2, 2))), "must ascend"),
        (lambda: Curve("x", (0, 10), np.array([[1.0], [np.nan]])), "NaN"),
        (lambda: choose([]), "at least one goal"),
        (lambda: choose([Curve("x", (0, 10), np.ones((2, 2)))]), "nothing to choose between"),
        (lambda: choose([Curve("x", (0, 1, 2), np.ones((3, 2)))], [Curve("y", (0, 1, 3), np.ones((3, 2)))]), "over the same steps"),
    ],
)
def test_a_question_without_an_answer_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ComparisonError, match=words):
        make()
