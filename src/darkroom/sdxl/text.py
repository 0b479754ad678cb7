"""Prompts to what the U-Net reads: two text encoders, their penultimate layers side by side, and the pooled text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from darkroom.errors import PromptError
from darkroom.sdxl.model import SDXL


@dataclass(frozen=True)
class Text:
    """states (B, 77, C) for cross-attention, or a multiple of 77 for long prompts, and pooled (B, P) for the time embedding."""

    states: torch.Tensor
    pooled: torch.Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Text:
        return Text(self.states.to(device, dtype), self.pooled.to(device, dtype))

    @staticmethod
    def stack(texts: Sequence[Text]) -> Text:
        """Several of them as one batch."""
        return Text(torch.cat([t.states for t in texts]), torch.cat([t.pooled for t in texts]))


def encode(model: SDXL, prompts: Sequence[str], clip_skip: int = 0) -> Text:
    """CLIP-L hidden_states[-2] ++ bigG hidden_states[-2], and bigG's projected end token (Podell et al. 2023, section 2.1).

    Equal to diffusers' `StableDiffusionXLPipeline.encode_prompt`; `clip_skip` takes states from that many layers further down, as there.
    Text beyond 77 tokens is cut: `count_tokens` tells. Raises PromptError for a layer that is not there.
    """
    check_clip_skip(model, clip_skip)
    states = []
    pooled = None
    for tokenizer, encoder in ((model.tokenizer, model.text_encoder), (model.tokenizer_2, model.text_encoder_2)):
        if tokenizer is None or encoder is None:
            continue
        ids = tokenizer(list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids
        out = encoder(ids.to(model.device), output_hidden_states=True)
        states.append(out.hidden_states[-(clip_skip + 2)])
        pooled = out.text_embeds if hasattr(out, "text_embeds") else None
    assert pooled is not None
    return Text(torch.cat(states, dim=-1), pooled)


def check_clip_skip(model: SDXL, clip_skip: int) -> None:
    """hidden_states[-(clip_skip + 2)] must exist in both encoders: clip_skip 0 to their layers less one. Raises PromptError."""
    layers = min(int(encoder.config.num_hidden_layers) for encoder in (model.text_encoder, model.text_encoder_2) if encoder is not None)
    if not 0 <= clip_skip < layers:
        raise PromptError(f"clip_skip = {clip_skip}: the shorter text encoder has {layers} layers, so that 0 to {layers - 1} can be skipped. 0 is SDXL's own.")


def zeroed(like: Text) -> Text:
    """diffusers' "no negative prompt": zeros, which is not the encoded empty string."""
    return Text(torch.zeros_like(like.states), torch.zeros_like(like.pooled))


def count_tokens(model: SDXL, prompt: str) -> int:
    """Tokens without the two marks at the ends; SDXL reads 75 of them."""
    return len(model.tokenizer_2(prompt, truncation=False, verbose=False).input_ids) - 2
