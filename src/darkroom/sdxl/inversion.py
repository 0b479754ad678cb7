"""Textual inversions in: files that hold vectors for one new word, n for each text encoder (Gal et al. 2022).

Read from safetensors: `clip_l` (n, 768) with `clip_g` (n, 1280), the layout of most sites; diffusers' two files, one per encoder, each with one tensor
under the word itself; and `bundle_emb.<word>.clip_l | clip_g` inside a LoRA, as OneTrainer writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.errors import AdapterError
from darkroom.files import sha256_bytes, sha256_file
from darkroom.sdxl.formats import read_tensors
from darkroom.sdxl.model import PICKLES, SDXL

CLIP_NAMES = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
BUNDLED = re.compile(r"bundle_emb\.(.+)\.(clip_[lg](?:_out)?)$")
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
    """All embeddings of a file or folder, by name.

    A file with one tensor alone is one half of diffusers' pair: the other half is the file beside it whose one tensor has the same name and the
    other encoder's width (learned_embeds.safetensors and learned_embeds_2.safetensors).
    Raises AdapterError for what is missing, a pickle, truncated, of another width, not finite, or has a name that no prompt could say.
    """
    if path.is_dir():
        path = _only_file(path)
    if not path.exists():
        raise AdapterError(f"{path}: there is no such file. An embedding is a .safetensors file, or the folder of diffusers' two files.")
    tensors, _ = read_tensors(path)
    if bundled := [found for key in sorted(tensors) if (found := BUNDLED.fullmatch(key))]:
        return _bundle(path, tensors, bundled, model)
    if set(tensors) & set(CLIP_NAMES):
        return [_embedding(path.stem, path, sha256_file(path), {part: tensors[key] for key, part in CLIP_NAMES.items() if key in tensors}, model)]
    if len(tensors) == 1:
        return [_pair(path, *next(iter(tensors.items())), model)]
    raise AdapterError(f"{path}: holds {len(tensors)} tensors, and none is clip_l, clip_g or bundled. It is no embedding for SDXL; --adapter takes adapters.")


def _only_file(folder: Path) -> Path:
    """The file to begin with: the only one, or diffusers' first (its script leaves those of earlier steps in the same folder)."""
    files = sorted(folder.glob("*.safetensors"))
    if folder / "learned_embeds.safetensors" in files:
        return folder / "learned_embeds.safetensors"
    if len(files) == 1 or (len(files) == 2 and all(_single(file) for file in files)):
        return files[0]
    if files:
        raise AdapterError(f"{folder}: holds {len(files)} .safetensors files, and it is not clear which is meant. Name the file itself.")
    pickle = next((file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in PICKLES), None)
    hint = f" {pickle} is a pickle, which can run code when it is opened, and is refused unread: convert it where you trust it." if pickle else ""
    raise AdapterError(f"{folder}: holds no .safetensors file.{hint} An embedding is such a file, or the folder of diffusers' two files.")


def _single(file: Path) -> tuple[str, torch.Tensor] | None:
    """(name, tensor) of a file with one tensor alone."""
    try:
        tensors, _ = read_tensors(file)
    except AdapterError:
        return None
    return next(iter(tensors.items())) if len(tensors) == 1 else None


def _widths(model: SDXL) -> dict[str, int]:
    """{"text_encoder": 768, "text_encoder_2": 1280} for SDXL 1.0; encoder 2 alone for a refiner."""
    widths = {"text_encoder_2": int(model.text_encoder_2.config.hidden_size)}
    return widths if model.text_encoder is None else {"text_encoder": int(model.text_encoder.config.hidden_size), **widths}


def _pair(path: Path, name: str, tensor: torch.Tensor, model: SDXL) -> Embedding:
    """diffusers' layout: this half, and its sibling in the same folder for each encoder that is left."""
    widths = {width: part for part, width in _widths(model).items()}
    halves: dict[str, tuple[Path, torch.Tensor]] = {}
    for file in [path, *_siblings(path)]:
        found = (name, tensor) if file == path else _single(file) if len(halves) < len(widths) else None
        part = widths.get(found[1].shape[-1]) if found and found[0] == name and found[1].ndim else None
        if found and part and part not in halves:
            halves[part] = (file, found[1])
    if not halves:
        raise AdapterError(
            f"{path}: its only tensor {name!r} is {tuple(tensor.shape)}, and this base wants a width of {_wanted(model)}. It is for another base."
        )
    files = [halves[part][0] for part in sorted(halves)]
    sha256 = sha256_file(files[0]) if len(files) == 1 else sha256_bytes("".join(map(sha256_file, files)).encode())
    return _embedding(name, path, sha256, {part: vectors for part, (_, vectors) in halves.items()}, model)


def _siblings(path: Path) -> list[Path]:
    """The files beside it, first those whose names differ by diffusers' "_2" alone."""
    others = [file for file in sorted(path.parent.glob("*.safetensors")) if file != path]
    return sorted(others, key=lambda file: file.stem.replace("_2", "", 1) != path.stem.replace("_2", "", 1))


def _bundle(path: Path, tensors: dict[str, torch.Tensor], found: list[re.Match[str]], model: SDXL) -> list[Embedding]:
    if output := next((match[0] for match in found if match[2].endswith("_out")), None):
        raise AdapterError(f"{path}: {output} is an output embedding, added behind the text encoder, which Darkroom does not read. Train it without that.")
    words: dict[str, dict[str, torch.Tensor]] = {}
    for match in found:
        words.setdefault(match[1], {})[CLIP_NAMES[match[2]]] = tensors[match[0]]
    sha256 = sha256_file(path)
    return [_embedding(name, path, sha256, vectors, model) for name, vectors in words.items()]


def _wanted(model: SDXL) -> str:
    return " or ".join(str(width) for width in _widths(model).values())


def _embedding(name: str, path: Path, sha256: str, vectors: dict[str, torch.Tensor], model: SDXL) -> Embedding:
    _check_name(name, path)
    checked = {}
    for part, width in _widths(model).items():
        if part not in vectors:
            layout = "clip_l" if part == "text_encoder" else "clip_g"
            raise AdapterError(f"{path}: {name!r} has no vectors for {part} ({layout}, width {width}). SDXL needs both halves; SD 1.x has but one.")
        checked[part] = _check_vectors(name, path, part, width, vectors[part])
    counts = {len(found) for found in checked.values()}
    if len(counts) > 1:
        raise AdapterError(
            f"{path}: {name!r} has {' and '.join(map(str, sorted(counts)))} vectors for the two encoders; both must have as many. Export it again."
        )
    if max(counts) > MOST:
        raise AdapterError(f"{path}: {name!r} has {max(counts)} vectors, and {MOST} is the limit: they must fit into one chunk of tokens.")
    return Embedding(name, path, sha256, checked)


def _check_name(name: str, path: Path) -> None:
    opened = name.removeprefix("<")
    if opened in RESERVED or FORBIDDEN.search(opened) or not re.search(r"\w", opened):
        raise AdapterError(
            f'{path}: its word would be "{name}", which a prompt cannot say as one word. '
            f"Letters, digits, _ . - and <...> are fine: rename the file, or train with another placeholder."
        )


def _check_vectors(name: str, path: Path, part: str, width: int, vectors: torch.Tensor) -> torch.Tensor:
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors) or not vectors.is_floating_point():
        shape = f"{tuple(vectors.shape)} {str(vectors.dtype).removeprefix('torch.')}"
        raise AdapterError(f"{path}: {name!r} is {shape} for {part}, and this base wants (n, {width}) floats. It was made for another base model.")
    if not torch.isfinite(vectors).all():
        raise AdapterError(f"{path}: {name!r} holds NaN or infinity for {part}. The training that made it diverged: use an earlier checkpoint.")
    return vectors
