"""What a model reads in a prompt, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Facts = dict[str, Any]


def prompt_lines(facts: Facts) -> list[str]:
    """Lines from the facts of `darkroom.jobs.prompt.prompt_facts`: weight, words and tokens of each span, under its stage and text."""
    return [*_head(facts), *(line for index, stage in enumerate(facts["stages"]) for line in _stage(facts, index, stage))]


def _head(facts: Facts) -> Iterator[str]:
    skipped = f", clip skip {facts['clip_skip']}" if facts["clip_skip"] else ""
    yield f"{facts['base']} reads {facts['language']}{skipped}"
    if facts["words"] != facts["source"]:
        yield f"words    {facts['words']}"
    for adapter in facts["adapters"]:
        yield f"adapter  {adapter['name']}: text {adapter['text_weight']:g}, U-Net {adapter['unet_weight']:g}"
    for embedding in facts["embeddings"]:
        yield f"new word {embedding['name']}" + ("" if embedding["used"] else ": not in this prompt")


def _stage(facts: Facts, index: int, stage: Facts) -> Iterator[str]:
    stages = facts["stages"]
    if len(stages) > 1:
        end = stages[index + 1]["first_step"] if index + 1 < len(stages) else facts["steps"]
        first = stage["first_step"] + 1
        yield ""
        yield f"step {first}" if first == end else f"steps {first} to {end}"
    for number, text in enumerate(stage["texts"]):
        if len(stage["texts"]) > 1:
            yield f"text {number + 1}, weight {text['weight']:g}"
        yield from _text(text)


def _text(text: Facts) -> Iterator[str]:
    for number, part in enumerate(text["parts"]):
        if len(text["parts"]) > 1:
            yield f"  part {number + 1}{_share(part)}"
        for span in part["spans"]:
            yield f"  {span['weight']:>7.4g}  {span['text'].strip()}"
            yield f"           {_tokens(span)}"
    count = len(text["chunks"])
    over = ", one over another" if text["length"] < 77 * count else ""
    yield f"  {text['tokens']} tokens in {count} chunk{'s' if count > 1 else ''} of up to 75" + (
        f": {', '.join(map(str, text['chunks']))}{over}" if count > 1 else ""
    )
    if text["beyond"]:
        yield f"  behind the first chunk, where the pooled text does not reach: {text['beyond']}"


def _share(part: Facts) -> str:
    if part["blend"] is not None:
        return f", blended with weight {part['blend']:g}"
    return f", weight {part['weight']:g}" if part["weight"] != 1.0 else ""


def _tokens(span: Facts) -> str:
    """Words with a bar where a word is more than one token: thor|in. And how many there are."""
    words = "".join(token.replace("</w>", " ") if token.endswith("</w>") else f"{token}|" for token in span["tokens"]).strip(" |")
    return f"{words}  ({span['count']})"
