"""The noise that a step adds and the timesteps it does so at: every draw belongs to (seed, batch, picture), whatever else is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import interpolate

from darkroom.device import generator

if TYPE_CHECKING:
    from darkroom.train.objective import Diffusion


class Draws(NamedTuple):
    """noise (B, 4, h, w) is what a model that predicts noise should say; t (B,) on the CPU; shown (B, 4, h, w) is the noise that is added."""

    noise: torch.Tensor
    t: torch.Tensor
    shown: torch.Tensor


def draw_batch(objective: Diffusion, seed: int, index: int, samples: Sequence[str], latents: torch.Tensor) -> Draws:
    """Noise and timesteps of batch `index`, for latents (B, 4, h, w) of the pictures `samples`, on their device."""
    drawn = [draw(objective, seed, index, sample, latent) for sample, latent in zip(samples, latents, strict=True)]
    noise = torch.stack([each[0] for each in drawn])
    t = torch.tensor([each[1] for each in drawn])
    return Draws(noise, t, _perturbed(objective, seed, index, samples, noise))


def draw(objective: Diffusion, seed: int, index: int, sample: str, latent: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Noise (4, h, w), on the device of `latent`, and the timestep of one picture."""
    dice = generator(seed, "noise", index, sample)
    noise = torch.randn(latent.shape, generator=dice)
    t = objective.timesteps.draw(dice)  # from the same dice: which timestep a picture meets depends on nothing else that is turned on
    if objective.noise_offset:
        noise = _raised(objective, latent, noise, generator(seed, "offset", index, sample))
    if objective.pyramid:
        noise = _layered(objective, noise, generator(seed, "pyramid", index, sample))
    return noise.to(latent.device), t


def _raised(objective: Diffusion, latent: torch.Tensor, noise: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    """noise + s randn(C, 1, 1), with s = max(0, offset + a |mean of the channel|) (Guttenberg 2023; the adaptive part is sd-scripts')."""
    size = torch.full((noise.shape[0], 1, 1), objective.noise_offset)
    if objective.adaptive_offset:
        mean = latent.float().mean((1, 2), keepdim=True).cpu()
        size = (size + objective.adaptive_offset * mean.abs()).clamp(min=0)
    return noise + size * torch.randn(size.shape, generator=dice)


def _layered(objective: Diffusion, noise: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    """noise + sum over i of discount^i up(randn at size / r^i), r drawn from 2 to 4 for each layer, over its deviation (Whitaker 2023; sd-scripts).

    sd-scripts takes the deviation of the whole batch; here it is the picture's, or its noise would depend on its neighbours.
    """
    channels, height, width = noise.shape
    for layer in range(objective.pyramid):
        shrunk = (2 + 2 * float(torch.rand((), generator=dice))) ** layer
        h, w = max(1, int(height / shrunk)), max(1, int(width / shrunk))
        coarse = torch.randn(1, channels, h, w, generator=dice)
        noise = noise + objective.pyramid_discount**layer * interpolate(coarse, (height, width), mode="bilinear")[0]
        if h == 1 or w == 1:
            break
    return noise / noise.std()


def _perturbed(objective: Diffusion, seed: int, index: int, samples: Sequence[str], noise: torch.Tensor) -> torch.Tensor:
    """noise + gamma randn: what is added, while the target stays the noise alone (Ning et al. 2023, algorithm 1)."""
    if not objective.perturbation:
        return noise
    more = [torch.randn(noise.shape[1:], generator=generator(seed, "perturbation", index, sample)) for sample in samples]
    return noise + objective.perturbation * torch.stack(more).to(noise.device)
