"""Textual inversion files in and out, bit by bit: n vectors for one new word, for each text encoder (Gal et al. 2022).

Layouts: "kohya" is one file with clip_l (n, 768) and clip_g (n, 1280), whose name is the word (sd-scripts, A1111, ComfyUI and most sites); "diffusers"
two files, one for each encoder, with one tensor under the word itself (its train_textual_inversion_sdxl.py); "bundled" is read from a LoRA, where
OneTrainer keeps bundle_emb.<word>.clip_l | clip_g, and written with one by `layouts.write`. A1111's own layout (string_to_param) has room for one encoder
alone and is that of SD 1.x and 2.x: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.files import sha256_bytes, sha256_file
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.keys import BUNDLED, SUFFIXES
from darkroom.sdxl.adapters.metadata import STALE, modelspec
from darkroom.sdxl.formats import write_adapter
from darkroom.sdxl.model import PICKLES

WIDTHS = {"clip_l": 768, "clip_g": 1280}
TWO = ("learned_embeds.safetensors", "learned_embeds_2.safetensors")
OUTPUT = re.compile(r"(bundle_emb\..+\.)?clip_[lg]_out")
OF_SD1 = ("emb_params", "string_to_param", "string_to_token", "*")
WordLayout = Literal["kohya", "diffusers", "bundled"]


@dataclass(frozen=True, eq=False)
class Word:
    """A new word: `vectors` are {"clip_l": (n, 768), "clip_g": (n, 1280)}, without clip_l where they were read for a refiner."""

    name: str
    vectors: dict[str, Tensor]
    files: tuple[Path, ...] = ()
    layout: WordLayout = "kohya"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many tokens the word takes."""
        return int(self.vectors["clip_g"].shape[0])

    @property
    def sha256(self) -> str:
        """That of the file; of diffusers' two files, that of their two hashes one behind the other."""
        found = [sha256_file(file) for file in self.files]
        return found[0] if len(found) == 1 else sha256_bytes("".join(found).encode())

    @property
    def file_name(self) -> str:
        """The word as the name of a file or folder. Raises AdapterError where it cannot be one."""
        if re.search(r"[/\\\0]|^\.|^$", self.name) or len(self.name) > 200:
            raise AdapterError(f"{self.files[0] if self.files else ''}: its word {self.name!r} cannot be a file's name. Give it another one with --word.")
        return self.name

    def called(self, name: str) -> Word:
        """The same vectors under another word."""
        kept = {key: value for key, value in self.metadata.items() if (key, value) != ("modelspec.title", self.name)}
        return replace(self, name=name, metadata=kept)


def holds_words(path: Path) -> bool:
    """Whether a file or folder is a textual inversion by its names alone, and no adapter, whole or not. Raises AdapterError as reading a header does."""
    if path.is_dir():
        return True
    names = Header.read(path).names
    alone = len(names) == 1 and not names[0].endswith(tuple(SUFFIXES)) and ("." not in names[0] or names[0].startswith("<"))
    return alone or (bool(names) and all(name in (*WIDTHS, *OF_SD1) or BUNDLED.fullmatch(name) or OUTPUT.fullmatch(name) for name in names))


def read_words(path: Path, widths: Mapping[str, int] | None = None) -> list[Word]:
    """All words of a file, or of the folder of diffusers' two, by name. `widths` are the base's (None: SDXL 1.0's; `Catalogue.words` gives another's).

    A file with one tensor alone is one half of diffusers' pair: the other half is the file beside it whose one tensor has the same name and the
    other encoder's width. Raises AdapterError for what is missing, a pickle, truncated, of another width, not finite or not understood whole.
    """
    known = dict(widths or WIDTHS)
    path = _only_file(path) if path.is_dir() else path
    if not path.exists():
        raise AdapterError(f"{path}: there is no such file. An embedding is a .safetensors file, or the folder of diffusers' two files.")
    header = Header.read(path)
    _check_names(header)
    if any(BUNDLED.fullmatch(name) for name in header.names):
        return list(_bundled(header, known))
    if set(header.names) & set(WIDTHS):
        return [_word(path.stem, {clip: (header, clip) for clip in WIDTHS if clip in header.names}, "kohya", known)]
    if len(header.names) == 1:
        return [_pair(header, known)]
    raise AdapterError(
        f"{path}: holds {len(header.names)} tensors, and none is clip_l, clip_g or bundled. It is no embedding for SDXL; --adapter takes adapters."
    )


def _check_names(header: Header) -> None:
    names = header.names
    if output := next((name for name in names if OUTPUT.fullmatch(name)), None):
        raise AdapterError(
            f"{header.path}: {output} is an output embedding, added behind the text encoder, which Darkroom does not read. Train it without that."
        )
    if old := next((name for name in names if name.partition(".")[0] in OF_SD1), None):
        raise AdapterError(f"{header.path}: {old} is A1111's layout for SD 1.x and 2.x, with room for one text encoder. It is for another base, not for SDXL.")
    if set(names) & set(WIDTHS) and (others := set(names) - set(WIDTHS)):
        raise AdapterError(f"{header.path}: holds {', '.join(sorted(others)[:3])} beside clip_l and clip_g, and no embedding has that. Nothing was loaded.")


def _only_file(folder: Path) -> Path:
    """The file to begin with: the only one, or diffusers' first (its script leaves those of earlier steps in the same folder)."""
    files = sorted(folder.glob("*.safetensors"))
    if folder / TWO[0] in files:
        return folder / TWO[0]
    if len(files) == 1 or (len(files) == 2 and all(_single(file) for file in files)):
        return files[0]
    if files:
        raise AdapterError(f"{folder}: holds {len(files)} .safetensors files, and it is not clear which is meant. Name the file itself.")
    pickle = next((file.name for file in sorted(folder.iterdir()) if file.suffix.lower() in PICKLES), None)
    hint = f" {pickle} is a pickle, which can run code when it is opened, and is refused unread: convert it where you trust it." if pickle else ""
    raise AdapterError(f"{folder}: holds no .safetensors file.{hint} An embedding is such a file, or the folder of diffusers' two files.")


def _single(file: Path) -> Header | None:
    """The header of a file with one tensor alone."""
    try:
        header = Header.read(file)
    except AdapterError:
        return None
    return header if len(header.names) == 1 else None


def _pair(first: Header, widths: Mapping[str, int]) -> Word:
    """diffusers' layout: this half, and its sibling in the same folder for each encoder that is left."""
    name, clips = first.names[0], {width: clip for clip, width in widths.items()}
    halves: dict[str, tuple[Header, str]] = {}
    for file in [first.path, *_siblings(first.path)]:
        header = first if file == first.path else _single(file) if len(halves) < len(widths) else None
        clip = clips.get(header.shape(name)[-1]) if header and header.names == [name] and header.shape(name) else None
        if header and clip and clip not in halves:
            halves[clip] = (header, name)
    if not halves:
        wanted = " or ".join(map(str, widths.values()))
        raise AdapterError(f"{first.path}: its only tensor {name!r} is {first.shape(name)}, and this base wants a width of {wanted}. It is for another base.")
    return _word(name, {clip: halves[clip] for clip in WIDTHS if clip in halves}, "diffusers", widths)


def _siblings(path: Path) -> list[Path]:
    """The files beside it, first those whose names differ by diffusers' "_2" alone."""
    others = [file for file in sorted(path.parent.glob("*.safetensors")) if file != path]
    return sorted(others, key=lambda file: file.stem.replace("_2", "", 1) != path.stem.replace("_2", "", 1))


def _bundled(header: Header, widths: Mapping[str, int]) -> Iterator[Word]:
    found: dict[str, dict[str, tuple[Header, str]]] = {}
    for match in filter(None, map(BUNDLED.fullmatch, header.names)):
        found.setdefault(match[1], {})[match[2]] = (header, match[0])
    for name, vectors in found.items():
        yield _word(name, vectors, "bundled", widths)


def _word(name: str, held: Mapping[str, tuple[Header, str]], layout: WordLayout, widths: Mapping[str, int]) -> Word:
    """Read and check the vectors of one word; `held` says where each lies. Those of an encoder that the base has not are left out."""
    first = next(iter(held.values()))[0]
    vectors = {}
    for clip, width in widths.items():
        if clip not in held:
            raise AdapterError(f"{first.path}: {name!r} has no vectors for {clip} (width {width}). SDXL needs both halves; SD 1.x has but one.")
        header, key = held[clip]
        _check_shape(header, key, name, clip, width)
        tensor = header.tensor(key)
        vectors[clip] = tensor[None] if tensor.ndim == 1 else tensor
    counts = {clip: len(tensor) for clip, tensor in vectors.items()}
    if len(set(counts.values())) > 1:
        told = " and ".join(map(str, counts.values()))
        raise AdapterError(f"{first.path}: {name!r} has {told} vectors for the two encoders; both must have as many. Export it again.")
    files = tuple(dict.fromkeys(held[clip][0].path for clip in widths))
    return Word(name, vectors, files, layout, {} if layout == "bundled" else dict(first.metadata))


def _check_shape(header: Header, key: str, name: str, clip: str, width: int) -> None:
    shape, dtype = header.shape(key), header.meta(key).dtype
    if len(shape) not in (1, 2) or shape[-1] != width or 0 in shape or not dtype.is_floating_point:
        told = f"{shape} {str(dtype).removeprefix('torch.')}"
        raise AdapterError(f"{header.path}: {name!r} has {clip} {told}, and this base wants (n, {width}) floats. It was made for another base model.")


def write_word(path: Path, word: Word, layout: Literal["kohya", "diffusers"]) -> list[Path]:
    """Write one word: "kohya" to the file `path`, whose name must be the word, "diffusers" to the two files in the folder `path`. Returns what was written.

    The header keeps what the word came with and says modelspec's MUST fields. Raises AdapterError, OutputError.
    """
    own = modelspec(word.name, kind="textual-inversion")
    said = own | word.metadata | {"modelspec.architecture": own["modelspec.architecture"], "modelspec.trigger_phrase": word.name}
    metadata = {name: value for name, value in said.items() if name not in STALE}
    match layout:
        case "kohya" if path.name != f"{word.file_name}.safetensors":
            raise AdapterError(
                f'{path}: in this layout the file\'s name is the word, and the word is "{word.name}". Write it to {word.name}.safetensors, '
                f"or call it otherwise with --word."
            )
        case "kohya":
            write_adapter(path, word.vectors, metadata)
            return [path]
        case "diffusers":
            for name, clip in zip(TWO, WIDTHS, strict=True):
                write_adapter(path / name, {word.name: word.vectors[clip]}, metadata)
            return [path / name for name in TWO]
