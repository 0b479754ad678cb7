"""Pictures made into what a ControlNet reads: edges, depth, colours."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from darkroom.device import quiet_libraries
from darkroom.errors import ModelError, RecipeError
from darkroom.fence import hand_over

DEPTH = "Intel/dpt-hybrid-midas"
Kind = Literal["as_is", "edge", "depth", "colour"]


def prepare(kind: Kind, picture: Image.Image, size: tuple[int, int], device: torch.device, depth_model: str = DEPTH) -> Image.Image:
    """The picture (RGB) as a condition of `size` (width, height): "as_is", "edge" (Canny, 100 and 200), "colour" (flat blocks) or "depth".

    Raises RecipeError where OpenCV is missing, ModelError where the depth model cannot be loaded.
    """
    match kind:
        case "as_is":
            return _sized(picture, size)
        case "edge":
            return edges(_sized(picture, size))
        case "colour":
            return blocks(_sized(picture, size))
        case "depth":
            return depth(_sized(picture, size), device, depth_model)
    raise RecipeError(f'prepare "{kind}" is not known. Known: as_is, edge, depth, colour.')


def _sized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def opencv() -> Any:
    """The module cv2. Raises RecipeError where it is not installed."""
    try:
        import cv2
    except ImportError:
        raise RecipeError('finding edges and faces needs OpenCV: pip install "sdxl-darkroom[vision]"') from None
    return cv2


def edges(picture: Image.Image) -> Image.Image:
    """White edges on black (Canny 1986; thresholds 100 and 200, as ControlNet's own examples have them)."""
    found = opencv().Canny(np.asarray(picture.convert("RGB")), 100, 200)
    return Image.fromarray(found).convert("RGB")


def blocks(picture: Image.Image) -> Image.Image:
    """Flat blocks of colour, a sixty-fourth of a side each but at least 8 a side (the colour condition of T2I-Adapter, Mou et al. 2023)."""
    few = (max(8, picture.width // 64), max(8, picture.height // 64))
    return picture.convert("RGB").resize(few, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


@torch.no_grad()
def depth(picture: Image.Image, device: torch.device, source: str = DEPTH) -> Image.Image:
    """Nearness as grey, 0 to 255, by a depth-estimation model of transformers: folder or hub id."""
    seer = _seer(source, device)
    pixels = np.asarray(picture.convert("RGB").resize(seer.size, Image.Resampling.BICUBIC), np.float32) / 255
    inputs = torch.from_numpy((pixels - np.asarray(seer.mean, np.float32)) / np.asarray(seer.spread, np.float32)).permute(2, 0, 1)[None].to(device)
    raw = seer.model(pixel_values=inputs).predicted_depth.float().cpu()[None]
    near = torch.nn.functional.interpolate(raw, size=(picture.height, picture.width), mode="bicubic", antialias=True)[0, 0]
    grey = (near - near.min()) / (near.max() - near.min()).clamp(min=1e-8) * 255
    return Image.fromarray(grey.round().numpy().astype(np.uint8)).convert("RGB")


class _Seer(NamedTuple):
    """A depth model, and what it reads: pixels (width, height), less a mean and over a spread for each colour."""

    model: Any
    size: tuple[int, int]
    mean: list[float]
    spread: list[float]


@lru_cache(maxsize=1)
def _seer(source: str, device: torch.device) -> _Seer:
    from transformers import AutoModelForDepthEstimation

    try:
        with quiet_libraries():
            model = AutoModelForDepthEstimation.from_pretrained(hand_over(source)).to(device).eval()
    except Exception as error:  # transformers raises many kinds here; all of them mean that this cannot be loaded
        raise ModelError(f"{source}: cannot be loaded as a depth model: {str(error).splitlines()[0]} Give a depth picture with prepare=as_is.") from None
    told = _told(source)
    side = getattr(model.config, "image_size", None) or 384
    height, width = (side, side) if isinstance(side, int) else side
    size = told.get("size") or {}
    half = [0.5] * 3  # MiDaS' own
    return _Seer(model, (size.get("width", width), size.get("height", height)), told.get("image_mean") or half, told.get("image_std") or half)


def _told(source: str) -> dict[str, Any]:
    """The model's preprocessor_config.json, or nothing where it has none. transformers' processors themselves may want torchvision."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        with quiet_libraries():
            told: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(source)[0]
    except OSError:
        return {}
    return told
