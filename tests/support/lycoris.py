"""Random weights for modules of LyCORIS, the same on every run."""

from __future__ import annotations

import torch
from torch import nn


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.2


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(rand(*parameter.shape, seed=number) if parameter.numel() > 1 else torch.ones_like(parameter))
