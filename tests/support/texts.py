"""Prompts to what the U-Net reads, in one line of a test."""

from __future__ import annotations

import torch

from darkroom.prompt import read
from darkroom.sdxl.conditioning import Conditioning, condition
from darkroom.sdxl.text import Text, encode


def only(conditioning: Conditioning) -> Text:
    ((first, ((weight, text),)),) = conditioning.stages
    assert (first, weight) == (0, 1.0)
    return text


def conditioned(model, text, language="auto", **rest) -> Text:
    return only(condition(model, read(text, language), 10, **rest))


def same(one: Text, other: Text) -> bool:
    return torch.equal(one.states, other.states) and torch.equal(one.pooled, other.pooled)


def encoded(model, text, clip_skip=0) -> Text:
    with torch.no_grad():
        return encode(model, [text], clip_skip)
