"""How the learning rate changes over a training: a pure function of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math
from typing import Literal, assert_never

from pydantic import Field, model_validator

from darkroom.spec import Spec

Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex"]


class Paced(Spec):
    """The part of an optimizer that says how its rate rises and falls; names and curves are those of diffusers' get_scheduler, and REX."""

    schedule: Schedule = Field("constant", description="How the rate changes after the warm-up (diffusers' script: constant).")
    warmup: int | float = Field(
        0, ge=0, description="Steps over which the rate rises from 0, or below 1 their share of the training. Short trainings of an adapter want none."
    )
    cycles: int = Field(1, ge=1, description="How many times cosine_with_restarts falls from the full rate (diffusers: lr_num_cycles, 1).")
    power: float = Field(1.0, gt=0, le=100, description="Exponent of polynomial: 1 is a line, 2 falls early (diffusers: lr_power, 1).")
    floor: float = Field(0.0, ge=0, lt=1, description="Where the rate ends, as a share of itself (transformers: min_lr_rate; diffusers' polynomial: 1e-7).")

    @model_validator(mode="after")
    def _schedule_has_a_meaning(self) -> Paced:
        if self.warmup >= 1 and self.warmup % 1:  # of infinity too: inf % 1 is nan
            raise ValueError(f"warmup = {self.warmup}: is neither whole steps nor, below 1, a share of the training")
        for key, value, neutral, owner in (("cycles", self.cycles, 1, "cosine_with_restarts"), ("power", self.power, 1.0, "polynomial")):
            if value != neutral and self.schedule != owner:
                raise ValueError(f'{key} = {value:g}: does nothing with schedule = "{self.schedule}". Set schedule = "{owner}", or {key} = {neutral:g}')
        if self.floor and self.schedule == "constant":
            raise ValueError(f'floor = {self.floor:g}: does nothing with schedule = "constant", which never falls. Choose another schedule, or floor = 0')
        return self

    def warm(self, total: int) -> int:
        """Steps of warm-up in a training of `total`; a share is rounded down, as sd-scripts does."""
        return int(self.warmup) if self.warmup >= 1 else int(self.warmup * total)

    def remarks(self, total: int) -> tuple[str, ...]:
        """What a person should know before a training of `total` steps, although it is allowed."""
        warm = self.warm(total)
        if warm < total:
            return ()
        return (f"optimizer.warmup = {self.warmup:g}: the training of {total} steps ends before the rate is reached; it gets to {total / warm:.0%} of it.",)

    def factor(self, step: int, total: int) -> float:
        """What the rate is multiplied by at `step` (counted from 0) of `total`.

        In the warm-up (step + 1) / warmup: diffusers counts from step / warmup, so that its first step learns nothing.
        """
        warm = self.warm(total)
        if step < warm:
            return (step + 1) / warm
        return self.floor + (1 - self.floor) * self._fallen(min(1.0, (step - warm) / max(1, total - warm)))

    def _fallen(self, done: float) -> float:
        """From 1 at `done` = 0 to 0 at 1."""
        match self.schedule:
            case "constant":
                return 1.0
            case "linear":
                return 1 - done
            case "cosine":
                return 0.5 + 0.5 * math.cos(math.pi * done)
            case "cosine_with_restarts":
                return 0.5 + 0.5 * math.cos(math.pi * (self.cycles * done % 1)) if done < 1 else 0.0
            case "polynomial":
                return float((1 - done) ** self.power)
            case "rex":  # Chen, Wolfe and Kyrillidis 2021, section 4: (1 - z) / (1/2 + (1 - z) / 2)
                return (1 - done) / (0.5 + 0.5 * (1 - done))
            case other:
                assert_never(other)
