"""Where a picture starts: noise that belongs to its seed alone, a picture under noise, or a picture of which only a part is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.device import generator


def noise(seed: int, width: int, height: int, factor: int, purpose: str = "start") -> torch.Tensor:
    """(1, 4, height / factor, width / factor) float32, drawn on the CPU: the same on every device and in every batch."""
    return torch.randn(1, 4, height // factor, width // factor, generator=generator(seed, purpose))


def chance(seeds: Sequence[int], purpose: str) -> Callable[[int], Any]:
    """Generators for the step of a sampler that draws noise: a pure function of (seed, purpose, step)."""

    def of_step(index: int) -> Any:
        found = [generator(seed, purpose, index) for seed in seeds]
        return found if len(found) > 1 else found[0]

    return of_step


def under_noise(sampler: Any, latents: torch.Tensor, fresh: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """img2img: the picture's latents (B, 4, h, w) with as much noise as the first timestep has."""
    noisy: torch.Tensor = sampler.add_noise(latents, fresh, timesteps[:1].repeat(len(latents)))
    return noisy


def holding(sampler: Any, latents: torch.Tensor, fresh: torch.Tensor, drawn: torch.Tensor, timesteps: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Inpainting: after each step what is not drawn is put back, with as much noise as the next step expects.

    latents, fresh (B, 4, h, w); drawn (1, 1, h, w) is 1 where the picture is drawn and 0 where it stays (diffusers' 4-channel inpainting).
    """

    def hold(x: torch.Tensor, index: int) -> torch.Tensor:
        stays = latents
        if index < len(timesteps) - 1:
            stays = sampler.add_noise(latents, fresh, torch.tensor([timesteps[index + 1]]))
        return (1 - drawn) * stays + drawn * x

    return hold


def mask_pixels(mask: Image.Image) -> torch.Tensor:
    """An "L" picture to (1, 1, H, W) in 0..1."""
    return torch.from_numpy(np.asarray(mask, np.float32) / 255)[None, None]


def latent_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """(1, 1, H, W) in 0..1 to (1, 1, h, w), 0 or 1: nearest, as diffusers does it."""
    size = (mask.shape[-2] // factor, mask.shape[-1] // factor)
    return torch.nn.functional.interpolate((mask >= 0.5).float(), size=size)
