"""<lora:name:weight> in a prompt: adapters that the text itself asks for, by A1111's rule."""

from __future__ import annotations

import re

from darkroom.errors import PromptError, did_you_mean
from darkroom.prompt.parts import Tag, clip, number

TAG = re.compile(r"<(lora|hypernet):([^<>]*)(>?)", re.IGNORECASE)


def take_tags(text: str) -> tuple[str, tuple[Tag, ...]]:
    """The text without its tags, and the tags. White space is tidied where a tag stood and nowhere else.

    Raises PromptError for a malformed tag and for a hypernetwork. Any other "<" is text.
    """
    found = list(TAG.finditer(text))
    if not found:
        return text, ()
    tags = tuple(_tag(match) for match in found)
    rest = text[: found[0].start()]
    for match, following in zip(found, [*found[1:], None], strict=True):
        rest = _joined(rest, text[match.end() : following.start() if following else len(text)])
    return (rest.rstrip() if not text[found[-1].end() :].strip() else rest), tags


def _joined(left: str, right: str) -> str:
    """Both sides of a removed tag: one space between them where there was any."""
    gap = " " if left[-1:].isspace() or right[:1].isspace() else ""
    left, right = left.rstrip(), right.lstrip()
    return left + gap + right if left else right


def _tag(found: re.Match[str]) -> Tag:
    whole = found[0]
    if found[1].lower() == "hypernet":
        raise PromptError(f'"{clip(whole)}": hypernetworks belong to SD 1.x, and SDXL has none. Take the tag out.')
    if not found[3]:
        raise PromptError(f'"{clip(whole)}": the ">" is missing. Write <lora:name:0.8>.')
    name, *values = (value.strip() for value in found[2].split(":"))
    if not name:
        raise PromptError(f'"{whole}": the name is missing. Write <lora:name:0.8>.')
    return Tag(name, *_weights(values, whole))


def _weights(values: list[str], whole: str) -> tuple[float, float]:
    """A1111: the text encoders' weight is 1 unless given, the U-Net's is the text encoders' unless given; by place or by name."""
    placed = [value for value in values if "=" not in value]
    named = {key.strip(): value for key, value in (value.split("=", 1) for value in values if "=" in value)}
    if unknown := next((key for key in named if key not in ("te", "unet")), None):
        raise PromptError(f'"{clip(whole)}": "{clip(unknown)}" is no weight of an adapter.{did_you_mean(unknown, ("te", "unet"))} There are te= and unet=.')
    if len(placed) > 2:
        raise PromptError(f'"{clip(whole)}": {len(placed)} weights, and two is the limit. Write <lora:name:te:unet>, for example <lora:thor:1:0.8>.')
    text = number(named.get("te", placed[0] if placed else "1"), whole)
    return text, number(named.get("unet", placed[1] if len(placed) > 1 else str(text)), whole)
