"""What a prompt is made of, as frozen data, and the one rule for weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from darkroom.errors import PromptError

LARGEST = 1e4
"""No weight may be larger in size. Pictures fall apart from about 2 on; this only keeps the arithmetic finite."""


@dataclass(frozen=True)
class Tag:
    """An adapter that the prompt itself asks for: <lora:name:text_weight:unet_weight>."""

    name: str
    text_weight: float
    unet_weight: float


@dataclass(frozen=True)
class Span:
    """Words with one weight."""

    text: str
    weight: float


Part = tuple[Span, ...]


@dataclass(frozen=True)
class Sub:
    """One of the texts that AND joins. Its parts start new chunks of tokens: what BREAK separates."""

    weight: float
    parts: tuple[Part, ...]


Stage = tuple[int, tuple[Sub, ...]]
"""(first step, what holds from there)"""


def checked(weight: float, where: str) -> float:
    """The weight, if it can be used. Raises PromptError."""
    if not math.isfinite(weight) or abs(weight) > LARGEST:
        raise PromptError(f'"{clip(where)}": its weight comes to {weight:g}, and {LARGEST:g} is the limit. Weights of 0.5 to 1.5 are usual.')
    return weight


def number(text: str, where: str) -> float:
    """A weight as it is written. Raises PromptError."""
    try:
        return checked(float(text), where)
    except ValueError:
        raise PromptError(f'"{clip(where)}": "{clip(text)}" is no number. Write a weight such as 0.8.') from None


def clip(text: str, length: int = 40) -> str:
    """As much of a text as a message can carry."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
