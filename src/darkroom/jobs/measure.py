"""What is measured of a picture only where it was asked for. Each has a number that counts up when it is computed otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from darkroom.data.picture import read_picture

SIDE = 1024  # pixels: larger pictures are reduced first


def measure(name: str, path: Path) -> float:
    """Measure `name` of the picture. Raises DatasetError where it cannot be read, RecipeError where OpenCV is missing."""
    picture = read_picture(path)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return MEASURES[name][1](picture)


def _faces(picture: Image.Image) -> float:
    from darkroom.sampling.keep import find_faces

    return float(len(find_faces(picture)))


def _text(picture: Image.Image) -> float:
    from darkroom.data.text import text_share

    return text_share(picture)


MEASURES: dict[str, tuple[int, Callable[[Image.Image], float]]] = {"faces": (1, _faces), "text": (1, _text)}
