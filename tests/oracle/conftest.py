"""What the oracle tests share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

Key = tuple[str, str]


@pytest.fixture(scope="module")
def stock() -> Iterator[Callable[[Path], dict[Key, torch.Tensor]]]:
    """What stock diffusers adds to every weight for a file, by load_lora_weights and fuse_lora."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import logging as talk

    from darkroom import pocket

    talk.set_verbosity_error()
    parts = ("unet", "text_encoder", "text_encoder_2")

    def added(path: Path) -> dict[Key, torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = StableDiffusionXLPipeline.from_pretrained(Path(pocket.resolve("pocket")))
            base = {(part, name): weight.clone() for part in parts for name, weight in getattr(pipe, part).state_dict().items()}
            pipe.load_lora_weights(path.parent, weight_name=path.name)
            pipe.fuse_lora(components=[part for part in parts if getattr(getattr(pipe, part), "peft_config", None)])
            pipe.unload_lora_weights()
        now = {(part, name): weight for part in parts for name, weight in getattr(pipe, part).state_dict().items()}
        return {(part, name.removesuffix(".weight")): now[part, name] - base[part, name] for part, name in base if name.endswith(".weight")}

    yield added
