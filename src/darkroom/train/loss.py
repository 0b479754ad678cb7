"""How far a prediction is from its target: a number for each pixel, and their mean over a picture or over its mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

from pydantic import Discriminator, Field, Tag

from darkroom.spec import Spec, kind_of

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.schedule import Schedule


class Squared(Spec):
    """d^2 (Ho et al. 2020, eq. 14)."""

    kind: Literal["l2"] = "l2"

    def errors(self, difference: torch.Tensor, schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
        """Of (B, C, h, w), the same shape."""
        return difference.square()


class Absolute(Spec):
    """|d| (sd-scripts: l1)."""

    kind: Literal["l1"] = "l1"

    def errors(self, difference: torch.Tensor, schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
        """Of (B, C, h, w), the same shape."""
        return difference.abs()


class Threshold(Spec):
    """Where a loss turns from squared to absolute, by timestep: outliers among the pictures pull less."""

    c: float = Field(0.1, gt=0, le=1, description="Errors far above it count by their size, far below it by their square (sd-scripts: 0.1).")
    schedule: Literal["constant", "exponential", "snr"] = Field(
        "snr", description="constant; from 1 to c over the timesteps; by the signal's share (sd-scripts: snr). Noisy timesteps then have the small threshold."
    )

    def at(self, schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
        """The threshold at each of t (B,), float64 (Khrapov et al. 2024, as in sd-scripts).

        constant: c; exponential: c^(t / T); snr: (1 - c) / (1 + sigma)^2 + c, where sigma^2 = (1 - abar) / abar.
        """
        import torch

        match self.schedule:
            case "constant":
                return torch.full(t.shape, self.c, dtype=torch.float64)
            case "exponential":
                return torch.exp(math.log(self.c) / schedule.length * t.cpu().double())
            case "snr":
                sigma = schedule.snr(t).rsqrt()
                return (1 - self.c) / (1 + sigma).square() + self.c
            case other:
                assert_never(other)

    def _rooted(self, difference: torch.Tensor, schedule: Schedule, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """2 (sqrt(d^2 + c^2) - c) and c (B, 1, 1, 1)."""
        c = self.at(schedule, t).to(difference).view(-1, *([1] * (difference.ndim - 1)))
        return 2 * ((difference.square() + c.square()).sqrt() - c), c


class Huber(Threshold):
    """2c (sqrt(d^2 + c^2) - c): near 0 it is d^2, far from it 2c |d| (pseudo-Huber; Khrapov et al. 2024; sd-scripts: huber)."""

    kind: Literal["huber"] = "huber"

    def errors(self, difference: torch.Tensor, schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
        """Of (B, C, h, w), the same shape."""
        rooted, c = self._rooted(difference, schedule, t)
        return c * rooted


class SmoothAbsolute(Threshold):
    """2 (sqrt(d^2 + c^2) - c): near 0 it is d^2 / c, far from it 2 |d| (sd-scripts: smooth_l1)."""

    kind: Literal["smooth_l1"] = "smooth_l1"

    def errors(self, difference: torch.Tensor, schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
        """Of (B, C, h, w), the same shape."""
        return self._rooted(difference, schedule, t)[0]


def over_picture(errors: torch.Tensor, mask: torch.Tensor | None, floor: float) -> torch.Tensor:
    """(B,) the mean over each picture, weighted by its mask (B, 1, h, w) raised to at least `floor`.

    It is divided by the mean of the weights, as OneTrainer's normalize_masked_area_loss does and sd-scripts does not: a small subject then teaches as
    much as a large one, and a mask that is 1 throughout gives the unmasked mean bit for bit. A mask that is 0 throughout, with floor 0, gives 0.
    """
    if mask is None:
        return errors.flatten(1).mean(1)
    weight = mask.to(errors).clamp(min=floor)
    return (errors * weight).flatten(1).mean(1) / weight.flatten(1).mean(1).clamp(min=1e-12)


Loss = Annotated[
    Annotated[Squared, Tag("l2")] | Annotated[Absolute, Tag("l1")] | Annotated[Huber, Tag("huber")] | Annotated[SmoothAbsolute, Tag("smooth_l1")],
    Discriminator(kind_of("l2")),
]
