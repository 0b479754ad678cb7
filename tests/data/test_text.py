"""Lines of text are found, and what has none is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("cv2", reason="OpenCV is not here")

from darkroom.data.picture import read_picture
from darkroom.data.text import text_share

SHARED = Path(__file__).parents[2].parent / "shared" / "assets" / "dreambooth"


def clouds(seed: int, side: int = 512) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(40, 216, (9, 9, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def written(picture: Image.Image, text: str = "SALE 50% today only", ink: int = 255) -> Image.Image:
    """Pillow carries a font of its own."""
    picture = picture.copy()
    font = ImageFont.load_default(size=picture.height / 14)
    ImageDraw.Draw(picture).text((picture.width * 0.1, picture.height * 0.4), text, (ink, ink, ink), font)
    return picture


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("seed", range(4))
def test_a_line_is_found_and_covers_about_its_box(seed: int, ink: int) -> None:
    share = text_share(written(clouds(seed), ink=ink))
    assert 0.01 < share < 0.06
    assert text_share(clouds(seed)) == 0


def test_nothing_is_read_into_things_that_stand_in_no_row() -> None:
    rng = np.random.default_rng(1)
    picture = clouds(1)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = rng.integers(0, 460, 2)
        w, h = rng.integers(10, 120, 2)
        pen.ellipse((int(x), int(y), int(x + w), int(y + h)), fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    assert text_share(picture) == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_photos_with_a_line_laid_over_them_are_told_from_those_without() -> None:
    """One photo of each subject: at most one mistake of either kind at the check's own limit."""
    from darkroom.data.checks.content import Text

    photos = [read_picture(path) for path in sorted(SHARED.glob("*/01.jpg"))]
    limit = Text().most
    assert sum(text_share(photo) > limit for photo in photos) <= 1
    assert sum(text_share(written(photo)) > limit for photo in photos) >= len(photos) - 1
