"""How long captions are in the tokens of SDXL's text encoders."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from darkroom import pocket

CHUNK = 75
"""Tokens that are read at once, besides begin and end."""


def lengths(texts: Sequence[str]) -> list[int]:
    """Tokens of each caption, without begin and end; 0 where there are too few letters to pass a chunk: those need no counting, and no tokenizer."""
    long = [text for text in texts if len(text.encode()) > CHUNK]  # no token is shorter than a byte
    if not long:
        return [0] * len(texts)
    counts = dict(zip(long, (len(ids) - 2 for ids in _tokenizer()(long, truncation=False, verbose=False).input_ids), strict=True))
    return [counts.get(text, 0) for text in texts]


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Any:
    """CLIP's, which the pocket model carries whole."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(pocket.folder() / "tokenizer")
