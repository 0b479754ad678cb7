"""What every method gives when it is attached to a model."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Attached(Protocol):
    """A change that is being learned. `detach` leaves the model's weights bit-identical to what they were before."""

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, each with its learning rate."""

    def prepare(self, batch: int | None) -> None:
        """Called before batch `batch` of the run, and with None before pictures are drawn, losses measured and files written."""

    def after_step(self) -> None:
        """Called after each optimizer step (norms, averages)."""

    def state(self) -> dict[str, torch.Tensor]:
        """Every trained tensor at full precision, for an exact resume."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The change as the field's files name it."""

    def metadata(self) -> dict[str, str]:
        """What the file's header says of the method."""

    def detach(self) -> None:
        """Take the change off again."""
