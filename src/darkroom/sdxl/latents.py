"""Pixels to latents and back, in a precision in which the autoencoder does not overflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

from darkroom.sdxl.model import SDXL


def to_pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size to (B, 3, H, W) in -1..1."""
    array = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(array).permute(0, 3, 1, 2) / 127.5 - 1


def unit_pixels(picture: Image.Image) -> torch.Tensor:
    """A picture to (1, 3, H, W) in 0..1, as ControlNets read it."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)[None]


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in -1..1 to pictures, rounded as diffusers' VaeImageProcessor does."""
    array = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
    return [Image.fromarray(picture) for picture in (array * 255).round().astype(np.uint8)]


@contextmanager
def _safe(model: SDXL) -> Iterator[torch.dtype]:
    """SDXL's own autoencoder overflows in fp16 (its config says force_upcast): lend it fp32 for the while."""
    held = next(model.vae.parameters()).dtype
    upcast = held == torch.float16 and bool(model.vae.config.force_upcast)
    if upcast:
        model.vae.to(torch.float32)
    try:
        yield torch.float32 if upcast else held
    finally:
        if upcast:
            model.vae.to(torch.float16)


def encode(model: SDXL, pictures: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (B, 4, h, w) of the latents, float32, scaled by the autoencoder's factor."""
    return encode_pixels(model, to_pixels(pictures))


@torch.no_grad()
def encode_pixels(model: SDXL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of pixels (B, 3, H, W) in -1..1."""
    with _safe(model) as dtype:
        posterior = model.vae.encode(pixels.to(model.device, dtype)).latent_dist
    factor = float(model.vae.config.scaling_factor)
    return posterior.mean.float().cpu() * factor, posterior.std.float().cpu() * factor


@torch.no_grad()
def decode(model: SDXL, latents: torch.Tensor, tiling: bool = False) -> list[Image.Image]:
    """Scaled latents (B, 4, h, w) to pictures; `tiling` decodes overlapping tiles one by one, for large pictures on small cards."""
    with _safe(model) as dtype, _tiled(model, tiling):
        pixels = model.vae.decode(latents.to(model.device, dtype) / model.vae.config.scaling_factor).sample
    return to_pictures(pixels)


@contextmanager
def _tiled(model: SDXL, tiling: bool) -> Iterator[None]:
    if tiling:
        model.vae.enable_tiling()
    try:
        yield
    finally:
        model.vae.disable_tiling()
