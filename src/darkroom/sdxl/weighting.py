"""Prompts of any length, with weights, as A1111 encodes them (modules/sd_hijack_clip.py and sd_emphasis.py): chunks of 75 tokens, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from darkroom.errors import PromptError
from darkroom.prompt import Part
from darkroom.sdxl.reader import Reader, Tokens
from darkroom.sdxl.text import Text

CHUNK = 75
BACKTRACK = 20
"""A1111's default: where a chunk is full, up to this many tokens behind the last comma move on to the next one together."""


@dataclass(frozen=True)
class Chunk:
    """Up to 75 tokens and their weights. What is missing is filled up."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def chunks(tokens: Tokens, parts: Sequence[Part]) -> list[Chunk]:
    """The tokens of all spans in chunks; a new part begins a new chunk, and the vectors of a new word stay together."""
    done: list[Chunk] = []
    ids: list[int] = []
    weights: list[float] = []
    comma = -1

    def finish(keep: int) -> None:
        """Close the chunk behind `keep` tokens; the others begin the next one."""
        nonlocal comma
        done.append(Chunk(tuple(ids[:keep]), tuple(weights[:keep])))
        del ids[:keep], weights[:keep]
        comma = -1

    for index, part in enumerate(parts):
        if index:
            finish(len(ids))
        for weight, unit in ((span.weight, unit) for span in part for unit in tokens.units(span.text)):
            if unit == (tokens.comma,):
                comma = len(ids)
            elif len(ids) == CHUNK and comma != -1 and len(ids) - comma <= BACKTRACK:
                finish(comma + 1)
            if len(ids) + len(unit) > CHUNK:
                finish(len(ids))
            ids += unit
            weights += [weight] * len(unit)
    if ids or not done:
        finish(len(ids))
    return done


def encode_parts(readers: Sequence[Reader], parts: Sequence[Part], clip_skip: int = 0) -> Text:
    """states (1, 77 * chunks, C), weighted, and pooled (1, P) of the first chunk, unweighted. Raises PromptError where weights cancel out."""
    columns = []
    pooled = None
    for reader in readers:
        blocks = []
        for index, chunk in enumerate(chunks(reader.tokens, parts)):
            states, found = reader.hidden(chunk.ids, clip_skip)
            pooled = found if index == 0 else pooled
            blocks.append(emphasized(states, chunk.weights))
        columns.append(torch.cat(blocks, dim=1))
    assert pooled is not None, "the last reader is encoder 2, which pools"
    return Text(side_by_side(readers, columns, clip_skip), pooled)


def side_by_side(readers: Sequence[Reader], columns: Sequence[torch.Tensor], clip_skip: int = 0) -> torch.Tensor:
    """The encoders' states (1, 77 * n, C1) and (1, 77 * m, C2) as one (1, 77 * max, C1 + C2), the shorter filled up with its encoded empty text."""
    longest = max(states.shape[1] for states in columns)
    filled = []
    for reader, states in zip(readers, columns, strict=True):
        missing = (longest - states.shape[1]) // (CHUNK + 2)
        filled.append(torch.cat([states, *[reader.hidden((), clip_skip)[0]] * missing], dim=1))
    return torch.cat(filled, dim=-1)


def emphasized(states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """A1111's "Original" emphasis of one chunk's states (1, 77, C): each token's times its weight, then all scaled back to the mean they had.

    Weights of 1 alone leave every bit as it is. Raises PromptError where the mean cannot be restored.
    """
    if all(weight == 1.0 for weight in weights):
        return states
    marks = torch.ones(states.shape[1], device=states.device)
    marks[1 : 1 + len(weights)] = torch.tensor(weights, device=states.device)
    weighted = states.float() * marks[:, None]
    restored = (weighted * (states.float().mean() / weighted.mean())).to(states.dtype)
    if not torch.isfinite(restored).all():
        raise PromptError(f"the weights {min(weights):g} to {max(weights):g} cancel each other out: no mean is left to scale by. Bring them nearer to 1.")
    return restored
