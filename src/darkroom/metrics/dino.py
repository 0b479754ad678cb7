"""Is it the very subject, to a network that was taught no words?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from darkroom.device import quiet_transformers
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.metrics.eye import clip_pixels
from darkroom.metrics.given import Given, pictures_key
from darkroom.metrics.memory import Memory, Recent, recall, stamp, weights_key

PUBLISHED = "facebook/dino-vits16"  # the network of Ruiz et al.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
KINDS = ("vit", "dinov2", "dinov2_with_registers")
SIDE = 224  # pixels: what DINO and DINOv2 are measured at, whatever their config's image_size


class Dino:
    """DINO: 100 x the mean cosine of the class tokens to the reference pictures' (Ruiz et al. 2022, section 4.2).

    The network is `given.models["dino"]`, a folder or hub id of a ViT, DINOv2 or DINOv2 with registers in transformers' form; else facebook/dino-vits16.
    """

    name = "dino"
    question = "Is it the very subject of the held-out pictures, not only its kind?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = False
    blank = ""

    def __init__(self, given: Given) -> None:
        references = given.subject(self.name)
        self.network = Tokens.load(given.models.get(self.name) or PUBLISHED, given.device, given.memory)
        self.references = self.network.see(references)
        self.key = stamp(self.name, self.network.key, pictures_key(references))

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [float(score) for score in 100 * (self.network.see(pictures) @ self.references.T).mean(1)]


@dataclass
class Tokens:
    """A vision transformer that gives a picture's class token."""

    model: Any
    side: int
    memory: Memory = field(default_factory=Recent)

    @classmethod
    def load(cls, source: str | Path, device: torch.device | str = "cpu", memory: Memory | None = None) -> Tokens:
        """From a folder or hub id. Raises ModelError where it is not one of KINDS."""
        from transformers import AutoConfig, AutoModel

        try:
            with quiet_transformers():
                config = AutoConfig.from_pretrained(hand_over(str(source)))
                if config.model_type not in KINDS:
                    raise ModelError(f'{source}: is a "{config.model_type}", and dino reads {", ".join(KINDS)}. Name another with --model dino=FOLDER.')
                model = AutoModel.from_pretrained(str(source), use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise ModelError(f"{source}: no vision transformer can be loaded from it: {first} Name one with --model dino=FOLDER, or leave dino out.") from None
        side = SIDE if config.model_type != "vit" or config.image_size >= SIDE else config.image_size  # a ViT's positions are of one size, DINOv2's adapt
        return cls(model.to(device).eval().requires_grad_(False), side, memory or Recent())

    @cached_property
    def key(self) -> str:
        """A hash over its weights and its device."""
        return weights_key(self.model)

    @torch.no_grad()
    def see(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(N, D) unit vectors."""
        return recall(self.memory, self.key, pictures, self._look)

    def _look(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([clip_pixels(picture, self.side, MEAN, STD) for picture in pictures])
        tokens = self.model(pixel_values=pixels.to(self.model.device)).last_hidden_state[:, 0]
        return nn.functional.normalize(tokens.float().cpu(), dim=-1)
