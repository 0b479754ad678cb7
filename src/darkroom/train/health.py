"""Signs that a training cannot be learning: each stops it with words, or is said, within a number of steps that can be set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.errors import RunError
from darkroom.spec import Spec

if TYPE_CHECKING:
    import torch

FIRST, SLOWNESS = 10, 0.9
"""The first losses are those of so many steps; the smoothed loss keeps this much of itself at each further one."""


class Health(Spec):
    """When a training stops by itself."""

    bad_losses: int = Field(1, ge=1, description="Steps in a row whose loss or gradient is no number before it stops; earlier ones are left out, and said.")
    dead_steps: int = Field(3, ge=1, description="Steps in a row with every gradient zero before it stops.")
    still_steps: int = Field(20, ge=1, description="First steps within which weights must have moved: it stops where none did, and says how many did not.")
    diverged: float = Field(30.0, gt=1, description="It stops where the smoothed loss is so many times that of the first steps.")
    black: Literal["warn", "stop", "ignore"] = Field(
        "warn", description="What follows from a preview that is one colour all over (an fp16 VAE that overflows)."
    )


@dataclass
class Pulse:
    """What is remembered from step to step; a resume goes on with it."""

    bad: int = 0
    dead: int = 0
    first: float = 0.0
    """Mean loss of the first steps."""
    smooth: float = 0.0


class Vitals:
    """Watches the figures of a training. Raises RunError where it must stop; `told` collects what is said once."""

    def __init__(self, limits: Health, rate: float, add_up: Callable[[list[torch.Tensor]], None] | None = None) -> None:
        """`add_up` is the sum over processes that each see some rows of a tensor."""
        self.limits, self.rate, self.pulse, self.told = limits, rate, Pulse(), list[str]()
        self._add_up = add_up
        self._sums: list[tuple[float, float]] = []

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self.pulse)

    def load_state(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.pulse = Pulse(**state)

    def may_step(self, number: int, loss: float, norm: float, scaled: bool) -> bool:
        """Whether step `number` (from 0) may change weights. `scaled`: fp16, where a gradient beyond its range is normal and only skipped."""
        pulse, limits = self.pulse, self.limits
        if not (math.isfinite(loss) and (scaled or math.isfinite(norm))):
            pulse.bad += 1
            if pulse.bad >= limits.bad_losses:
                what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
                raise RunError(f"step {number + 1}: {what}. {self._diverged()}")
            self._tell(f"step {number + 1}: left out, for its loss or gradient is no number.")
            return False
        pulse.bad = 0
        pulse.dead = pulse.dead + 1 if norm == 0 else 0
        if pulse.dead >= limits.dead_steps:
            raise RunError(
                f"step {number + 1}: every gradient was zero in {pulse.dead} steps, so that nothing would ever be learned. Check method and train.precision."
            )
        if number < FIRST:
            pulse.first += (loss - pulse.first) / (number + 1)
            pulse.smooth = pulse.first
        else:
            pulse.smooth = SLOWNESS * pulse.smooth + (1 - SLOWNESS) * loss
        if loss > limits.diverged * pulse.first and pulse.smooth > limits.diverged * pulse.first:
            raise RunError(f"step {number + 1}: the loss is {loss:.3g} and began with {pulse.first:.3g}. {self._diverged()}")
        return True

    def _diverged(self) -> str:
        return f"The training diverged, and its weights were not saved. Go back to the last checkpoint with a lower rate than optimizer.rate = {self.rate:g}."

    def begin(self, parameters: Sequence[torch.Tensor]) -> None:
        """Remember where the weights are before the first step of a sitting."""
        self._sums = [_sums(parameter) for parameter in parameters]

    def after(self, number: int, last: int, parameters: Sequence[torch.Tensor]) -> None:
        """Called after step `number`: once, after the first steps or the last, looks whether weights moved."""
        if number + 1 != min(self.limits.still_steps, last) or not self._sums:
            return
        still = self._still(parameters)
        if still == len(self._sums):
            raise RunError(
                f"step {number + 1}: no weight has moved yet. optimizer.rate = {self.rate:g} may be too small for the weights' number format "
                "(bf16 rounds changes below 0.4 % away): raise it, or train in fp32."
            )
        if still:
            self._tell(f"After {number + 1} steps {still} of {len(self._sums)} trained tensors have not moved at all.")

    def _still(self, parameters: Sequence[torch.Tensor]) -> int:
        """How many tensors have moved nowhere."""
        moved = [_sums(parameter) != before for parameter, before in zip(parameters, self._sums, strict=True)]
        if self._add_up is not None:
            self._add_up([told := parameters[0].detach().float().new_tensor(moved)])
            moved = [bool(each) for each in told]
        return moved.count(False)

    def picture(self, name: str, extremes: Sequence[tuple[int, int]]) -> None:
        """A preview, by the (lowest, highest) value of each channel. Raises RunError where one of one colour must stop the training."""
        if self.limits.black == "ignore" or any(high - low > 2 for low, high in extremes):
            return
        why = f"{name}: is one colour all over. The VAE may overflow in fp16 (take the fp16-fix VAE, or precision bf16 or fp32), or the training diverged."
        if self.limits.black == "stop":
            raise RunError(why)
        self._tell(why)

    def _tell(self, what: str) -> None:
        self.told.append(what)


def _sums(tensor: torch.Tensor) -> tuple[float, float]:
    """Two sums that change where a tensor does."""
    import torch

    plain = tensor.detach()
    return float(plain.sum(dtype=torch.float64)), float(plain.abs().sum(dtype=torch.float64))
