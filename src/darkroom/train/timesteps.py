"""Which timesteps are learned, and how often: each kind draws one for one picture from that picture's own dice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from darkroom.errors import RecipeError
from darkroom.spec import Spec, kind_of

if TYPE_CHECKING:
    import torch


class Range(Spec):
    """The timesteps `low` to `high` - 1; 0 is the picture almost without noise, 999 noise alone."""

    low: int = Field(0, ge=0, description="The first timestep that is learned (sd-scripts: min_timestep).")
    high: int = Field(1000, ge=1, description="Where they end: the last one is high - 1 (sd-scripts: max_timestep). SDXL's refiner is trained on 0 to 200.")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}: no timestep is left to be learned")
        return self

    def check(self, length: int) -> None:
        """Raises RecipeError where the model has fewer timesteps than `high`."""
        if self.high > length:
            raise RecipeError(f"objective.timesteps.high = {self.high}: the model has {length} timesteps. Set it to at most {length}.")

    def _placed(self, share: float) -> int:
        """The timestep at a share of the range, from 0 to 1."""
        return min(self.low + int(share * (self.high - self.low)), self.high - 1)


class Uniform(Range):
    """Every timestep as often as any other (Ho et al. 2020, algorithm 1)."""

    kind: Literal["uniform"] = "uniform"

    def draw(self, dice: torch.Generator) -> int:
        """One timestep."""
        import torch

        return int(torch.randint(self.low, self.high, (1,), generator=dice))


class LogitNormal(Range):
    """t = low + sigmoid(N(mean, std)) (high - low): the middle more often than the ends (Esser et al. 2024, section 3.1; OneTrainer)."""

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(0.0, ge=-5, le=5, description="Above 0 favours noise, below 0 the finished picture (Stable Diffusion 3, OneTrainer: 0).")
    std: float = Field(1.0, gt=0, le=10, description="How far it spreads (Stable Diffusion 3, OneTrainer: 1).")

    def draw(self, dice: torch.Generator) -> int:
        """One timestep."""
        import torch

        return self._placed(float(torch.sigmoid(self.mean + self.std * torch.randn((), generator=dice, dtype=torch.float64))))


class Cubic(Range):
    """t = low + (1 - u^3) (high - low), u uniform, or u^3: one end more often (T2I-Adapter, Mou et al. 2023, section 3.4; ai-toolkit)."""

    kind: Literal["cubic"] = "cubic"
    favour: Literal["noise", "picture"] = Field("noise", description="noise: layout and light (T2I-Adapter; ai-toolkit's style); picture: its content.")

    def draw(self, dice: torch.Generator) -> int:
        """One timestep."""
        import torch

        cube = float(torch.rand((), generator=dice, dtype=torch.float64)) ** 3
        return self._placed(cube if self.favour == "picture" else 1 - cube)


class Portion(Range):
    """Timesteps from `begin` to `end` - 1 are drawn `times` as often as the others (diffusers' --timestep_bias_strategy)."""

    kind: Literal["portion"] = "portion"
    begin: int = Field(750, ge=0, description='Where the favoured part begins. diffusers\' "later" of a portion of 0.25 is 750 to 1000, "earlier" 0 to 250.')
    end: int = Field(1000, ge=1, description="Where it ends: the last one is end - 1.")
    times: float = Field(2.0, gt=0, le=1000, description="How much as often they are drawn (diffusers: 1, which is no bias); below 1 is more rarely.")

    @model_validator(mode="after")
    def _inside(self) -> Portion:
        if not self.low <= self.begin < self.end <= self.high:
            raise ValueError(f"begin = {self.begin} and end = {self.end} must be a part of low = {self.low} to high = {self.high}")
        return self

    def draw(self, dice: torch.Generator) -> int:
        """One timestep."""
        import torch

        weights = torch.ones(self.high - self.low, dtype=torch.float64)
        weights[self.begin - self.low : self.end - self.low] = self.times
        return self.low + int(torch.multinomial(weights, 1, generator=dice))


Timesteps = Annotated[
    Annotated[Uniform, Tag("uniform")] | Annotated[LogitNormal, Tag("logit_normal")] | Annotated[Cubic, Tag("cubic")] | Annotated[Portion, Tag("portion")],
    Discriminator(kind_of("uniform")),
]
