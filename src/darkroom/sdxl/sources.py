"""Where a checkpoint's tensors come from: a model in memory, a single file or a diffusers folder, all by the keys of a single file.

A source holds names and shapes; a tensor is read when it is asked for. Files are mapped into memory, never read whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.sdxl.configs import folder_configs, modules, read_json
from darkroom.sdxl.family import Header, must_be, read_header
from darkroom.sdxl.layout import VAE, Piece, canonical, layout, vae_layout
from darkroom.sdxl.model import SDXL

OLD_ATTENTION = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
"""diffusers' names of an autoencoder's attention before 0.18, in which many VAE files still lie."""


class Source(Protocol):
    """Tensors by key."""

    name: str
    shapes: dict[str, tuple[int, ...]]

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor, of whatever dtype it lies in."""


class Live:
    """A model in memory. Raises ValueError where an adapter is still on it."""

    def __init__(self, model: SDXL) -> None:
        parts = {**model.parts, "vae": model.vae}
        self.name, self._pieces = model.source, layout(parts)
        self._states = {part: module.state_dict() for part, module in parts.items()}
        self.shapes = {key: piece.shape for key, piece in self._pieces.items()}

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor of the model, where it lies."""
        piece = self._pieces[key]
        return piece.pack([self._states[piece.part][name] for name in piece.names])


class SingleFile:
    """A checkpoint of one file. The file stays mapped while this lives."""

    def __init__(self, header: Header) -> None:
        self.name, self.shapes, self.metadata = header.path.stem, header.shapes, header.metadata
        self._opened = safe_open(hand_over(header.path), "pt")

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor of the file, mapped."""
        found: torch.Tensor = self._opened.get_tensor(key)  # type: ignore[no-untyped-call]
        return found


class Folder:
    """A diffusers folder, whole. Raises ModelError where a part, a configuration or a tensor is missing."""

    def __init__(self, folder: Path) -> None:
        parts = modules(folder_configs(folder))
        self.name, self._pieces = folder.name, layout(parts)
        self.parts = {part: PartFolder(folder / part, module) for part, module in parts.items()}
        self.shapes = {key: piece.shape for key, piece in self._pieces.items()}

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor of the folder, as a single file would hold it."""
        piece = self._pieces[key]
        return self.parts[piece.part].packed(piece)


class PartFolder:
    """One part's folder, such as unet/ or vae/, or one .safetensors of its weights, with the tensors of `module` in it."""

    def __init__(self, place: Path, module: nn.Module) -> None:
        self._stack = ExitStack()
        self._where: dict[str, tuple[Any, str]] = {}
        for file in [place] if place.is_file() else weight_files(place):
            try:
                opened = self._stack.enter_context(safe_open(hand_over(file), "pt"))
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{file}: is not a whole safetensors file ({error}). Fetch it again.") from None
            self._where |= {_current(key): (opened, key) for key in opened.keys()}  # noqa: SIM118 - not a dict
        for name, tensor in module.state_dict().items():
            self._check(place, name, tuple(tensor.shape))

    def _check(self, place: Path, name: str, wanted: tuple[int, ...]) -> None:
        if canonical(name) not in self._where:
            raise ModelError(f"{place}: {name} is missing. The part belongs to another model, or was not fetched whole.")
        opened, key = self._where[canonical(name)]
        found = tuple(opened.get_slice(key).get_shape())
        if _plain(found) != _plain(wanted):
            raise ModelError(f"{place}: {name} is {found} in the file, and the model wants {wanted}. It belongs to another model.")

    def packed(self, piece: Piece) -> torch.Tensor:
        """The tensor of one key of a single file."""
        found = []
        for name in piece.names:
            opened, key = self._where[canonical(name)]
            found.append(opened.get_tensor(key))
        packed = piece.pack(found)
        return packed.reshape(piece.shape)


class VaeSource:
    """A VAE from a diffusers folder (of a VAE, or of a whole model), or from a file: bare or whole, in sgm's names or in diffusers'.

    Raises ModelError where there is none, or one of other shapes than the model's own.
    """

    def __init__(self, place: Path, vae: nn.Module) -> None:
        self.name, self._pieces = place.stem, vae_layout(vae)
        self.shapes = {key: piece.shape for key, piece in self._pieces.items()}
        if place.is_dir():
            self._part: PartFolder | None = PartFolder(place / "vae" if (place / "vae").is_dir() else place, vae)
            return
        header = read_header(place)
        must_be(header, "VAE", "SDXL base", "SDXL refiner")
        self._part = PartFolder(place, vae) if any(".mid_block." in key for key in header.shapes) else None
        if self._part is None:
            self._file = SingleFile(header)
            self._prefix = next((p for p in (VAE, "vae.", "") if f"{p}encoder.conv_in.weight" in header.shapes), VAE)
            check_shapes(place, {VAE + key.removeprefix(self._prefix): shape for key, shape in header.shapes.items()}, self.shapes, "the model's VAE")

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor of the VAE, by its key in a whole checkpoint."""
        if self._part is not None:
            return self._part.packed(self._pieces[key])
        return self._file.tensor(self._prefix + key.removeprefix(VAE)).reshape(self.shapes[key])


class Overlay:
    """A source with some of its keys taken from another."""

    def __init__(self, under: Source, over: Source) -> None:
        self.name, self.shapes, self._under, self._over = under.name, under.shapes, under, over

    def tensor(self, key: str) -> torch.Tensor:
        """The overlay's tensor where it has one."""
        return (self._over if key in self._over.shapes else self._under).tensor(key)


def check_shapes(path: Path | str, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], whose: str) -> None:
    """Compare names and shapes before anything is allocated; (n, n, 1, 1) is (n, n). Raises ModelError with the first that differ."""
    missing = sorted(wanted.keys() - found.keys())
    wrong = [key for key in wanted if key in found and _plain(found[key]) != _plain(wanted[key])]
    if wrong:
        raise ModelError(
            f"{path}: {len(wrong)} tensors have other shapes than those of {whose}: {wrong[0]} is {found[wrong[0]]} and not {wanted[wrong[0]]}. "
            "If it was made with another configuration, name its diffusers folder with base_config."
        )
    if missing:
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(f"{path}: {len(missing)} of {len(wanted)} tensors of {whose} are missing: {', '.join(missing[:3])}{rest}. Fetch the whole checkpoint.")


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the 1 x 1 of a convolution that is a matrix."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def weight_files(folder: Path) -> list[Path]:
    """The weights of a part: those that its index names, else the only ones, else those without a variant such as .fp16 in the name."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        if index.name.count(".") == 3:
            names = {str(file) for file in read_json(index)["weight_map"].values()}
            if strange := sorted(name for name in names if Path(name).name != name):
                raise ModelError(f"{index}: names {strange[0]!r}, which is no file beside it. Fetch the model again.")
            return sorted(folder / name for name in names)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no .safetensors. Fetch the model again, or convert a pickle elsewhere: pickles are refused.")
    plain = [file for file in files if file.name.count(".") == 1]
    return plain or files[:1]


def _current(key: str) -> str:
    """A stored name as today's diffusers and transformers spell it."""
    key = key.removeprefix("vae.")
    if (head := "coder.mid_block.attentions.0.") in key:
        side, _, tail = key.partition(head)
        key = side + head + next((new + tail.removeprefix(old) for old, new in OLD_ATTENTION.items() if tail.startswith(old)), tail)
    return canonical(key)


def open_source(place: Path) -> SingleFile | Folder:
    """A whole SDXL, base or refiner, for reading tensor by tensor. Raises ModelError."""
    if place.is_dir():
        check_index(place)
        return Folder(place)
    header = read_header(place)
    must_be(header, "SDXL base", "SDXL refiner")
    return SingleFile(header)


def check_index(folder: Path) -> None:
    """model_index.json is that of an SDXL. Raises ModelError."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{folder}: has no model_index.json, so it is no diffusers model folder. Give the folder that holds unet/, vae/ and so on.")
    family = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "unknown")
    if not str(family).startswith("StableDiffusionXL"):
        raise ModelError(f"{folder}: is a {family}, and Darkroom works on SDXL. Give an SDXL folder, or `pocket`.")
