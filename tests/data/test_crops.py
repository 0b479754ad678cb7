"""A crop lies inside its picture, where it was asked to be, and depends on nothing but (seed, epoch, sample)."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.data.buckets import Fit, bucket_shapes, fit, fit_down, ladder
from darkroom.data.crops import crop_at, crop_count, cropped, placed, window

SIDES = st.integers(64, 6000)
PARTS = st.floats(0, 1)
SHAPES = bucket_shapes(1024, 64)


@given(SIDES, SIDES, st.tuples(PARTS, PARTS))
@settings(max_examples=200)
def test_the_subject_is_as_near_to_the_middle_as_the_edges_allow(width: int, height: int, focus: tuple[float, float]) -> None:
    found = placed(fit(width, height, SHAPES), focus)
    assert (found.bucket, found.resized) == (fit(width, height, SHAPES).bucket, fit(width, height, SHAPES).resized), "only the place changes"
    for start, part, whole, at in zip((found.left, found.top), found.bucket, found.resized, focus, strict=True):
        assert 0 <= start <= whole - part
        off = abs(start + part / 2 - at * whole)
        assert off <= 0.5 or start in (0, whole - part), "away from the subject although there is room"


def test_the_subject_stays_in_the_picture() -> None:
    """A red spot at the left of a wide picture: the centre crop loses it, the subject crop keeps it."""
    picture = Image.new("RGB", (400, 100), "blue")
    picture.paste("red", (20, 40, 40, 60))
    plain = fit(400, 100, bucket_shapes(64, 64))
    aimed = placed(plain, (30 / 400, 0.5))
    assert np.asarray(plain.apply(picture))[..., 0].max() < 50
    assert np.asarray(aimed.apply(picture))[..., 0].max() > 200


@given(SIDES, SIDES, st.integers(0, 99), st.integers(0, 99), st.sampled_from([1, 4, 8]))
def test_a_random_crop_lies_inside_on_the_grain_and_comes_again(width: int, height: int, seed: int, epoch: int, grain: int) -> None:
    plain = fit(width, height, SHAPES)
    found = crop_at(plain, seed, epoch, "a", grain)
    assert found == crop_at(plain, seed, epoch, "a", grain)
    assert 0 <= found.left <= plain.resized[0] - plain.bucket[0] and 0 <= found.top <= plain.resized[1] - plain.bucket[1]
    assert found.left % grain == found.top % grain == 0


def test_random_crops_differ_and_every_place_is_as_likely() -> None:
    plain = Fit((64, 64), (64, 96), 16, 0)
    drawn = Counter(crop_at(plain, 0, epoch, f"s{sample}", 8).top for epoch in range(40) for sample in range(50))
    assert set(drawn) == {0, 8, 16, 24, 32} and crop_count(plain, 8) == 5
    expected = 2000 / 5
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 18.5, "chi-square with 4 degrees of freedom, 0.1 %"
    assert len({crop_at(plain, seed, 0, "s", 1).top for seed in range(20)}) > 5


def test_the_three_kinds() -> None:
    plain = fit(2000, 1000, SHAPES)
    assert cropped(plain, "centre", (0.1, 0.1), 0, 0, "s") == plain
    assert cropped(plain, "subject", None, 0, 0, "s") == plain
    assert cropped(plain, "subject", (0.1, 0.1), 0, 0, "s") == placed(plain, (0.1, 0.1))
    assert cropped(plain, "random", None, 3, 4, "s", 8) == crop_at(plain, 3, 4, "s", 8)


@given(SIDES, SIDES)
def test_the_window_is_what_is_not_lost(width: int, height: int) -> None:
    found = fit(width, height, SHAPES)
    left, top, right, bottom = window(found)
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    assert math.isclose((right - left) * (bottom - top), 1 - found.lost, abs_tol=1e-9)


@pytest.mark.parametrize(("resolution", "step"), [(1024, 64), (512, 64), (64, 16), (64, 64)])
def test_the_ladder_goes_down_to_a_quarter(resolution: int, step: int) -> None:
    rungs = ladder(resolution, step)
    assert rungs[0] == bucket_shapes(resolution, step)
    assert rungs[-1] == bucket_shapes(max(step, resolution // 4), step)
    areas = [max(w * h for w, h in shapes) for shapes in rungs]
    assert areas == sorted(areas, reverse=True)


@given(SIDES, SIDES)
@settings(max_examples=200)
def test_nothing_is_enlarged_that_fits_somewhere(width: int, height: int) -> None:
    rungs = ladder(1024, 64)
    found = fit_down(width, height, rungs)
    fitting = [one for one in (fit(width, height, shapes) for shapes in rungs) if not one.enlarges(width, height)]
    if fitting:
        assert found == fitting[0], "the first rung that fits"
        assert found.resized[0] <= width and found.resized[1] <= height
    else:
        assert found.enlarges(width, height), "the preflight can tell"
    if not fit(width, height, SHAPES).enlarges(width, height):
        assert found == fit(width, height, SHAPES), "large pictures are cut as before"


@given(SIDES, SIDES, st.floats(1, 4))
def test_enlarging_keeps_to_what_was_asked(width: int, height: int, most: float) -> None:
    found = fit_down(width, height, ladder(1024, 64), most)
    assert found.enlarges(width, height, most) == (found.resized[0] > width * most or found.resized[1] > height * most)
    assert fit_down(width, height, ladder(1024, 64), math.inf) == fit(width, height, SHAPES)
