"""Optimizers that find their own rate: `rate` is a factor on it, and stays at 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from darkroom.train.optimizers.libraries import Groups, brought_by, in_silence, one_rate
from darkroom.train.rates import Paced

if TYPE_CHECKING:
    import torch


class Adaptive(Paced):
    """What the two have in common: Adam's averages, and a distance to the solution that only grows."""

    rate: float = Field(1.0, gt=0, le=10, description="A factor on the rate that is found: leave it at 1 (the authors' advice).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the two averages (the authors' default).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (the authors' default).")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay (diffusers' script: 1e-4).")
    decouple: bool = Field(True, description="Decay as in AdamW rather than as a part of the gradient (diffusers' script: on).")
    bias_correction: bool = Field(True, description="Adam's correction of its first steps, which is a warm-up of a kind (diffusers' script: on).")
    d0: float = Field(1e-6, gt=0, description="The first guess of the distance; seldom worth a change (the authors' default).")
    growth_rate: float = Field(0.0, ge=0, description="The most that the rate may grow by in one step, such as 1.02; 0 is no limit (the authors' default).")

    @model_validator(mode="after")
    def _grows(self) -> Adaptive:
        if 0 < self.growth_rate <= 1:
            raise ValueError(f"growth_rate = {self.growth_rate:g}: the rate could never grow. Set one above 1, such as 1.02, or 0 for no limit")
        return self

    def remarks(self, total: int) -> tuple[str, ...]:
        """What a person should know before a training of `total` steps, although it is allowed."""
        found = super().remarks(total)
        if self.rate >= 0.1:
            return found
        return (*found, f"optimizer.rate = {self.rate:g} is a factor on the rate that the optimizer finds, and should be about 1. Set optimizer.rate = 1.")

    @property
    def _growth(self) -> float:
        return self.growth_rate or math.inf


class Prodigy(Adaptive):
    """Adam with Prodigy's rate (Mishchenko and Defazio 2023, algorithm 4), the authors' prodigyopt. They advise a cosine schedule, or none."""

    kind: Literal["prodigy"] = "prodigy"
    beta3: float | None = Field(None, gt=0, lt=1, description="Decay of the averages that the rate is found by; by default the root of the second beta.")
    d_coef: float = Field(1.0, gt=0, le=100, description="A factor on the distance, and the way to tune it: 0.5 to 2 work (the authors' default: 1).")
    safeguard_warmup: bool = Field(True, description="Keeps a warm-up from spoiling the estimate (diffusers' script: on).")
    slice_p: int = Field(1, ge=1, description="The estimate looks at every n-th number alone: 11 saves memory and is near enough (the authors' default: 1).")

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer. Raises RecipeError where prodigyopt is not installed, and where parts have rates of their own."""
        one_rate(self.kind, self.rate, groups)
        with brought_by("prodigyopt", self.kind, "optim"):
            made: Any = import_module("prodigyopt").Prodigy
        same = self.model_dump(include={"betas", "beta3", "eps", "weight_decay", "decouple", "safeguard_warmup", "d0", "d_coef", "slice_p"})
        with in_silence():
            built: torch.optim.Optimizer = made(groups, lr=self.rate, use_bias_correction=self.bias_correction, growth_rate=self._growth, **same)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory (a tensor that starts at 0 takes less)."""
        numbers = math.prod(shape)
        return 4 * (2 * numbers + 2 * -(-numbers // self.slice_p))


class DAdaptation(Adaptive):
    """Adam with D-Adaptation's rate (Defazio and Mishchenko 2023, algorithm 5), pytorch-optimizer's DAdaptAdam. Prodigy is its successor."""

    kind: Literal["dadaptation"] = "dadaptation"

    def build(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer. Raises RecipeError where pytorch-optimizer is not installed, and where parts have rates of their own."""
        one_rate(self.kind, self.rate, groups)
        with brought_by("pytorch_optimizer", self.kind, "optim"):
            made: Any = import_module("pytorch_optimizer").DAdaptAdam
        same = self.model_dump(include={"betas", "eps", "weight_decay", "bias_correction", "d0"})
        built: torch.optim.Optimizer = made(groups, lr=self.rate, weight_decouple=self.decouple, growth_rate=self._growth, **same)
        return built

    def state_bytes(self, shape: Sequence[int]) -> int:
        """What it keeps for a tensor of this shape, for the forecast of memory."""
        return 12 * math.prod(shape)
