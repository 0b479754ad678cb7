"""The subject is found where it was put: by the mask first, then by the largest face, then by what stands out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darkroom.data.focus import focus_of, middle, saliency
from darkroom.data.picture import read_picture


def noisy(size: tuple[int, int], seed: int) -> Image.Image:
    """A background with a slope of brightness and noise."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    grey = 90 + 40 * x / size[0] + 30 * y / size[1]
    return Image.fromarray(np.clip(grey[..., None] + dice.normal(0, 8, (*grey.shape, 3)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("place", [(0.2, 0.5), (0.8, 0.5), (0.35, 0.6), (0.5, 0.5), (0.7, 0.3)])
@pytest.mark.parametrize("size", [(320, 200), (200, 320), (90, 60)])
def test_what_stands_out_is_found(place: tuple[float, float], size: tuple[int, int]) -> None:
    picture = noisy(size, 3)
    x, y, r = place[0] * size[0], place[1] * size[1], min(size) / 7
    ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), "orange")
    found = focus_of(picture)
    assert abs(found[0] - place[0]) < 0.08 and abs(found[1] - place[1]) < 0.08


def test_a_plain_picture_is_aimed_at_its_middle() -> None:
    found = focus_of(Image.new("RGB", (300, 200), "teal"))
    assert abs(found[0] - 0.5) < 0.02 and abs(found[1] - 0.5) < 0.02


def test_the_mask_wins_over_a_face_and_a_face_over_the_rest() -> None:
    picture = noisy((200, 100), 1)
    mask = Image.new("L", (200, 100))
    mask.paste(255, (20, 10, 40, 30))
    faces = [(150, 50, 160, 60), (100, 60, 140, 100)]
    assert focus_of(picture, mask, faces) == pytest.approx((0.15, 0.2), abs=0.01)
    assert focus_of(picture, faces=faces) == pytest.approx((0.6, 0.8))


def test_the_middle_is_the_median() -> None:
    assert middle(np.zeros((4, 8))) == (0.5, 0.5)
    assert middle(np.ones((4, 8))) == pytest.approx((0.5, 0.5))
    spread = np.zeros((10, 10))
    spread[4, 2], spread[5, 2], spread[9, 9] = 5, 5, 1
    assert middle(spread)[0] == pytest.approx(np.interp(5.5, [0, 10], [0.2, 0.3]))


def test_saliency_is_small_and_finite() -> None:
    found = saliency(noisy((3000, 40), 0))
    assert found.shape == (8, 64) and np.isfinite(found).all() and found.min() >= 0


@pytest.mark.parametrize(
    ("photo", "box"), [("duck_toy/00.jpg", (0.17, 0.2, 0.67, 0.73)), ("teapot/01.jpg", (0.2, 0.3, 0.6, 0.75)), ("dog/00.jpg", (0.2, 0.08, 0.8, 1))]
)
def test_the_subject_of_a_photo_cut_off_centre(shared: Path, photo: str, box: tuple[float, float, float, float]) -> None:
    """The point lies in the hand-drawn box (as parts of the photo), also where the box lies in the left or the right of what is left."""
    whole = read_picture(shared / "assets" / "dreambooth" / photo)
    for start in (0.0, max(0.0, box[0] - 0.05)):
        part = whole.crop((round(start * whole.width), 0, round(min(1, start + 0.85) * whole.width), whole.height))
        x, y = focus_of(part)
        assert box[0] <= start + x * part.width / whole.width <= box[2] and box[1] <= y <= box[3]
