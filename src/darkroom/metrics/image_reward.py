"""Would people prefer it? ImageReward: a BLIP that reads the prompt while it looks, and a head on what it makes of both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from darkroom.device import quiet_transformers
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.metrics.eye import clip_pixels, laion_head
from darkroom.metrics.given import Given
from darkroom.metrics.heads import fetched, tensors, ways
from darkroom.metrics.memory import slices, stamp, weights_key

PUBLISHED = "THUDM/ImageReward/ImageReward.pt"
WORDS = "bert-base-uncased"
TOKENS = 35
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the rewards over their validation set: what comes out has mean 0 and deviation 1 there
HEAD = 64  # numbers in an attention head, in BERT and in every ViT of BLIP
SEEN = (
    (r"^cls_token$", "embeddings.class_embedding"), (r"^pos_embed$", "embeddings.position_embedding"), (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."), (r"^blocks\.", "encoder.layers."), (r"\.norm([12])\.", r".layer_norm\1."), (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)  # fmt: skip
"""BLIP's names of its picture tower to transformers' own; the text tower's are the same."""


class ImageReward:
    """ImageReward (Xu et al. 2023, section 2.2): about -2 to 2, 0 for an average picture of its authors' validation set.

    `given.models["imagereward"]` is ImageReward.pt, or a folder that holds it and BERT's vocab.txt; else both come from the hub.
    """

    name = "imagereward"
    question = "Would people prefer it for its prompt (ImageReward)?"
    unit = "deviations"
    higher_is_better = True
    per = "picture"
    prompted = True
    blank = ""

    def __init__(self, given: Given) -> None:
        source = given.models.get(self.name) or PUBLISHED
        folder = Path(source)
        file = (
            next(iter(sorted([*folder.glob("*.pt"), *folder.glob("*.safetensors")])), folder / "ImageReward.pt")
            if folder.is_dir()
            else fetched(source, self.name)
        )
        state = tensors(file, self.name)
        self.tokenizer = _tokenizer(folder if (folder / "vocab.txt").is_file() else WORDS)
        try:
            self.sight, self.words, self.head = _towers(state)
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise ModelError(f"{file}: is not ImageReward: {str(error).strip().splitlines()[-1].strip()} {ways(self.name)}") from None
        self.device = torch.device(given.device)
        for part in (self.sight, self.words, self.head):
            part.to(self.device).eval().requires_grad_(False)
        self.key = stamp(self.name, weights_key(self.sight), weights_key(self.words), weights_key(self.head))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        scores: list[float] = []
        for part in slices(pictures, 8):
            scores += self._rewards(part, prompts[len(scores) : len(scores) + len(part)])
        return scores

    def _rewards(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        side = int(self.sight.config.image_size)
        pixels = torch.stack([clip_pixels(picture, side) for picture in pictures]).to(self.device)
        seen = self.sight(pixel_values=pixels).last_hidden_state
        tokens = self.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").to(self.device)
        said = self.words(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self.device),
        )  # fmt: skip
        return [float(reward) for reward in (self.head(said.last_hidden_state[:, 0].float()).flatten() - MEAN) / STD]


def _tokenizer(source: str | Path) -> Any:
    from transformers import BertTokenizer

    try:
        with quiet_transformers():
            return BertTokenizer.from_pretrained(hand_over(str(source)))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{source}: BERT's vocabulary cannot be had: {first} Put vocab.txt beside ImageReward.pt and name the folder.") from None


def _towers(state: Mapping[str, torch.Tensor]) -> tuple[Any, Any, Any]:
    """The picture tower, the text tower and the head, of the shapes that the tensors have."""
    from transformers import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    seen, said, head = (_below(state, stem) for stem in ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."))
    with quiet_transformers():
        sight, words = BlipVisionModel(_sight_config(seen)), BlipTextModel(_words_config(said), add_pooling_layer=False)
    sight.load_state_dict({_named(key): value for key, value in seen.items()})
    kept = {key: value for key, value in said.items() if not key.endswith("position_ids") and not key.startswith("pooler.")}
    missing, unknown = words.load_state_dict(kept, strict=False)
    if unknown or [key for key in missing if not key.endswith("position_ids")]:
        raise KeyError(f"{[*unknown, *missing][0]} of its text tower is missing or not known")
    made = laion_head(head["0.weight"].shape[1])
    made.load_state_dict(head)
    return sight, words, made


def _below(state: Mapping[str, torch.Tensor], stem: str) -> dict[str, torch.Tensor]:
    found = {key.removeprefix(stem): value.float() for key, value in state.items() if key.startswith(stem)}
    if not found:
        raise KeyError(f"it holds no {stem}*")
    return found


def _named(key: str) -> str:
    for pattern, new in SEEN:
        key = re.sub(pattern, new, key)
    return key


def _sight_config(state: Mapping[str, torch.Tensor]) -> Any:
    from transformers import BlipVisionConfig

    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    return BlipVisionConfig(
        hidden_size=width, intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0], num_hidden_layers=_count(state, "blocks."), patch_size=patch,
        num_attention_heads=width // HEAD, image_size=round((state["pos_embed"].shape[1] - 1) ** 0.5) * patch, hidden_act="gelu", layer_norm_eps=1e-6,
    )  # fmt: skip


def _words_config(state: Mapping[str, torch.Tensor]) -> Any:
    from transformers import BlipTextConfig

    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    return BlipTextConfig(
        vocab_size=vocabulary, hidden_size=width, encoder_hidden_size=state["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0], num_hidden_layers=_count(state, "encoder.layer."),
        num_attention_heads=width // HEAD, max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0], hidden_act="gelu",
        is_decoder=True, layer_norm_eps=1e-12,
    )  # fmt: skip


def _count(state: Mapping[str, torch.Tensor], stem: str) -> int:
    return 1 + max(int(key.removeprefix(stem).split(".")[0]) for key in state if key.startswith(stem))
