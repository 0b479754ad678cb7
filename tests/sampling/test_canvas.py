"""Outpainting's canvas: the picture in its place, the rest to be drawn."""

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.sampling.canvas import extend


def test_the_picture_stays_where_it_is_kept():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    canvas, mask = extend(picture, 16, 0, 32, 8)
    assert canvas.size == mask.size == (112, 56)
    drawn = np.asarray(mask) == 255
    assert drawn[:, :16].all() and drawn[:, 80:].all() and drawn[48:].all()
    whole = np.zeros((56, 112, 3), np.uint8)
    whole[:48, 16:80] = np.asarray(picture)
    assert np.array_equal(np.asarray(canvas)[~drawn], whole[~drawn])
    assert not drawn[0, 30] and drawn[47, 30] and (~drawn).sum() == (64 - 16) * (48 - 8)
    assert np.abs(np.asarray(canvas, float)[:48, :16].mean((0, 1)) - np.asarray(picture, float).mean((0, 1))).max() < 30


@pytest.mark.parametrize("sides", [(0, 0, 0, 0), (-1, 0, 0, 5), (300, 0, 0, 0)])
def test_sides_that_make_no_sense(sides):
    with pytest.raises(RecipeError, match="outpaint"):
        extend(Image.new("RGB", (64, 64)), *sides)


def test_far_sides_are_filled():
    canvas, _ = extend(Image.new("RGB", (16, 16), (10, 200, 30)), 60, 0, 0, 0)
    assert np.abs(np.asarray(canvas, int) - (10, 200, 30)).max() <= 1


@pytest.mark.parametrize(("overlap", "reach"), [(0, 0), (-3, 0), (5, 5), (100, 8)])
def test_the_overlap_is_at_most_a_quarter_of_the_shorter_side(overlap, reach):
    _, mask = extend(Image.new("RGB", (64, 32)), 10, 0, 0, 0, overlap)
    assert mask.getbbox() == (0, 0, 10 + reach, 32)
