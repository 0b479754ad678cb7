"""What a ControlNet reads beside each picture that it learns from: made from the picture, or its pair from another folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from darkroom.data.dataset import Photo
from darkroom.data.picture import ENDINGS, read_picture
from darkroom.errors import DatasetError
from darkroom.methods import ControlNet
from darkroom.sampling.control import prepare
from darkroom.sdxl.latents import unit_pixels


def condition(method: ControlNet, photo: Photo, cut: Callable[[Image.Image], Image.Image], device: torch.device) -> torch.Tensor:
    """(3, H, W) from 0 to 1; `cut` crops and mirrors as the picture was. Raises DatasetError where the pair is missing or of another size."""
    picture = cut(read_picture(pair(method, photo)) if method.pairs else photo.read())
    return unit_pixels(prepare(method.condition, picture, picture.size, device, method.depth_model))[0]


def pair(method: ControlNet, photo: Photo) -> Path:
    """The file that lies beside a photo in the folder of pairs. Raises DatasetError."""
    found = sorted(path for path in Path(method.pairs).glob(f"{photo.path.stem}.*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise DatasetError(f"{method.pairs}: holds no picture called {photo.path.stem}, the pair of {photo.path}. Add it, or take that picture out.")
    size = read_picture(found[0]).size
    if size != (photo.width, photo.height):
        raise DatasetError(f"{found[0]}: is {size[0]} x {size[1]}, and {photo.path} is {photo.width} x {photo.height}. A pair has one size.")
    return found[0]
