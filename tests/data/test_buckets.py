"""Buckets keep within their limits, and each picture is covered and cut about its centre, never stretched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from darkroom.data.buckets import bucket_shapes, fit
from darkroom.errors import DarkroomError

SIDES = st.integers(1, 8000)
GRIDS = st.sampled_from([(1024, 64), (1024, 32), (768, 64), (512, 64), (256, 64), (128, 32), (64, 16), (1000, 64)])  # resolution, step

# Podell et al. 2023, "SDXL", appendix I: all shapes with an aspect from 1/2 to 2, (height, width) there.
SDXL = {(704, 1408), (704, 1344), (768, 1344), (768, 1280), (832, 1216), (832, 1152), (896, 1152), (896, 1088), (960, 1088), (960, 1024), (1024, 1024)}


@given(st.integers(16, 1536), st.sampled_from([8, 16, 32, 64]), st.floats(1, 4))
@settings(deadline=None)
def test_shapes_keep_within_their_limits(resolution: int, step: int, max_aspect: float) -> None:
    assume(resolution >= step)
    shapes = bucket_shapes(resolution, step, max_aspect)
    assert shapes == sorted(set(shapes))
    for width, height in shapes:
        assert width > 0 and height > 0
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert max(width, height) / min(width, height) <= max_aspect
    assert {(height, width) for width, height in shapes} == set(shapes), "a portrait and its landscape are treated alike"
    assert (resolution // step * step,) * 2 in shapes


def test_no_shape_is_nothing() -> None:
    """A step larger than the resolution leaves no room: to be refused, or at least never offered as 0 x 0."""
    try:
        shapes = bucket_shapes(32, 64)
    except (DarkroomError, ValueError):
        return
    assert all(min(shape) > 0 for shape in shapes)


@given(SIDES, SIDES)
@settings(deadline=None)
def test_pictures_go_to_shapes_that_sdxl_was_trained_on(width: int, height: int) -> None:
    bucket = fit(width, height, bucket_shapes(1024, 64)).bucket
    assert tuple(sorted(bucket)) in SDXL


def test_square_pictures_stay_square() -> None:
    assert fit(3000, 3000, bucket_shapes(1024, 64)).bucket == (1024, 1024)
    assert fit(1024, 1024, bucket_shapes(1024, 64)).lost == 0


@given(SIDES, SIDES, GRIDS)
@settings(deadline=None, max_examples=200)
def test_the_picture_covers_its_bucket_and_the_crop_lies_inside(width: int, height: int, grid: tuple[int, int]) -> None:
    found = fit(width, height, bucket_shapes(*grid))
    (bucket_width, bucket_height), (wide, high) = found.bucket, found.resized
    assert wide >= bucket_width and high >= bucket_height
    assert 0 <= found.left <= wide - bucket_width and 0 <= found.top <= high - bucket_height
    assert wide == bucket_width or high == bucket_height, "enlarged more than covering needs"
    assert abs(wide - bucket_width - 2 * found.left) <= 1 and abs(high - bucket_height - 2 * found.top) <= 1, "not about the centre"
    scale = max(bucket_width / width, bucket_height / height)
    assert abs(wide - width * scale) <= 0.5 + 1e-6 and abs(high - height * scale) <= 0.5 + 1e-6, "stretched"
    assert 0 <= found.lost < 1


@given(SIDES, SIDES, GRIDS)
@example(1066, 1000, (1024, 64))  # nearer to 1088 x 960 in log aspect, to 1024 x 1024 in plain aspect
@settings(deadline=None)
def test_no_other_bucket_is_nearer_and_none_as_near_is_larger(width: int, height: int, grid: tuple[int, int]) -> None:
    shapes = bucket_shapes(*grid)

    def distance(shape: tuple[int, int]) -> float:
        return abs(math.log(shape[0] / shape[1] * height / width))

    chosen = fit(width, height, shapes).bucket
    assert chosen in shapes
    assert distance(chosen) <= min(map(distance, shapes)) + 1e-9
    assert chosen[0] * chosen[1] == max(w * h for w, h in shapes if w * chosen[1] == h * chosen[0])


@given(st.integers(1000, 4000), st.integers(1000, 4000))
@settings(deadline=None)
def test_little_is_cut_from_a_photo_of_a_usual_aspect(width: int, height: int) -> None:
    assume(0.5 <= width / height <= 2)
    assert fit(width, height, bucket_shapes(1024, 64)).lost < 0.13


@given(st.integers(8, 400), st.integers(8, 400))
@settings(deadline=None, max_examples=30)
def test_the_cut_picture_is_what_pillow_would_cut(width: int, height: int) -> None:
    """Against ImageOps.fit, which cuts before it scales: the same part of a smooth picture, but for a pixel of rounding."""
    assume(0.4 <= width / height <= 2.5)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    picture = Image.fromarray(np.stack([255 * x, 255 * y, 127 * (x + y)], -1).astype(np.uint8))
    found = fit(width, height, bucket_shapes(64, 16))
    cut = found.apply(picture)
    assert cut.size == found.bucket
    oracle = ImageOps.fit(picture, found.bucket, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(cut, float) - np.asarray(oracle, float)).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_and_thin_pictures_fill_their_bucket(size: tuple[int, int]) -> None:
    found = fit(*size, bucket_shapes(64, 16))
    assert found.apply(Image.new("RGB", size, "red")).getcolors() == [(found.bucket[0] * found.bucket[1], (255, 0, 0))]
