"""The copy score is high for copies and low for other pictures of the same subject; its correlation is what plain loops give."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, ModelError
from darkroom.metrics import Copying, Given
from darkroom.metrics.overlay import BAND, REACH, SIDE, ZOOMS, _window, agreement, mirrored, spectra

PHOTOS = Path(__file__).parents[3] / "shared" / "assets" / "dreambooth"
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def drawing(seed: int, size: tuple[int, int] = (160, 160)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def copies(picture: Image.Image) -> Iterator[tuple[str, Image.Image, float]]:
    """Name, copy, and the score it must reach."""
    w, h = picture.size
    yield "JPEG 40", compressed(picture, 40), 98
    yield "half the size", picture.resize((w // 2, h // 2)), 98
    yield "mirrored", picture.transpose(MIRROR), 98
    yield "brighter", picture.point(lambda value: min(255, value * 0.7 + 60)), 98
    yield "blurred", picture.filter(ImageFilter.GaussianBlur(w / 100)), 98
    yield "cropped by 15 %", picture.crop((int(0.15 * w), int(0.15 * h), int(0.85 * w), int(0.85 * h))), 97
    yield "another shape", picture.crop((0, h // 8, w, h - h // 8)), 97
    yield "moved by 7 %", picture.crop((int(0.07 * w), 0, w, int(0.93 * h))), 85
    yield "mirrored, cut and compressed", compressed(picture.transpose(MIRROR).crop((w // 25, h // 16, w - w // 25, h - h // 50)), 50), 88


def test_the_correlation_is_what_rolling_and_multiplying_gives() -> None:
    """Every shift by hand, on the pictures that the bands stand for."""
    one, other = (spectra(drawing(seed))[:1] for seed in (1, 2))
    full = []
    for band in (one[0], other[0]):
        whole = np.zeros((SIDE, SIDE // 2 + 1), complex)
        whole[np.arange(-BAND, BAND + 1), : BAND + 1] = band
        full.append(np.fft.irfft2(whole, (SIDE, SIDE)) * SIDE)
    shifts = range(-REACH, REACH + 1)
    expected = max(float((full[0] * np.roll(full[1], (y, x), (0, 1))).sum()) for y in shifts for x in shifts)
    assert np.linalg.norm(full[0]) == pytest.approx(1, rel=1e-5)
    assert float(agreement(one, other)[0]) == pytest.approx(expected, abs=1e-5)
    assert float(agreement(one, one)[0]) == pytest.approx(1, abs=1e-5)


def test_the_mirrored_spectrum_is_the_mirrored_pictures() -> None:
    picture = drawing(3)
    np.testing.assert_allclose(mirrored(spectra(picture)), spectra(picture.transpose(MIRROR)), atol=2e-3)
    assert spectra(picture).shape == (len(ZOOMS), 2 * BAND + 1, BAND + 1)
    taper, _ = _window()
    np.testing.assert_allclose(taper, taper[:, ::-1])


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos of ../shared/assets are not here")
@pytest.mark.parametrize("name", ["dog", "vase", "backpack"])
def test_copies_are_found_and_other_photos_of_the_subject_are_not(name: str) -> None:
    photos = [read_picture(path).resize((400, 400)) for path in sorted((PHOTOS / name).glob("*.jpg"))]
    metric = Copying(Given(training=photos))
    for planted, picture, least in copies(photos[1]):
        score, place = metric.nearest([picture])[0]
        assert score >= least and place == 1, f"{planted}: {score:.1f}, nearest to {place}"
    for left in range(len(photos)):
        others = Copying(Given(training=[photo for i, photo in enumerate(photos) if i != left]))
        assert others([photos[left]], [""])[0] < metric.copy_from - 5, "another photo of the same subject is no copy"


def test_every_kind_of_copy_of_a_drawing() -> None:
    """Offline: made pictures, no other is near."""
    training = [drawing(seed) for seed in range(6)]
    metric = Copying(Given(training=training))
    for planted, picture, least in copies(training[2]):
        assert metric.nearest([picture])[0] == (pytest.approx(100, abs=100 - least), 2), planted
    assert max(metric([drawing(seed) for seed in range(50, 60)], [""] * 10)) < 60


def test_nothing_on_paper_is_a_copy_of_nothing() -> None:
    plain = Image.new("RGB", (64, 64), "white")
    assert Copying(Given(training=[plain, drawing(1)]))([plain], [""]) == [0.0]


def test_without_training_pictures_it_is_refused() -> None:
    with pytest.raises(DatasetError, match="--training"):
        Copying(Given())


class Squares(torch.nn.Module):
    """Stands in for SSCD: the mean colour of 4 x 4 squares."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, (4, 4)).flatten(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sscd_by_its_file(tmp_path: Path) -> None:
    """A TorchScript file is asked with 320 px and ImageNet's colours, and mirror images count: against the same by hand."""
    torch.jit.script(Squares()).save(str(tmp_path / "sscd.pt"))
    training, picture = [drawing(1), drawing(2)], drawing(2).transpose(MIRROR)
    metric = Copying(Given(training=training, models={"copying": str(tmp_path / "sscd.pt")}))

    def seen(one: Image.Image) -> torch.Tensor:
        array = np.asarray(one.resize((320, 320), Image.Resampling.BILINEAR), np.float64) / 255
        pixels = torch.from_numpy((array - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).permute(2, 0, 1)[None]
        return torch.nn.functional.normalize(Squares()(pixels), dim=-1)[0]

    expected = [max(float(seen(picture) @ seen(side)) for side in (one, one.transpose(MIRROR))) for one in training]
    assert metric.nearest([picture])[0] == (pytest.approx(100 * max(expected), abs=1e-3), 1)
    assert metric.copy_from == 50 and metric.key != Copying(Given(training=training)).key


def test_a_file_that_is_no_sscd_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is not a TorchScript file"):
        Copying(Given(training=[drawing(1)], models={"copying": str(tmp_path / "no.pt")}))
