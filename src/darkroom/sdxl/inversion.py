"""Textual inversions for prompts: files that hold vectors for new words, as the text encoders of one base take them (Gal et al. 2022)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.inversion_files import Word, read_words
from darkroom.sdxl.model import SDXL

CLIP_NAMES = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
FORBIDDEN = re.compile(r"""[\s()\[\]:\\|",<]|>.""")
RESERVED = ("BREAK", "AND")
MOST = 75
"""Vectors of one word: they stay together in one chunk, and that is how many tokens a chunk has."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """A word and its vectors: "text_encoder" (n, C1) and "text_encoder_2" (n, C2); the first is missing where it was read for a refiner.

    `sha256` is that of the file; of diffusers' two files, that of their two hashes one behind the other.
    """

    name: str
    path: Path
    sha256: str
    vectors: dict[str, torch.Tensor]

    @property
    def count(self) -> int:
        """How many tokens the word takes."""
        return int(self.vectors["text_encoder_2"].shape[0])


def read_embedding(path: Path, model: SDXL) -> Embedding:
    """The embedding of a file, or of a folder that holds one; of several bundled ones the first by name. Raises AdapterError."""
    return read_embeddings(path, model)[0]


def read_embeddings(path: Path, model: SDXL) -> list[Embedding]:
    """All embeddings of a file or folder, by name, in every layout of `adapters.inversion_files.read_words`.

    Raises AdapterError as that does, and for more vectors than a chunk holds or a name that no prompt could say.
    """
    return [_embedding(word) for word in read_words(path, widths(model))]


def widths(model: SDXL) -> dict[str, int]:
    """{"clip_l": 768, "clip_g": 1280} for SDXL 1.0; clip_g alone for a refiner."""
    second = {"clip_g": int(model.text_encoder_2.config.hidden_size)}
    return second if model.text_encoder is None else {"clip_l": int(model.text_encoder.config.hidden_size), **second}


def vocabulary(model: SDXL) -> dict[str, float]:
    """The mean norm of all vectors of each encoder's own words: {"clip_l": ..., "clip_g": ...}."""
    tables = {clip: model.parts[CLIP_NAMES[clip]].get_input_embeddings().weight for clip in widths(model)}  # type: ignore[operator]
    return {clip: float(table.detach().float().norm(dim=-1).mean()) for clip, table in tables.items()}


def sayable(name: str) -> bool:
    """Whether every language of prompts reads the name as one word."""
    opened = name.removeprefix("<")
    return opened not in RESERVED and not FORBIDDEN.search(opened) and re.search(r"\w", opened) is not None


def _embedding(word: Word) -> Embedding:
    path, name = word.files[0], word.name
    if not sayable(name):
        raise AdapterError(
            f'{path}: its word would be "{name}", which a prompt cannot say as one word. '
            f"Letters, digits, _ . - and <...> are fine: rename the file, or train with another placeholder."
        )
    if word.count > MOST:
        raise AdapterError(f"{path}: {name!r} has {word.count} vectors, and {MOST} is the limit: they must fit into one chunk of tokens.")
    return Embedding(name, path, word.sha256, {CLIP_NAMES[clip]: tensor for clip, tensor in word.vectors.items()})
