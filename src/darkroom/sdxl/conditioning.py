"""From a prompt to what the U-Net reads, step by step: weights, long texts, stages, AND, and the words of textual inversions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from darkroom.errors import PromptError
from darkroom.prompt import Prompt, Sub
from darkroom.sdxl.compel import compel_text
from darkroom.sdxl.describe import describe
from darkroom.sdxl.inversion import Embedding, read_embedding, read_embeddings
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.reader import readers_of
from darkroom.sdxl.text import Text, check_clip_skip, encode
from darkroom.sdxl.weighting import encode_parts

__all__ = ["Conditioning", "Embedding", "condition", "describe", "level", "read_embedding", "read_embeddings"]

Weighted = tuple[tuple[float, Text], ...]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """(first step, weighted texts) for each stage; normally one stage of one text with weight 1. All texts have the same number of tokens."""

    stages: tuple[tuple[int, Weighted], ...]

    def at(self, step: int) -> Weighted:
        """The weighted texts of a step, counted from 0."""
        return next(texts for first, texts in reversed(self.stages) if first <= step)

    def map(self, change: Callable[[Text], Text]) -> Conditioning:
        """The same stages and weights with other texts."""
        changed: dict[int, Text] = {}
        for _, texts in self.stages:
            for _, text in texts:
                changed.setdefault(id(text), change(text))
        return Conditioning(tuple((first, tuple((weight, changed[id(text)]) for weight, text in texts)) for first, texts in self.stages))

    @property
    def length(self) -> int:
        """Tokens of the longest text: 77, or a multiple of it."""
        return max(text.states.shape[1] for _, texts in self.stages for _, text in texts)


@torch.no_grad()
def condition(model: SDXL, prompt: Prompt, steps: int, clip_skip: int = 0, embeddings: Sequence[Embedding] = ()) -> Conditioning:
    """What the prompt says at each of `steps` steps. A plain prompt of up to 75 tokens is `encode(model, [prompt.source])`, bit for bit.

    Every distinct text is encoded once. Raises PromptError, and AdapterError for embeddings that do not go together.
    """
    check_clip_skip(model, clip_skip)
    if prompt.language == "compel" and clip_skip:
        raise PromptError(f"clip_skip = {clip_skip}: compel reads SDXL's own layer only. Set it to 0, or write the prompt with --language a1111.")
    readers = readers_of(model, embeddings)
    timeline = prompt.timeline(steps)
    texts: dict[Sub, Text] = {}
    for sub in (Sub(1.0, sub.parts) for _, subs in timeline for sub in subs):
        if sub not in texts:
            compels = prompt.language == "compel"
            texts[sub] = compel_text(readers, prompt.source) if compels else encode_parts(readers, sub.parts, clip_skip)
    stages = tuple((first, tuple((sub.weight, texts[Sub(1.0, sub.parts)]) for sub in subs)) for first, subs in timeline)
    return level(model, [Conditioning(stages)], clip_skip)[0]


@torch.no_grad()
def level(model: SDXL, items: Sequence[Conditioning], clip_skip: int = 0) -> list[Conditioning]:
    """All with the same number of tokens, the shorter filled up with encoded empty texts: the U-Net takes one length a batch.

    A text that is zeroed for "no negative prompt" is zeroed afterwards, with `map`.
    """
    longest = max((item.length for item in items), default=0)
    if all(text.states.shape[1] == longest for item in items for _, texts in item.stages for _, text in texts):
        return list(items)
    empty = encode(model, [""], clip_skip).states

    def filled(text: Text) -> Text:
        missing = (longest - text.states.shape[1]) // empty.shape[1]
        blocks = empty.to(text.states).expand(len(text.states), -1, -1)
        return Text(torch.cat([text.states, *[blocks] * missing], dim=1), text.pooled)

    return [item.map(filled) for item in items]
