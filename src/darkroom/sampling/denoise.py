"""THE sampling loop, and the predictions that go into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from darkroom.errors import RecipeError, did_you_mean
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}),
}


def make_sampler(name: str, config: dict[str, Any], steps: int, device: torch.device) -> Any:
    """A diffusers scheduler with its timesteps set. Raises RecipeError for an unknown name."""
    import diffusers

    if name not in SAMPLERS:
        raise RecipeError(f'sampler "{name}" is not known.{did_you_mean(name, SAMPLERS)} Known: {", ".join(SAMPLERS)}.')
    cls, changes = SAMPLERS[name]
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    sampler = getattr(diffusers, cls).from_config(kept | changes)
    sampler.set_timesteps(steps, device=device)
    return sampler


def denoise(predict: Predict, sampler: Any, x: torch.Tensor, hold: Callable[[torch.Tensor, int], torch.Tensor] | None = None) -> torch.Tensor:
    """From noise x (B, 4, h, w), already at the sampler's first sigma, to latents. `hold` may put parts back after each step (inpainting)."""
    for index, t in enumerate(sampler.timesteps):
        noise = predict(sampler.scale_model_input(x, t), t)
        x = sampler.step(noise, t, x, return_dict=False)[0]
        x = x if hold is None else hold(x, index)
    return x


def plain(model: SDXL, text: Text, ids: torch.Tensor) -> Predict:
    """The U-Net under one text: text (B, ...), ids (B, 6)."""
    extra = {"text_embeds": text.pooled, "time_ids": ids.to(model.device, text.pooled.dtype)}

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = model.unet(x.to(model.dtype), t, text.states, added_cond_kwargs=extra, return_dict=False)[0]
        return out

    return predict


def guided(model: SDXL, wanted: Text, unwanted: Text, ids: torch.Tensor, guidance: float) -> Predict:
    """Classifier-free guidance: u + g (c - u) (Ho and Salimans 2022, eq. 6), both branches as one batch. g <= 1 leaves u out."""
    if guidance <= 1:
        return plain(model, wanted, ids)
    both = plain(model, Text.stack([unwanted, wanted]), torch.cat([ids, ids]))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        without, with_ = both(torch.cat([x, x]), t).chunk(2)
        return without + guidance * (with_ - without)

    return predict


def size_ids(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, 6) float32: original height, width, crop top, left, target height, width (Podell et al. 2023, section 2.2)."""
    return torch.tensor(rows, dtype=torch.float32)
