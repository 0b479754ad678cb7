"""Timesteps are drawn as the known programs draw them: against the distribution written out, and never outside of the range."""

import math
from collections import Counter

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binom, norm

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.train.timesteps import Cubic, LogitNormal, Portion, Uniform

DRAWS = 3000


def drawn(kind):
    return [kind.draw(generator(7, "noise", index, "picture")) for index in range(DRAWS)]


def near(shares, below):
    """Each share of draws below a timestep is what the distribution says, within what chance allows once in a million."""
    for t, expected in below.items():
        few, many = binom.interval(1 - 1e-6, DRAWS, expected)
        assert few <= shares[t] <= many, (t, shares[t] / DRAWS, expected)


def counted(found, places):
    return {t: sum(each < t for each in found) for t in places}


def test_uniform_reaches_every_timestep_of_its_range_and_no_other():
    found = drawn(Uniform(low=190, high=210))
    assert set(found) == set(range(190, 210))
    near(counted(found, [195, 200, 205]), {195: 0.25, 200: 0.5, 205: 0.75})


def test_uniform_over_all_is_what_a_plain_draw_gives():
    for index in range(20):
        assert Uniform().draw(generator(1, "noise", index, "a")) == int(torch.randint(1000, (1,), generator=generator(1, "noise", index, "a")))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.5), (-1.0, 2.0)])
def test_logit_normal(mean, std):
    found = drawn(LogitNormal(mean=mean, std=std, low=100, high=900))
    expected = {t: norm.cdf((math.log((t - 100) / (900 - t)) - mean) / std) for t in (180, 300, 500, 700, 820)}
    near(counted(found, expected), expected)
    assert min(found) >= 100 and max(found) < 900


@pytest.mark.parametrize("favour", ["noise", "picture"])
def test_cubic(favour):
    found = drawn(Cubic(favour=favour))
    places = (50, 250, 500, 750, 950)
    expected = {t: (t / 1000) ** (1 / 3) if favour == "picture" else 1 - (1 - t / 1000) ** (1 / 3) for t in places}
    near(counted(found, expected), expected)
    assert min(found) >= 0 and max(found) <= 999


def test_a_portion_is_drawn_so_many_times_as_often():
    found = Counter("in" if 750 <= t < 1000 else "out" for t in drawn(Portion(begin=750, end=1000, times=5)))
    share = 250 * 5 / (250 * 5 + 750)
    few, many = binom.interval(1 - 1e-6, DRAWS, share)
    assert few <= found["in"] <= many


def test_a_rare_portion_of_a_range():
    found = drawn(Portion(low=100, high=200, begin=150, end=160, times=0.001))
    assert min(found) >= 100 and max(found) < 200
    assert sum(150 <= t < 160 for t in found) < 10


@pytest.mark.parametrize("kind", [Uniform, LogitNormal, Cubic, Portion])
def test_an_empty_range_is_refused(kind):
    with pytest.raises(ValidationError, match="no timestep is left"):
        kind(low=500, high=500)


def test_a_portion_outside_of_the_range_is_refused():
    with pytest.raises(ValidationError, match="must be a part of low = 0 to high = 200"):
        Portion(high=200, begin=150, end=300)


def test_more_timesteps_than_the_model_has_are_refused():
    with pytest.raises(RecipeError, match=r"high = 1000: the model has 50 timesteps\. Set it to at most 50"):
        Uniform().check(50)
