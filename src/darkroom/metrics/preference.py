"""Would people prefer it? CLIPs that were taught by what people chose: PickScore and HPS v2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from darkroom.errors import ModelError
from darkroom.metrics.eye import Eye
from darkroom.metrics.given import Given
from darkroom.metrics.heads import fetched, tensors
from darkroom.metrics.memory import stamp
from darkroom.metrics.open_clip import from_open_clip


class PickScore:
    """exp(logit scale) x the cosine of picture and prompt (Kirstain et al. 2023, section 3), from a CLIPModel folder or hub id; about 18 to 24."""

    name = "pickscore"
    question = "Would people pick it for its prompt (PickScore)?"
    unit = "points"
    higher_is_better = True
    per = "picture"
    prompted = True
    blank = ""

    def __init__(self, given: Given) -> None:
        self.eye = taught(given, self.name, "yuvalkirstain/PickScore_v1")
        self.scale = float(self.eye.model.logit_scale.exp())
        self.key = stamp(self.name, self.eye.key)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [self.scale * cosine for cosine in cosines(self.eye, pictures, prompts)]


class Hps:
    """HPS v2: 100 x the cosine of picture and prompt (Wu et al. 2023), from a CLIPModel folder or its published .pt file (v2.1 by default); about 20 to 32."""

    name = "hpsv2"
    question = "Would people prefer it for its prompt (HPS v2)?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = True
    blank = ""

    def __init__(self, given: Given) -> None:
        self.eye = taught(given, self.name, "xswu/HPSv2/HPS_v2.1_compressed.pt")
        self.key = stamp(self.name, self.eye.key)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [100 * cosine for cosine in cosines(self.eye, pictures, prompts)]


def taught(given: Given, metric: str, published: str) -> Eye:
    """The metric's own CLIP. It reads prompts with the scorer's tokenizer: all CLIPs have one vocabulary, and these bring none. Raises ModelError."""
    source, tokenizer = given.models.get(metric) or published, given.eye.tokenizer if given.eye else None
    if Path(source).is_dir() or not source.endswith((".pt", ".pth", ".bin", ".safetensors")):
        eye = Eye.load(source, given.device, tokenizer)
    elif tokenizer is None:
        raise ModelError(f"{metric} reads prompts with the scorer's vocabulary: name a CLIP with --scorer, or leave {metric} out.")
    else:
        model = from_open_clip(tensors(fetched(source, metric), metric), source)
        eye = Eye(model.to(given.device), tokenizer, None, source)
    eye.memory = given.memory
    return eye


@torch.no_grad()
def cosines(eye: Eye, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Of each picture with its prompt."""
    unique = sorted(set(prompts))
    said = dict(zip(unique, eye.read(unique), strict=True))
    return [float(seen @ said[prompt]) for seen, prompt in zip(eye.see(pictures), prompts, strict=True)]
