"""What is minimised: one loss for each picture, unreduced, so that weights compose outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from darkroom.spec import Spec

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.schedule import Schedule
    from darkroom.sdxl.text import Text

    Predict = Callable[[torch.Tensor, torch.Tensor, "Batch"], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """latents (B, 4, h, w) scaled; text (B, ...); ids (B, 6); weight (B,): prior preservation, masks and repeats are weights, not branches."""

    latents: torch.Tensor
    text: Text
    ids: torch.Tensor
    weight: torch.Tensor


class Diffusion(Spec):
    """Denoising score matching (Ho et al. 2020, eq. 14) with min-SNR weighting."""

    kind: Literal["diffusion"] = "diffusion"
    min_snr: float = Field(5.0, ge=0, description="gamma of min-SNR (Hang et al. 2023: 5); 0 weighs all timesteps alike.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Adds a constant of this size to each channel's noise, for darks and brights (SDXL's authors: 0.05 late on; 0 is off)."
    )

    def losses(self, predict: Predict, schedule: Schedule, batch: Batch, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """(B,) weighted squared errors, float32."""
        noisy = schedule.add_noise(batch.latents, noise, t)  # (B, 4, h, w)
        target = schedule.target(batch.latents, noise, t)
        error = (predict(noisy, t, batch).float() - target.float()).square().flatten(1).mean(1)
        if self.min_snr:
            error = error * schedule.min_snr_weight(t, self.min_snr).to(error)
        return error * batch.weight
