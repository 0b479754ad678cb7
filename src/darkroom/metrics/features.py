"""What sets of pictures are compared through: CLIP for CMMD, Inception (by file) or EfficientNet-Lite0 (in a package) for KID."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom.errors import ModelError
from darkroom.files import sha256_file
from darkroom.metrics.given import Given
from darkroom.metrics.imagenet import Lite0
from darkroom.metrics.memory import Memory, recall, stamp
from darkroom.metrics.sets import SetDistance, cmmd, kid


@dataclass(frozen=True)
class Features:
    """A network and the distance that belongs to it."""

    name: str
    """To be told with the value: distances through different networks cannot be compared."""
    key: str
    see: Callable[[Sequence[Image.Image]], torch.Tensor]
    distance: Callable[..., SetDistance]


def set_features(metric: str, given: Given) -> Features:
    """For "cmmd" the eye; for "kid" `given.models["kid"]`, else the packaged network. Raises ModelError."""
    if metric == "cmmd":
        eye = given.looking(metric)
        return Features(Path(eye.source).name, eye.key, eye.see, cmmd)
    if source := given.models.get("kid"):
        inception = Inception.load(source, given.device, given.memory)
        return Features(Path(source).name, inception.key, inception.see, kid)
    network = Lite0.load(given.device, given.memory)
    return Features("EfficientNet-Lite0", network.key, network.see, kid)


@dataclass
class Inception:
    """inception-2015-12-05.pt, the TorchScript file that StyleGAN's authors published: 2,048 pooled features. A program: take it from where they put it."""

    model: Any
    device: torch.device | str
    key: str
    memory: Memory

    @classmethod
    def load(cls, source: str, device: torch.device | str, memory: Memory) -> Inception:
        """Raises ModelError."""
        try:
            model = torch.jit.load(source, map_location=device).eval()  # type: ignore[no-untyped-call]
            return cls(model, device, stamp("inception", sha256_file(Path(source)), torch.device(device).type), memory)
        except (OSError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"{source}: is no TorchScript file: {first} Leave --model kid out to use the packaged network, or leave kid out.") from None

    def see(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(N, 2048)."""
        return recall(self.memory, self.key, pictures, self._look, 16)

    @torch.no_grad()
    def _look(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Each by itself, at its own size, in 0 to 255: the network resizes inside (to 299, as TensorFlow does)."""
        rows = [torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].to(self.device) for picture in pictures]
        return torch.cat([self.model(row, return_features=True).float().cpu() for row in rows])
