"""What a base model reads in a prompt, without drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darkroom.jobs.base import open_base
from darkroom.jobs.learned import word_of
from darkroom.prompt import negative_preset, read


def prompt_facts(
    text: str, base: str = "pocket", language: str = "auto", steps: int = 25, embeddings: Sequence[str | Path] = (), device: str = "auto", clip_skip: int = 0
) -> dict[str, Any]:
    """Spans, weights, tokens, chunks and stages as JSON-able data; a "@basic" in front is looked up first.

    `embeddings` are files, folders, or runs as in `jobs.learned.word_of`; every word of a bundle counts. Raises a DarkroomError.
    """
    from darkroom.sdxl.conditioning import describe, read_embeddings

    prompt = read(negative_preset(text), language)
    prompt.timeline(steps)  # a mistake in the prompt is told before a large model is loaded
    model = open_base(base, device)
    words = [embedding for path in embeddings for embedding in read_embeddings(Path(word_of(str(path))), model)]
    return {"base": base, **describe(model, prompt, steps, words, clip_skip)}
