"""Schedule-free AdamW: an average of all weights so far stands in for a falling rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from darkroom.train.optimizers.libraries import Groups, brought_by
from darkroom.train.rates import Paced

if TYPE_CHECKING:
    import torch


class ScheduleFree(Paced):
    """Schedule-free AdamW (Defazio et al. 2024, algorithm 1), the authors' schedulefree.

    It learns with one set of weights and is used with another, their average: `state.settled` puts that in place while pictures are drawn and files written.
    """

    kind: Literal["schedule_free"] = "schedule_free"
    rate: float = Field(1e-3, gt=0, lt=1e6, description="Learning rate: one to ten times AdamW's (the authors' advice; their default: 2.5e-3).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="How near learning is to the average, and the decay of squared gradients (the authors').")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (the authors' default).")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay (diffusers' script: 1e-4).")
    r: float = Field(0.0, ge=0, description="Later steps count in the average by step^r (the authors' default: 0).")
    weight_lr_power: float = Field(2.0, ge=0, description="Steps count in the average by rate^this, so that a warm-up counts little (the authors': 2).")

    @model_validator(mode="after")
    def _is_free(self) -> ScheduleFree:
        if self.schedule != "constant":
            raise ValueError(f'schedule = "{self.schedule}": schedule_free needs none, and the average would be wrong with one. Set schedule = "constant"')
        if self.betas[0] <= 0:
            raise ValueError(f"betas = {self.betas}: the first must be above 0, for the average is found by dividing by it")
        return self

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer, ready to learn. Raises RecipeError where schedulefree is not installed."""
        with brought_by("schedulefree", self.kind, "optim"):
            made: Any = import_module("schedulefree").AdamWScheduleFree
        same = self.model_dump(include={"betas", "eps", "weight_decay", "r", "weight_lr_power"})
        built: Any = made(groups, lr=self.rate, **same)
        built.train()
        optimizer: torch.optim.Optimizer = built
        return optimizer

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return 8 * math.prod(shape)
