"""Adafactor: the second average as a row and a column rather than a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from darkroom.train.optimizers.libraries import Groups, one_rate
from darkroom.train.rates import Paced

if TYPE_CHECKING:
    import torch


class Adafactor(Paced):
    """Factored second moments (Shazeer and Stern 2018), transformers'. As it stands it is what sd-scripts recommends for SDXL: a rate of its own, no scaling
    by the size of the weights; that recipe has rate = 4e-7 and warmup = 100 for the whole U-Net, and train.max_grad_norm large, since it clips by itself."""

    kind: Literal["adafactor"] = "adafactor"
    rate: float = Field(1e-4, gt=0, lt=1e6, description="Learning rate (sd-scripts, whole U-Net: 4e-7). 1 with relative_step, which sets its own.")
    eps: tuple[float, float] = Field((1e-30, 1e-3), description="Added to squared gradients; least size of weights (transformers' defaults).")
    clip_threshold: float = Field(1.0, gt=0, description="Updates are scaled down to this root mean square (the paper: 1).")
    decay_rate: float = Field(-0.8, ge=-1, lt=0, description="Exponent of the averages' decay, 1 - step^decay_rate (the paper: -0.8).")
    beta1: float | None = Field(None, ge=0, lt=1, description="Decay of a first average, which costs the memory that is saved; none by default.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (transformers: 0).")
    scale_parameter: bool = Field(False, description="The rate is a multiple of the weights' root mean square (sd-scripts recommends off).")
    relative_step: bool = Field(False, description="The rate is 1 / sqrt(step), at most 1e-2, rather than `rate` (sd-scripts recommends off).")
    warmup_init: bool = Field(False, description="With relative_step: it rises as 1e-6 step at first (sd-scripts recommends off).")

    @model_validator(mode="after")
    def _steps_have_a_meaning(self) -> Adafactor:
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init is a part of relative_step, which is off. Set relative_step = true, or warmup_init = false and use warmup")
        if self.relative_step and self.rate != 1:
            raise ValueError(f"rate = {self.rate:g}: with relative_step the rate follows from the step alone. Set rate = 1, or relative_step = false")
        if self.relative_step and (self.schedule != "constant" or self.warmup):
            raise ValueError('relative_step sets the rate, so that schedule and warmup would do nothing. Set schedule = "constant" and warmup = 0')
        return self

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates. Raises RecipeError where these have no meaning."""
        if self.relative_step:
            one_rate(self.kind, self.rate, groups)
            groups = [{key: value for key, value in group.items() if key != "lr"} for group in groups]
        arguments: dict[str, Any] = self.model_dump(include={"eps", "clip_threshold", "decay_rate", "beta1", "weight_decay"})
        switches: dict[str, Any] = self.model_dump(include={"scale_parameter", "relative_step", "warmup_init"})
        from transformers.optimization import Adafactor as Made

        built: torch.optim.Optimizer = Made(groups, lr=None if self.relative_step else self.rate, **arguments, **switches)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        numbers = math.prod(shape)
        second = numbers if len(shape) < 2 else numbers // shape[-1] + numbers // shape[-2]
        return 4 * (second + (numbers if self.beta1 is not None else 0) + 1)
