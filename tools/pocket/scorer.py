"""Stage 5: the scorer's image tower alone, against the frozen text tower: its own caption, and its noun among all nouns.

Stage 2 teaches the towers to agree; colour and style settle most of that, so that nouns come last. Here they are asked for by name.
"""

from __future__ import annotations

from pathlib import Path

import stage
import torch
import torch.nn.functional as F
from album import Album
from autoencoder import pixels
from text import CLIP_MEAN, CLIP_STD, tokens
from torch import nn
from transformers import CLIPTokenizer


def train(album: Album, tokenizer: CLIPTokenizer, towers: dict, heads: nn.Module, work: Path, seed: int, box: stage.Box, batch: int) -> dict:
    torch.manual_seed(seed + 5)
    eye = towers["eye"].requires_grad_(True)
    spoilt = torch.tensor([scene.spoil != "" for scene in album.scenes])
    nouns = torch.tensor([scene.subject for scene in album.scenes])

    @torch.no_grad()
    def said(captions: list[str]) -> torch.Tensor:
        return F.normalize(towers["two"](tokens(tokenizer, captions)).text_embeds.float(), dim=-1)

    names = said([f"a {subject.noun}" for subject in album.subjects])
    scale = heads.scale.exp().clamp(max=60).item()

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        chosen = stage.indices(len(album.scenes), batch, seed + 5, step)
        images = (pixels(album, chosen.numpy()) + 1) / 2
        with torch.autocast("cpu", torch.bfloat16):
            seen = F.normalize(eye((images - CLIP_MEAN) / CLIP_STD).image_embeds.float(), dim=-1)
        logits = scale * seen @ said(album.captions(chosen.numpy(), seed, 500_000 + step)).T
        target = torch.arange(batch)
        own = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        noun = F.cross_entropy(scale * seen @ names.T, nouns[chosen])
        clean = ~spoilt[chosen]
        right = (seen[clean] @ names.T).argmax(1).eq(nouns[chosen][clean]).float().mean()
        return {"loss": own + noun, "own": own.detach(), "noun": noun.detach(), "right": right}

    facts = stage.run("scorer", work, {"eye": eye}, loss_of, box, decay=0.02)
    eye.eval().requires_grad_(False)
    return facts
