"""Stage 2: the two text encoders and the scorer's image tower, by contrast (Radford et al. 2021) with auxiliary attribute heads."""

from __future__ import annotations

from pathlib import Path

import stage
import torch
import torch.nn.functional as F
from album import Album
from autoencoder import pixels
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

EMBED = 96  # width of the shared space
IDS = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}


def build() -> dict[str, nn.Module]:
    one = CLIPTextConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=2, hidden_act="quick_gelu", pad_token_id=49407, projection_dim=64, **IDS
    )
    two = CLIPTextConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=4, num_attention_heads=3, hidden_act="gelu", pad_token_id=0, projection_dim=EMBED, **IDS
    )
    eye = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=64, patch_size=8, projection_dim=EMBED, hidden_act="gelu"
    )
    return {"one": CLIPTextModel(one), "two": CLIPTextModelWithProjection(two), "eye": CLIPVisionModelWithProjection(eye)}


class Heads(nn.Module):
    """Training aids, thrown away afterwards: a projection for encoder 1 (it has none), the temperature, and attribute classifiers."""

    def __init__(self, classes: dict[str, int]) -> None:
        super().__init__()
        self.one = nn.Linear(64, EMBED, bias=False)
        self.scale = nn.Parameter(torch.tensor(2.66))
        self.attributes = nn.ModuleDict({name: nn.Linear(EMBED, count) for name, count in classes.items()})


def tokens(tokenizer: CLIPTokenizer, captions: list[str], full: bool = False) -> torch.Tensor:
    """(B, L) ids. Attention is causal, so that what follows the end token changes nothing before it: train on the trimmed batch."""
    return tokenizer(captions, padding="max_length" if full else True, truncation=True, max_length=77, return_tensors="pt").input_ids


CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def train(album: Album, tokenizer: CLIPTokenizer, work: Path, seed: int, box: stage.Box, batch: int) -> tuple[dict[str, nn.Module], Heads, dict]:
    torch.manual_seed(seed + 1)
    towers = build()
    labels_all = {k: torch.from_numpy(v) for k, v in album.labels(range(len(album.scenes))).items()}
    heads = Heads({name: int(v.max()) + 1 for name, v in labels_all.items()})
    everything = nn.ModuleDict(towers | {"heads": heads})

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        chosen = stage.indices(len(album.scenes), batch, seed + 1, step)
        ids = tokens(tokenizer, album.captions(chosen.numpy(), seed, step))
        images = (pixels(album, chosen.numpy()) + 1) / 2
        with torch.autocast("cpu", torch.bfloat16):
            eye = towers["eye"]((images - CLIP_MEAN) / CLIP_STD).image_embeds
            one = heads.one(towers["one"](ids).pooler_output)
            two = towers["two"](ids).text_embeds
        eye, one, two = eye.float(), one.float(), two.float()
        losses, target = {}, torch.arange(batch)
        scale = heads.scale.exp().clamp(max=60)
        units = F.normalize(eye, dim=-1)
        for name, text in (("one", one), ("two", two)):
            logits = scale * F.normalize(text, dim=-1) @ units.T
            losses[name] = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        aid = 0.0
        for name, head in heads.attributes.items():
            wanted = labels_all[name][chosen]
            said = F.cross_entropy(head(eye), wanted)
            losses[f"see_{name}"] = said
            aid = aid + said + 0.25 * F.cross_entropy(head(two), wanted) + 0.25 * F.cross_entropy(head(one), wanted)
        return {"loss": losses["one"] + losses["two"] + 0.3 * aid, **losses}

    facts = stage.run("text", work, {"all": everything}, loss_of, box, decay=0.02)
    everything.eval().requires_grad_(False)
    return towers, heads, facts
