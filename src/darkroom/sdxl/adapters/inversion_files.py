"""Textual inversion files from one layout to another, bit by bit: clip_l with clip_g, diffusers' two files, bundled in a LoRA.

Which words a prompt can say, and how many vectors fit, is for `darkroom.sdxl.inversion`, which reads them to draw; here files are only turned over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.keys import BUNDLED
from darkroom.sdxl.adapters.layouts import Words
from darkroom.sdxl.adapters.metadata import STALE
from darkroom.sdxl.formats import write_adapter

WIDTHS = {"clip_l": 768, "clip_g": 1280}
TWO = ("learned_embeds.safetensors", "learned_embeds_2.safetensors")
WordLayout = Literal["clip", "diffusers", "bundled"]


def read_words(path: Path, widths: Mapping[str, int] | None = None) -> Words:
    """{word: {"clip_l": (n, 768), "clip_g": (n, 1280)}} of a file, or of the folder of diffusers' two. Raises AdapterError.

    `widths` are the base's (None: SDXL 1.0's; `Catalogue.words` gives another's). The word of a clip_l and clip_g file is the file's name.
    """
    known = dict(widths or WIDTHS)
    if path.is_dir():
        halves = [_one(path / name) for name in TWO]
        if len({word for word, _ in halves}) > 1:
            raise AdapterError(f"{path}: its two files are for {halves[0][0]!r} and {halves[1][0]!r}. Both must be for the same word.")
        found = {halves[0][0]: dict(zip(("clip_l", "clip_g"), (vectors for _, vectors in halves), strict=True))}
    else:
        found = _from_file(path)
    return {word: _checked(path, word, vectors, known) for word, vectors in found.items()}


def _one(path: Path) -> tuple[str, Tensor]:
    tensors = dict(Header.read(path).tensors())
    if len(tensors) != 1:
        raise AdapterError(f"{path}: holds {len(tensors)} tensors, and one half of diffusers' two files holds one, under the word itself.")
    return next(iter(tensors.items()))


def _from_file(path: Path) -> Words:
    header = Header.read(path)
    words: Words = {}
    for name in header.names:
        if bundle := BUNDLED.fullmatch(name):
            words.setdefault(bundle[1], {})[bundle[2]] = header.tensor(name)
    if words:
        return words
    if set(header.names) == set(WIDTHS):
        return {path.stem: dict(header.tensors())}
    raise AdapterError(
        f"{path}: holds {', '.join(header.names[:3])} and no clip_l and clip_g, bundled or not. Give the folder where it is one of diffusers' two."
    )


def _checked(path: Path, word: str, vectors: dict[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    if vectors.keys() != widths.keys():
        raise AdapterError(f"{path}: {word!r} has {', '.join(sorted(vectors))} alone. SDXL needs clip_l and clip_g; SD 1.x has but one.")
    found = {clip: tensor[None] if tensor.ndim == 1 else tensor for clip, tensor in vectors.items()}
    for clip, width in widths.items():
        if found[clip].ndim != 2 or found[clip].shape[1] != width or not found[clip].is_floating_point():
            raise AdapterError(f"{path}: {word!r} has {clip} {tuple(vectors[clip].shape)}, and this base wants (n, {width}) floats. It is for another base.")
    if found["clip_l"].shape[0] != found["clip_g"].shape[0]:
        counts = " and ".join(str(found[clip].shape[0]) for clip in widths)
        raise AdapterError(f"{path}: {word!r} has {counts} vectors for the two encoders; both must have as many. Export it again.")
    return found


def write_words(path: Path, words: Words, layout: WordLayout, metadata: Mapping[str, str] | None = None) -> None:
    """Write the embeddings: "clip" and "bundled" to a file, "diffusers" to the two files in the folder `path`. Raises AdapterError, OutputError."""
    if layout != "bundled" and len(words) != 1:
        raise AdapterError(f"{path}: {len(words)} words do not go into one file of this layout. Write each to a file of its own, or bundle them.")
    word, vectors = next(iter(words.items()), ("", {}))
    match layout:
        case "bundled":
            _save(path, {f"bundle_emb.{word}.{clip}": tensor for word, clips in words.items() for clip, tensor in clips.items()}, metadata)
        case "clip" if path.stem != word:
            raise AdapterError(f'{path}: the file\'s name is the word in this layout, and the word is "{word}". Write it to {path.with_stem(word).name}.')
        case "clip":
            _save(path, vectors, metadata)
        case "diffusers":
            for name, clip in zip(TWO, ("clip_l", "clip_g"), strict=True):
                _save(path / name, {word: vectors[clip]}, metadata)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    write_adapter(path, dict(tensors), {name: value for name, value in (metadata or {}).items() if name not in STALE})
