"""Optimizers and how their rate changes: one class each, every field one of its own arguments."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.spec import Spec

if TYPE_CHECKING:
    import torch


class AdamW(Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    rate: float = Field(1e-4, gt=0, lt=1e6, description="Learning rate (diffusers' script: 1e-4).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the two averages (torch's default).")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay (diffusers' script: 1e-4).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (torch's default).")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="How the rate changes after the warm-up (diffusers' script: constant).")
    warmup: int = Field(0, ge=0, description="Steps over which the rate rises from 0. Short trainings of an adapter want none.")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates."""
        import torch

        return torch.optim.AdamW(groups, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps)

    def factor(self, step: int, total: int) -> float:
        """What the rate is multiplied by at `step` (counted from 0) of `total`: a pure function, so that a resumed run needs no state."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, total - self.warmup)
        match self.schedule:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, 1 - done)
            case "cosine":
                return 0.5 + 0.5 * math.cos(math.pi * min(1.0, done))
