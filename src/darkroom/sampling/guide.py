"""ControlNet: a picture that guides the drawing (Zhang et al. 2023). Networks by diffusers; several add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import ControlNetModel


@dataclass(frozen=True)
class Hint:
    """One ControlNet with its picture (1, 3, H, W) in 0..1, its weight, and the part of the steps in which it guides."""

    network: ControlNetModel
    picture: torch.Tensor
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def speaks(self, step: int, steps: int) -> bool:
        """Whether it guides in this step (diffusers' control_guidance_start and control_guidance_end)."""
        return not (step / steps < self.start or (step + 1) / steps > self.end)


@dataclass(frozen=True)
class Guide:
    """All hints of a drawing of `steps` steps. Called with what the U-Net reads, it gives what the U-Net is to add."""

    hints: tuple[Hint, ...] = ()
    steps: int = 1

    def __call__(self, x: torch.Tensor, t: torch.Tensor, step: int, states: torch.Tensor, extra: dict[str, torch.Tensor]) -> dict[str, Any]:
        """x (B, 4, h, w), states (B, n, C) -> keyword arguments for diffusers' U-Net; none where nothing guides."""
        down: list[torch.Tensor] = []
        mid = None
        for hint in self.hints:
            if not hint.speaks(step, self.steps):
                continue
            picture = hint.picture.to(x).expand(len(x), -1, -1, -1)
            found = hint.network(x, t, states, picture, hint.weight, added_cond_kwargs=extra, return_dict=False)
            down = [a + b for a, b in zip(down, found[0], strict=True)] if down else list(found[0])
            mid = found[1] if mid is None else mid + found[1]
        return {} if mid is None else {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
