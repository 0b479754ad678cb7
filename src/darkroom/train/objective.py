"""What is minimised: one loss for each picture, unreduced, so that weights compose outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from darkroom.errors import RecipeError
from darkroom.spec import Spec
from darkroom.train.loss import Loss, Squared, over_picture
from darkroom.train.timesteps import Timesteps, Uniform

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.schedule import Schedule
    from darkroom.sdxl.text import Text

    Predict = Callable[[torch.Tensor, torch.Tensor, "Batch"], torch.Tensor]

DISCOUNT = 0.3


@dataclass(frozen=True)
class Batch:
    """latents (B, 4, h, w) scaled; text (B, ...); ids (B, 6); weight (B,): prior preservation and repeats are weights, not branches.

    mask (B, 1, h, w) from 0 to 1: how much each place of a picture is learned; None is all of it. condition (B, 3, H, W) from 0 to 1: what a ControlNet reads.
    """

    latents: torch.Tensor
    text: Text
    ids: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor | None = None
    condition: torch.Tensor | None = None


class Diffusion(Spec):
    """Denoising score matching (Ho et al. 2020, eq. 14) with min-SNR weighting."""

    kind: Literal["diffusion"] = "diffusion"
    prediction: Literal["model", "epsilon", "v_prediction"] = Field(
        "model", description="What the U-Net says: what the base's scheduler names, or else the noise or v (Salimans and Ho 2022)."
    )
    zero_terminal_snr: bool = Field(
        False, description="The last timestep is noise alone, so that pictures may be all dark or all bright (Lin et al. 2023). Wants v prediction."
    )
    min_snr: float = Field(5.0, ge=0, description="gamma of min-SNR (Hang et al. 2023: 5); 0 weighs all timesteps alike.")
    debiased: bool = Field(False, description="Weighs timesteps by the signal left in them instead (Yu et al. 2023; sd-scripts: debiased_estimation_loss).")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Adds a constant of this size to each channel's noise, for darks and brights (SDXL's authors: 0.05 late on; 0 is off)."
    )
    adaptive_offset: float = Field(
        0.0, ge=-1, le=1, description="Times the size of the channel's mean in the picture, added to noise_offset (sd-scripts: adaptive_noise_scale)."
    )
    pyramid: int = Field(0, ge=0, le=16, description="Layers of ever coarser noise that are added (Whitaker 2023: 10; sd-scripts advises 6 to 10; 0 is off).")
    pyramid_discount: float = Field(DISCOUNT, gt=0, le=1, description="How much each coarser layer counts of the one before (sd-scripts: 0.3).")
    perturbation: float = Field(
        0.0, ge=0, le=1, description="Shows the model this much more noise than it is asked for (Ning et al. 2023: 0.1; sd-scripts: ip_noise_gamma)."
    )
    loss: Loss = Field(Squared(), description="How an error counts: l2, l1, huber, smooth_l1.")
    timesteps: Timesteps = Field(Uniform(), description="Which timesteps are learned, and how often: uniform, logit_normal, cubic, portion.")
    unmasked_weight: float = Field(0.1, ge=0, le=1, description="What counts outside of a mask, where pictures have one (OneTrainer: 0.1; sd-scripts: 0).")

    @model_validator(mode="after")
    def _has_a_meaning(self) -> Diffusion:
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "zero_terminal_snr with epsilon prediction has no meaning: at the last timestep the input is the noise itself, nothing is left to be learned "
                'there, and weights such as min-SNR divide by an SNR of 0. Set prediction = "v_prediction", or zero_terminal_snr = false'
            )
        if self.debiased and self.min_snr:
            raise ValueError("debiased and min_snr weigh the same timesteps twice. Set min_snr = 0, or debiased = false")
        if self.adaptive_offset and not self.noise_offset:
            raise ValueError("adaptive_offset adapts noise_offset, which is 0, so that no offset is added. Set noise_offset too, for example to 0.05")
        if not self.pyramid and self.pyramid_discount != DISCOUNT:
            raise ValueError("pyramid_discount is of the layers of pyramid, which is 0, so that there are none. Set pyramid too, for example to 6")
        return self

    def schedule(self, own: Schedule) -> Schedule:
        """The model's own schedule as it is trained with."""
        found = own if self.prediction == "model" else own.predicting(self.prediction)
        return found.zero_terminal() if self.zero_terminal_snr else found

    def check(self, own: Schedule) -> None:
        """Raises RecipeError where this cannot be learned with a model of the schedule `own`."""
        self.timesteps.check(own.length)
        used = self.schedule(own)
        if used.ends_in_noise and used.prediction == "epsilon":
            whose = "objective.zero_terminal_snr is set" if self.zero_terminal_snr else "the base's scheduler has zero-terminal SNR (rescale_betas_zero_snr)"
            raise RecipeError(
                f"{whose}, and the base predicts noise (epsilon): at the last timestep the input is the noise itself, nothing is left to be learned there, and "
                'weights such as min-SNR divide by an SNR of 0. Set objective.prediction = "v_prediction"'
                + (", or objective.zero_terminal_snr = false." if self.zero_terminal_snr else ".")
            )

    def remarks(self, own: Schedule) -> tuple[str, ...]:
        """What a person should know before the training, although it is allowed."""
        used, found = self.schedule(own), []
        if used.prediction != own.prediction:
            found.append(
                f"The base predicts {own.prediction} and is to learn {used.prediction}: its first loss is large, a small adapter seldom gets there, and "
                "what comes out draws rightly only with a scheduler that is told so."
            )
        if used.ends_in_noise and self.min_snr:
            found.append("At the last timestep the SNR is 0 and min-SNR's weight too: what zero-terminal SNR is for is not learned. Set objective.min_snr = 0.")
        if used.ends_in_noise and (self.noise_offset or self.pyramid):
            found.append("Zero-terminal SNR does exactly what noise_offset and pyramid do roughly, and drawing starts from plain noise: leave them at 0.")
        return tuple(found)

    def drawn_with(self, config: dict[str, Any]) -> dict[str, Any]:
        """The base's scheduler_config.json as what is learned wants it: previews and saved models use it (Lin et al. 2023, section 3.3: trailing)."""
        changed = dict(config) if self.prediction == "model" else {**config, "prediction_type": self.prediction}
        return changed | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if self.zero_terminal_snr else changed

    def losses(
        self, predict: Predict, schedule: Schedule, batch: Batch, noise: torch.Tensor, t: torch.Tensor, shown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B,) weighted errors, float32. `shown` is the noise that is added where it is not the noise that is learned (perturbation)."""
        noisy = schedule.add_noise(batch.latents, noise if shown is None else shown, t)  # (B, 4, h, w)
        target = schedule.target(batch.latents, noise, t)
        errors = self.loss.errors(predict(noisy, t, batch).float() - target.float(), schedule, t)
        error = over_picture(errors, batch.mask, self.unmasked_weight)
        if self.min_snr:
            error = error * schedule.min_snr_weight(t, self.min_snr).to(error)
        if self.debiased:
            error = error * schedule.debiased_weight(t).to(error)
        return error * batch.weight
