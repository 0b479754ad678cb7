"""Lion: only the sign of the average counts."""

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

RATE = "Learning rate. Every number moves by as much, so it wants a third to a tenth of AdamW's (Chen et al. 2023, section 5)."
DECAY = "Decoupled weight decay: three to ten times AdamW's, so that rate times decay stays as it is (Chen et al. 2023, section 5)."


class Lion(Paced):
    """Evolved sign momentum (Chen et al. 2023, algorithm 2), pytorch-optimizer's: one average, half of AdamW's memory."""

    kind: Literal["lion"] = "lion"
    rate: float = Field(2e-5, gt=0, lt=1e6, description=RATE)
    betas: tuple[float, float] = Field((0.9, 0.99), description="How far the gradient counts in the step, and the decay of the average (the paper's).")
    weight_decay: float = Field(5e-4, ge=0, description=DECAY)

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates. Raises RecipeError where pytorch-optimizer is not installed."""
        with brought_by("pytorch_optimizer", self.kind, "optim"):
            made: Any = import_module("pytorch_optimizer").Lion
        built: torch.optim.Optimizer = made(groups, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay, weight_decouple=True)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return 4 * math.prod(shape)


class Lion8bit(Paced):
    """Lion with its average in 8 bits, bitsandbytes': an eighth of AdamW's memory; tensors below 4096 numbers keep 32 bits."""

    kind: Literal["lion8bit"] = "lion8bit"
    rate: float = Field(2e-5, gt=0, lt=1e6, description=RATE)
    betas: tuple[float, float] = Field((0.9, 0.99), description="How far the gradient counts in the step, and the decay of the average (the paper's).")
    weight_decay: float = Field(5e-4, ge=0, description=DECAY)

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry their own rates. Raises RecipeError where bitsandbytes is not installed."""
        with brought_by("bitsandbytes", self.kind, "gpu"):
            made: Any = import_module("bitsandbytes").optim.Lion8bit
        built: torch.optim.Optimizer = made(groups, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return in_8_bits(shape, averages=1)
