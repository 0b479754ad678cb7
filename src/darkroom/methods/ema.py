"""A running average of the weights that learn: smoother than where a step happens to leave them, and what is drawn with and saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

POWER = 2 / 3
"""Of the warm-up, for runs of a million steps (diffusers: EMAModel)."""


class Average:
    """The exponential moving average of tensors in float32, equal to diffusers' `EMAModel` to the last bit where the weights are float32 too."""

    def __init__(self, weights: Sequence[Tensor], decay: float, after: int = 0, warmup: bool = False, on_host: bool = False) -> None:
        """`after` steps it follows the weights themselves; `on_host` keeps it in main memory."""
        self.decay, self.after, self.warmup = decay, after, warmup
        self.steps = 0
        self.shadows = [weight.detach().to("cpu" if on_host and not weight.is_meta else weight.device, torch.float32, copy=True) for weight in weights]

    def kept_at(self, step: int) -> float:
        """How much of the average is kept at its step `step`, counted from 1: never more than `decay`, and less at first (diffusers' get_decay)."""
        past = max(0, step - self.after - 1)
        if not past:
            return 0.0
        rising: float = 1 - (1 + past) ** -POWER if self.warmup else (1 + past) / (10 + past)
        return min(rising, self.decay)

    @torch.no_grad()
    def add(self, weights: Sequence[Tensor]) -> None:
        """Take one step towards the weights as they are now."""
        self.steps += 1
        rest = 1 - self.kept_at(self.steps)
        for shadow, weight in zip(self.shadows, weights, strict=True):
            shadow.sub_((shadow - weight.to(shadow.device, torch.float32)).mul_(rest))
