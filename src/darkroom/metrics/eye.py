"""The eye: a CLIP that turns pictures and prompts into unit vectors. All metrics of this room look through one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from darkroom.device import quiet_transformers
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.metrics.memory import Memory, Recent, recall, weights_key

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Eye:
    """A CLIPModel with its tokenizer, and the aesthetic head that belongs to it (None where there is none)."""

    model: Any
    tokenizer: Any
    head: nn.Module | None
    source: str
    memory: Memory = field(default_factory=Recent)
    """What it has seen, by what is in the picture."""

    @cached_property
    def key(self) -> str:
        """A hash over its weights and its device: what it sees in a picture depends on nothing else."""
        return weights_key(self.model)

    @classmethod
    def load(cls, source: str | Path, device: torch.device | str = "cpu", tokenizer: Any = None) -> Eye:
        """From a CLIPModel folder or hub id. A folder with scorer.json may borrow its text tower from a neighbour (pocket does).

        `tokenizer`: one to take where the source brings none. Raises ModelError.
        """
        from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

        folder = hand_over(Path(source))
        with quiet_transformers():
            if not (folder / "scorer.json").is_file():
                try:
                    model = CLIPModel.from_pretrained(str(source), use_safetensors=True, dtype=torch.float32)
                    tokenizer = tokenizer or CLIPTokenizer.from_pretrained(str(source))
                except (OSError, ValueError) as error:
                    raise ModelError(f"{source}: no CLIP model can be loaded from it: {str(error).splitlines()[0]}") from None
            else:
                borrowed = json.loads((folder / "scorer.json").read_text())
                model = CLIPModel(CLIPConfig.from_pretrained(folder)).float()
                for lent in ("text_model", "tokenizer"):
                    if not (folder / borrowed[lent]).exists():
                        raise ModelError(
                            f"{source}: borrows its {lent} from {borrowed[lent]}, which is not there. Give a CLIP folder that is whole, or pocket."
                        )
                state = load_file(folder / "model.safetensors") | load_file(hand_over(folder / borrowed["text_model"]))
                model.load_state_dict({key: value.float() for key, value in state.items()})
                tokenizer = CLIPTokenizer.from_pretrained(hand_over(folder / borrowed["tokenizer"]))
        head = None
        if (folder / "aesthetic.safetensors").is_file():
            head = laion_head(int(model.config.projection_dim))
            head.load_state_dict({key: value.float() for key, value in load_file(folder / "aesthetic.safetensors").items()})
            head.to(device).eval().requires_grad_(False)
        return cls(model.to(device).eval().requires_grad_(False), tokenizer, head, str(source))

    @torch.no_grad()
    def see(self, pictures: Sequence[Image.Image], batch: int = 32) -> torch.Tensor:
        """(N, D) unit vectors."""
        return recall(self.memory, self.key, pictures, self._look, batch)

    def _look(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        side = int(self.model.config.vision_config.image_size)
        pixels = torch.stack([clip_pixels(picture, side) for picture in pictures])
        pooled = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
        return nn.functional.normalize(self.model.visual_projection(pooled).float().cpu(), dim=-1)

    @torch.no_grad()
    def read(self, prompts: Sequence[str], batch: int = 64) -> torch.Tensor:
        """(N, D) unit vectors."""
        parts = []
        for start in range(0, len(prompts), batch):
            tokens = self.tokenizer(list(prompts[start : start + batch]), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            pooled = self.model.text_model(input_ids=tokens.input_ids.to(self.model.device)).pooler_output
            parts.append(self.model.text_projection(pooled).float().cpu())
        return nn.functional.normalize(torch.cat(parts), dim=-1)


def clip_pixels(picture: Image.Image, side: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> torch.Tensor:
    """CLIP's preprocessing: shorter side to `side` (bicubic), centre crop, normalise. (3, side, side)."""
    short = min(picture.size)
    size = (side * picture.width // short, side * picture.height // short)  # the longer side is truncated, as transformers does
    scaled = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (scaled.width - side) // 2, (scaled.height - side) // 2
    array = np.asarray(scaled.crop((left, top, left + side, top + side)), np.float32) / 255
    return torch.from_numpy((array - np.array(mean, np.float32)) / np.array(std, np.float32)).permute(2, 0, 1)


def laion_head(width: int) -> nn.Sequential:
    """The LAION aesthetic predictor v2's head: width-1024-128-64-16-1, dropouts between, no activations."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip
