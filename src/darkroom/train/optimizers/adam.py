"""AdamW, with its two running averages in 32 bits or in 8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.train.optimizers.libraries import Groups, brought_by, in_8_bits
from darkroom.train.rates import Paced

if TYPE_CHECKING:
    import torch


class AdamW(Paced):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), torch's."""

    kind: Literal["adamw"] = "adamw"
    rate: float = Field(1e-4, gt=0, lt=1e6, description="Learning rate (diffusers' script: 1e-4).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the two averages (torch's default).")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay (diffusers' script: 1e-4).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (torch's default).")

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates."""
        import torch

        return torch.optim.AdamW(groups, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps)

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return 8 * math.prod(shape)


class AdamW8bit(Paced):
    """AdamW whose averages are kept in 8 bits, in blocks of 256 (Dettmers et al. 2022), bitsandbytes': a quarter of the memory; tensors below 4096
    numbers keep 32 bits."""

    kind: Literal["adamw8bit"] = "adamw8bit"
    rate: float = Field(1e-4, gt=0, lt=1e6, description="Learning rate (diffusers' script: 1e-4).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the two averages (bitsandbytes' default).")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay (diffusers' script: 1e-4).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (bitsandbytes' default).")

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates. Raises RecipeError where bitsandbytes is not installed."""
        with brought_by("bitsandbytes", self.kind, "gpu"):
            made: Any = import_module("bitsandbytes").optim.AdamW8bit
        built: torch.optim.Optimizer = made(groups, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return in_8_bits(shape, averages=2)
