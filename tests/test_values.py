"""Durations carry their unit, and every seed is a pure function of what it is for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from darkroom.values import Duration, DurationField, Unit, seed_for

DURATIONS = st.builds(Duration, st.integers(0, 10**9), st.sampled_from(get_args(Unit)))
PATTERN = TypeAdapter(DurationField).json_schema()["pattern"]


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("500 steps", 500, "steps"), ("1 step", 1, "steps"), ("20 epochs", 20, "epochs"), ("1 epoch", 1, "epochs"), ("  7epochs ", 7, "epochs")],
)
def test_durations_are_read(text: str, amount: int, unit: Unit) -> None:
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize("text", ["", "500", 500, 2.5, True, None, "steps", "-3 steps", "2.5 epochs", "1e3 steps", "3 hours", "3 stepss", "3 steps 4 epochs"])
def test_a_duration_without_its_unit_is_refused_with_the_rule(text: Any) -> None:
    with pytest.raises(ValueError, match="500 steps"):
        Duration.parse(text)


@given(DURATIONS)
def test_durations_survive_being_written(duration: Duration) -> None:
    assert Duration.parse(str(duration)) == duration == Duration.parse(duration)


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 200))
@example(27, 7, 3)
@example(100, 11, 10)
@settings(deadline=None)
def test_epochs_are_rounded_up_to_whole_steps(amount: int, batches: int, accumulate: int) -> None:
    """Against exact fractions: 27 epochs of 7 batches, 3 accumulated, are 63 steps and not 64."""
    assert Duration(amount, "epochs").steps(batches / accumulate) == math.ceil(Fraction(amount * batches, accumulate))


@given(st.integers(0, 10**6), st.floats(0.01, 1e6))
def test_steps_are_steps_whatever_an_epoch_is(amount: int, per_epoch: float) -> None:
    assert Duration(amount, "steps").steps(per_epoch) == amount


class Plan(BaseModel):
    length: DurationField


@given(st.from_regex(PATTERN, fullmatch=True))
@settings(deadline=None, max_examples=30)
def test_what_the_schema_admits_is_read(text: str) -> None:
    assert str(Plan.model_validate({"length": text}).length).split()[0] == str(int(text.split()[0]))


@given(DURATIONS)
def test_in_json_a_duration_is_text(duration: Duration) -> None:
    written = Plan(length=duration).model_dump_json()
    assert written == f'{{"length":"{duration}"}}'
    assert Plan.model_validate_json(written).length == duration


def test_a_spec_names_the_rule_of_a_bad_duration() -> None:
    with pytest.raises(ValidationError, match="write a whole number and its unit"):
        Plan.model_validate({"length": "soon"})


def test_seeds_stay_what_they_are() -> None:
    """Reckoned by coreutils: `printf '7\\x1fnoise\\x1f3\\x1fcat.png' | sha256sum`, first 8 bytes, little end first, halved. A change breaks every resume."""
    assert seed_for(7, "noise", 3, "cat.png") == int.from_bytes(bytes.fromhex("321150faeea99898"), "little") // 2
    assert seed_for(0, "shuffle", 0) == int.from_bytes(bytes.fromhex("785f5de0d5cc6580"), "little") // 2


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=8)
DRAWS = st.tuples(st.integers(0, 2**63 - 1), WORDS, st.lists(WORDS, max_size=3))


@given(DRAWS, DRAWS)
def test_different_draws_have_different_seeds(one: tuple[int, str, list[str]], other: tuple[int, str, list[str]]) -> None:
    assert (seed_for(one[0], one[1], *one[2]) == seed_for(other[0], other[1], *other[2])) == (one == other)


def test_neighbours_do_not_run_together() -> None:
    assert seed_for(1, "noise", 1, 23) != seed_for(1, "noise", 12, 3) != seed_for(11, "noise", 2, 3)


def test_seeds_fill_63_bits_evenly() -> None:
    seeds = [seed_for(1, "noise", step) for step in range(4096)]
    assert all(0 <= seed < 1 << 63 for seed in seeds)  # what torch.Generator.manual_seed and random.Random take
    shares = [sum(seed >> bit & 1 for seed in seeds) / 4096 for bit in range(63)]
    assert 0.46 < min(shares) <= max(shares) < 0.54  # five standard deviations
