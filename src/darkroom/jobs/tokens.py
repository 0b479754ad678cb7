"""How long captions are in the tokens of SDXL's text encoders, counted without torch, and by pocket's words, which are SDXL 1.0's own, without transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from darkroom import pocket

CHUNK = 75
"""Tokens that are read at once, besides begin and end."""
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What CLIP takes apart before it looks words up (openai/CLIP, simple_tokenizer.py)."""
SPECIAL = ("<|startoftext|>", "<|endoftext|>", "!")
"""What tokenizer_2 takes whole wherever it stands; the last is what it fills up with."""
Lengths = Callable[[Sequence[str]], list[int]]


def count_tokens(captions: Iterable[str], base: str = "") -> dict[str, int]:
    """Tokens of each caption without the two marks at its ends, as `sdxl.text.count_tokens` counts them, by the words of `base`."""
    unique = sorted(set(captions))
    lengths = _counter(base)
    found: dict[str, int] = {}
    for start in range(0, len(unique), 1000):
        part = unique[start : start + 1000]
        found |= dict(zip(part, lengths(part), strict=True))
    return found


def over(captions: Iterable[str]) -> int:
    """How many captions pass a chunk. Those of no more bytes than that cannot, and want no tokenizer: no token is shorter than a byte."""
    long = [caption for caption in captions if len(caption.encode()) > CHUNK]
    counts = count_tokens(long) if long else {}
    return sum(counts[caption] > CHUNK for caption in long)


def _counter(base: str) -> Lengths:
    """CLIP's words: of a local folder, else pocket's."""
    folder = Path(pocket.resolve(base)) if base else pocket.folder()
    own = (folder / "tokenizer_2").is_dir() and folder != pocket.folder()
    return _of_folder(folder / "tokenizer_2") if own else _of_pocket()


@functools.cache
def _of_pocket() -> Lengths:
    """The tokenizer that transformers makes of the same two files, made without it: 0.04 seconds in place of one."""
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    words = pocket.folder() / "tokenizer_2"
    made = Tokenizer(BPE.from_file(str(words / "vocab.json"), str(words / "merges.txt"), end_of_word_suffix="</w>", unk_token=SPECIAL[1]))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens(list(SPECIAL))
    return lambda texts: [len(found.ids) for found in made.encode_batch(list(texts), add_special_tokens=False)]


@functools.lru_cache(maxsize=2)
def _of_folder(folder: Path) -> Lengths:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    return lambda texts: [len(ids) - 2 for ids in tokenizer(list(texts), truncation=False, verbose=False).input_ids]
