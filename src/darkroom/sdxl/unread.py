"""A model whose weights stay in their files: its shapes are on the meta device, and a tensor is read when it is asked for.

What is computed from a model tensor by tensor (merging, extracting, converting) opens it so, and writes what it made as a single file or a folder
without ever holding a whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.errors import ModelError, OutputError
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.adapters.share import Ruler
from darkroom.sdxl.checkpoint import check_pieces, marks, modelspec, predicts_v, schedule_of
from darkroom.sdxl.configs import SCHEDULER, WORDS, Config, assemble, configs, folder_configs, modules, read_json
from darkroom.sdxl.family import WORDS as WHAT
from darkroom.sdxl.family import read_header
from darkroom.sdxl.folder import Tensors, write_tensors
from darkroom.sdxl.layout import CLIP_L, Piece, layout
from darkroom.sdxl.model import PICKLES, SDXL, checked, download
from darkroom.sdxl.sources import Folder, Overlay, SingleFile, Source, VaeSource, open_source
from darkroom.sdxl.stream import stream


@dataclass(frozen=True, eq=False)
class Unread:
    """`model` holds shapes, schedule and tokenizers, `source` the tensors by the keys of a single file."""

    place: Path
    source: Source
    model: SDXL

    @classmethod
    def open(cls, base: str | Path, config: Path | None = None, name: str = "") -> Unread:
        """Open a diffusers folder, a single file or a hub id. `config`: a folder whose configuration a single file follows (None: SDXL 1.0's own).

        Every name and shape is checked, and no weight is read. Raises ModelError as `model.load` does.
        """
        place = Path(base)
        if not place.exists() and place.suffix.lower() not in (".safetensors", *PICKLES):
            place = download(str(base))
        source = open_source(place)
        model = _of_folder(place, source) if isinstance(source, Folder) else _of_file(place, source, config)
        return cls(place, source, checked(replace(model, source=name or str(base))))

    @property
    def name(self) -> str:
        """pocket and hub ids as they are, a file or folder by its own name."""
        return self.place.name if Path(self.model.source).exists() else self.model.source

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """unet, text encoders and vae, on the meta device."""
        return {**self.model.parts, "vae": self.model.vae}

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """The keys of the model's single file."""
        return layout(self.parts)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every module that an adapter can name."""
        return Catalogue.of(self.model)

    @cached_property
    def _keys(self) -> dict[tuple[str, str], str]:
        return {(piece.part, name): key for key, piece in self.pieces.items() for name in piece.names}

    def tensor(self, part: str, name: str) -> torch.Tensor:
        """One tensor as the model holds it, in the dtype in which it lies."""
        key = self._keys[part, name]
        piece = self.pieces[key]
        return piece.unpack(self.source.tensor(key).reshape(piece.shape))[name]

    def weight(self, key: Key) -> torch.Tensor:
        """The weight of a module."""
        return self.tensor(key[0], f"{key[1]}.weight")

    @cached_property
    def dtype(self) -> torch.dtype:
        """That of the U-Net's first weight."""
        return self.tensor("unet", "conv_in.weight").dtype

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a single file says of itself; nothing of a folder."""
        found: Mapping[str, str] = getattr(self.source, "metadata", {})
        return found

    def with_vae(self, place: Path) -> Unread:
        """The same with another VAE, from a folder or a file. Its own configuration goes with it. Raises ModelError for one of other shapes."""
        if not place.exists():
            raise ModelError(f"{place}: there is no such file or folder. A VAE is a .safetensors file, or a diffusers folder of one or of a whole model.")
        if place.is_file() and (family := read_header(place).family) not in ("VAE", "SDXL base", "SDXL refiner"):
            raise ModelError(f"{place}: is no VAE, and no whole SDXL that holds one, but {WHAT[family].partition('.')[0]}.")
        found = next((file for file in (place / "vae" / "config.json", place / "config.json") if file.is_file()), None)
        vae: Any = modules({"vae": read_json(found)})["vae"] if found else self.model.vae
        folder = place / "vae" if (place / "vae").is_dir() else place
        others = {name: file for name, file in self.model.files.items() if not name.startswith("vae/")}
        files = others | {f"vae/{file.name}": file for file in (sorted(folder.glob("*.safetensors")) if place.is_dir() else [place])}
        return Unread(self.place, Overlay(self.source, VaeSource(place, self.model.vae)), replace(self.model, vae=vae, files=files))


def _of_folder(place: Path, source: Folder) -> SDXL:
    index = read_json(place / "model_index.json")
    scheduler = read_json(place / "scheduler" / "scheduler_config.json")
    model = _assembled(folder_configs(place), scheduler, place, index.get("force_zeros_for_empty_prompt"))
    model.files = {f"{name}/{file.name}": file for name in source.parts for file in sorted((place / name).glob("*.safetensors"))}
    return model


def _of_file(place: Path, source: SingleFile, config: Path | None) -> SDXL:
    is_base = any(key.startswith(CLIP_L) for key in source.shapes)
    found = folder_configs(config) if config else configs("base" if is_base else "refiner")
    if ("text_encoder" in found) != is_base:
        raise ModelError(f"{place}: is an SDXL {'base' if is_base else 'refiner'}, and {config} configures the other one. Name the folder that belongs to it.")
    index = read_json(config / "model_index.json") if config else {}
    scheduler = schedule_of(read_json(config / "scheduler" / "scheduler_config.json") if config else dict(SCHEDULER), source.shapes, source.metadata)
    model = _assembled(found, scheduler, config or WORDS, index.get("force_zeros_for_empty_prompt"))
    whose = str(config or ("SDXL 1.0" if is_base else "the SDXL refiner"))
    check_pieces(place, source.shapes, layout({**model.parts, "vae": model.vae}), whose)
    model.files = {place.name: place}
    return model


def _assembled(found: dict[str, Config], scheduler: Config, words: Path, zeroes_empty: bool | None) -> SDXL:
    return assemble(modules(found), scheduler, "", torch.device("meta"), torch.float32, words, zeroes_empty)


def write_model(model: SDXL, tensors: Tensors, out: Path, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write `tensors(part, name)` of every tensor of the model: OUT.safetensors is a single file, any other name a diffusers folder.

    One tensor at a time is in memory. `metadata` goes into the file's header over modelspec's words, or into darkroom.json of the folder.
    Raises OutputError where something is there already, ModelError for NaN, infinity and float16's overflow.
    """
    if out.suffix == ".safetensors":
        _write_file(model, tensors, out, dtype, metadata)
    else:
        write_tensors(model, tensors, out, dtype, metadata)


def _write_file(model: SDXL, tensors: Tensors, out: Path, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    if out.exists():
        raise OutputError(f"{out}: is there already. Name another file with --out.")
    pieces, marked = layout({**model.parts, "vae": model.vae}), marks(model.scheduler_config)
    entries = {key: (torch.int64 if key.endswith("position_ids") else dtype, piece.shape) for key, piece in pieces.items()}

    def tensor(key: str) -> torch.Tensor:
        if key in marked:
            return torch.empty(0)
        piece = pieces[key]
        return piece.pack([tensors(piece.part, name) for name in piece.names])

    facts = modelspec(model.text_encoder is not None, model.resolution, out.stem, predicts_v(model.scheduler_config))
    stream(out, entries | dict.fromkeys(marked, (dtype, (0,))), tensor, facts | dict(metadata))


class Cast:
    """Tensors as they are, and a ruler for what writing them in `dtype` loses, by part."""

    def __init__(self, tensors: Tensors, dtype: torch.dtype) -> None:
        self._tensors, self._dtype, self.ruler = tensors, dtype, Ruler()

    def tensor(self, part: str, name: str) -> torch.Tensor:
        """The tensor itself."""
        found = self._tensors(part, name)
        exact = found.double()
        self.ruler.add(part, float((found.to(self._dtype).double() - exact).norm()), float(exact.norm()))
        return found


def counted(tensors: Tensors, model: Unread, move: Callable[[str, int, int], None]) -> Tensors:
    """The same, and `move("writing", done, total)` at every tensor that is asked for."""
    total, done = sum(len(module.state_dict()) for module in model.parts.values()), 0

    def tensor(part: str, name: str) -> torch.Tensor:
        nonlocal done
        done += 1
        move("writing", done, total)
        return tensors(part, name)

    return tensor
