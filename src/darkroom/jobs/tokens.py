"""How long captions are in the tokens of SDXL's text encoders, counted without torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from darkroom import pocket

CHUNK = 75
"""Tokens that are read at once, besides begin and end."""


def count_tokens(captions: Iterable[str], base: str = "") -> dict[str, int]:
    """Tokens of each caption without the two marks at its ends, as `sdxl.text.count_tokens` counts them, by the words of `base`."""
    unique = sorted(set(captions))
    found: dict[str, int] = {}
    for start in range(0, len(unique), 1000):
        part = unique[start : start + 1000]
        found |= {caption: len(ids) - 2 for caption, ids in zip(part, _tokenizer(base)(part, truncation=False, verbose=False).input_ids, strict=True)}
    return found


def over(captions: Iterable[str]) -> int:
    """How many captions pass a chunk. Those of no more bytes than that cannot, and want no tokenizer: no token is shorter than a byte."""
    long = [caption for caption in captions if len(caption.encode()) > CHUNK]
    counts = count_tokens(long) if long else {}
    return sum(counts[caption] > CHUNK for caption in long)


@functools.lru_cache(maxsize=2)
def _tokenizer(base: str) -> Any:
    """CLIP's words: of a local folder, else pocket's, which are SDXL 1.0's own."""
    from transformers import CLIPTokenizer

    folder = Path(pocket.resolve(base)) if base else Path()
    own = bool(base) and (folder / "tokenizer_2").is_dir()
    return CLIPTokenizer.from_pretrained((folder if own else pocket.folder()) / "tokenizer_2")
