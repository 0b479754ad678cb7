"""Where a picture starts: noise that belongs to its seed alone."""

from __future__ import annotations

import torch

from darkroom.device import generator


def noise(seed: int, width: int, height: int, factor: int, channels: int = 4) -> torch.Tensor:
    """(1, channels, height / factor, width / factor) float32, drawn on the CPU: the same on every device and in every batch."""
    return torch.randn(1, channels, height // factor, width // factor, generator=generator(seed, "start"))
