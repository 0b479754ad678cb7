"""Arithmetic on whole checkpoints: the weighted sum of two, and the difference of two added to a third. One tensor of each is in memory.

What came of it is measured: how far the result lies from each parent, part by part. Blending is guesswork without pictures; this is the ruler.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from darkroom.errors import ModelError, RecipeError, did_you_mean
from darkroom.sdxl.checkpoint import IMPLEMENTATION, marks, write_source
from darkroom.sdxl.configs import read_json
from darkroom.sdxl.layout import CLIP_L, UNET, VAE
from darkroom.sdxl.sources import Folder, SingleFile, open_source

How = Literal["sum", "difference"]
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
CONSTANTS = ("position_ids", "logit_scale")  # not learned, and not in every file


@dataclass(frozen=True)
class Blend:
    """What is made: "sum" is (1 - w) A + w B, "difference" is A + w (B - C), each tensor with the weight of its place.

    `blocks` overrides `weight` by place: "input_blocks.4", "middle_block", "output_blocks.0", "time_embed", "label_emb" and "out" in the U-Net;
    "input_blocks", "output_blocks" and "unet" for several at once; "text_encoder", "text_encoder_2", "vae". The narrower word wins. The VAE is
    A's unless it is named: an average of two decoders is a third one, which nobody trained.
    """

    how: How = "sum"
    weight: float = 0.5
    blocks: Mapping[str, float] = field(default_factory=dict)

    def at(self, key: str) -> float:
        """The weight of one key of a single file."""
        return weight_at(places(key), self.blocks, 0.0 if key.startswith(VAE) else self.weight)


@dataclass(frozen=True)
class Distances:
    """||result - parent|| / ||parent|| (Frobenius, over all tensors of a part), by part; "all" is the whole model."""

    parent: str
    parts: dict[str, float]


def blend(out: Path, parents: list[Path], recipe: Blend, dtype: torch.dtype = torch.float16, metadata: Mapping[str, str] | None = None) -> list[Distances]:
    """Write the blend of two checkpoints or diffusers folders (three for a difference) as a single file, computed in float32.

    Gives how far the written result, rounding included, lies from each parent. Raises RecipeError for a wrong number of parents, a weight that is
    no number and a place that is not there; ModelError for another family, other shapes, missing keys, another prediction, NaN and overflow.
    """
    wanted = 2 if recipe.how == "sum" else 3
    if len(parents) != wanted:
        raise RecipeError(f'{len(parents)} checkpoints: a {recipe.how} takes {wanted}. how = "sum" is (1 - w) A + w B, "difference" is A + w (B - C).')
    sources = [open_source(place) for place in parents]
    shapes = _common(parents, sources)
    _check_places(recipe, shapes)
    said = _marks(parents, sources, recipe.how)
    mixed = _Mixed(out.stem, sources, shapes, recipe, dtype)
    write_source(mixed, out, dtype, _facts(parents, sources, recipe, said) | dict(metadata or {}), said)
    return mixed.distances()


class _Mixed:
    """The blend as a source, which measures what it gives."""

    def __init__(self, name: str, sources: list[SingleFile | Folder], shapes: dict[str, tuple[int, ...]], recipe: Blend, dtype: torch.dtype) -> None:
        self.name, self.shapes, self._sources, self._recipe, self._dtype = name, shapes, sources, recipe, dtype
        self._sums = [{part: [0.0, 0.0] for part in (*PARTS, "all")} for _ in sources]

    def tensor(self, key: str) -> torch.Tensor:
        """One tensor of the result. A weight of 0 gives A's own, bit by bit."""
        first = self._sources[0].tensor(key)
        if key.endswith(CONSTANTS):
            return first
        weight = self._recipe.at(key)
        tensors = [first.float(), *(source.tensor(key).reshape(self.shapes[key]).float() for source in self._sources[1:])]
        if not weight:
            made = first
        elif self._recipe.how == "sum":
            made = tensors[0].lerp(tensors[1], weight)
        else:
            made = tensors[0] + weight * (tensors[1] - tensors[2])
        self._measure(part_of(key), made.to(self._dtype).float(), tensors)
        return made

    def _measure(self, part: str, made: torch.Tensor, tensors: list[torch.Tensor]) -> None:
        for sums, tensor in zip(self._sums, tensors, strict=True):
            apart, size = (_square(x) for x in (made - tensor, tensor))
            for name in (part, "all"):
                sums[name][0] += apart
                sums[name][1] += size

    def distances(self) -> list[Distances]:
        """After every tensor was asked for."""
        ratio = [{part: math.sqrt(apart / size) for part, (apart, size) in sums.items() if size} for sums in self._sums]
        return [Distances(source.name, parts) for source, parts in zip(self._sources, ratio, strict=True)]


def _square(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def part_of(key: str) -> str:
    """unet, vae, text_encoder or text_encoder_2."""
    if key.startswith(UNET):
        return "unet"
    if key.startswith(VAE):
        return "vae"
    return "text_encoder" if key.startswith(CLIP_L) else "text_encoder_2"


def places(key: str) -> list[str]:
    """The words for the place of a key, the narrowest first: ["input_blocks.4", "input_blocks", "unet"]."""
    return words_at(part_of(key), key.removeprefix(UNET))


def words_at(part: str, path: str) -> list[str]:
    """The same for a part of the model and, in the U-Net, a path in sgm's spelling: ("unet", "input_blocks.4.1.proj_in")."""
    if part != "unet":
        return [part]
    first, *rest = path.split(".")
    return [f"{first}.{rest[0]}", first, part] if first in ("input_blocks", "output_blocks") else [first, part]


def weight_at(words: Iterable[str], blocks: Mapping[str, float], otherwise: float) -> float:
    """The weight of the first word that `blocks` names."""
    return next((float(blocks[word]) for word in words if word in blocks), otherwise)


def check_words(blocks: Mapping[str, float], known: Iterable[str], whose: str = "these checkpoints") -> None:
    """Raises RecipeError for a weight that is no number and a place that is not among the `known`."""
    there = set(known)
    for word, weight in blocks.items():
        if not math.isfinite(weight):
            raise RecipeError(f"{word} = {weight}: is no number. 0 leaves the place as it is, and 1 takes the whole.")
        if word not in there:
            shown = ", ".join(sorted({re.sub(r"\.\d+$", ".N", word) for word in there}))
            raise RecipeError(f'"{word}" is no place of {whose}.{did_you_mean(word, there)} Places are {shown}.')


def _check_places(recipe: Blend, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not math.isfinite(recipe.weight):
        raise RecipeError(f"weight = {recipe.weight}: is no number. 0 keeps A, and 1 takes B or the whole difference.")
    check_words(recipe.blocks, {word for key in shapes for word in places(key)})


def _common(paths: list[Path], sources: list[SingleFile | Folder]) -> dict[str, tuple[int, ...]]:
    """The keys of the model, of the same shape in every parent; what else lies about in a file is left out."""
    found = [{key: shape for key, shape in source.shapes.items() if key.startswith((UNET, VAE, "conditioner."))} for source in sources]
    first = found[0]
    for path, other in zip(paths[1:], found[1:], strict=True):
        family = [("base" if any(key.startswith(CLIP_L) for key in keys) else "refiner") for keys in (first, other)]
        if family[0] != family[1]:
            raise ModelError(f"{path}: is an SDXL {family[1]}, and {paths[0]} is an SDXL {family[0]}. Only checkpoints of one family can be blended.")
        apart = sorted(key for key in first.keys() ^ other.keys() if not key.endswith(CONSTANTS))
        if apart:
            lacking = paths[0] if apart[0] in other else path
            raise ModelError(f"{lacking}: {apart[0]} is missing, which the other one has ({len(apart)} keys differ). Give whole checkpoints of one kind.")
        wrong = [key for key in first if key in other and math.prod(first[key]) != math.prod(other[key])]
        if wrong:
            raise ModelError(f"{path}: {wrong[0]} is {other[wrong[0]]}, and {first[wrong[0]]} in {paths[0]}. They are models of different sizes.")
    return first


def _marks(paths: list[Path], sources: list[SingleFile | Folder], how: How) -> tuple[str, ...]:
    """What A predicts goes for the result. Raises ModelError where a sum would mix two predictions."""
    said = [_said(path, source) for path, source in zip(paths, sources, strict=True)]
    if how == "sum" and said[0] != said[1]:
        words = [("v" if "v_pred" in mark else "noise") + (" to zero SNR" if "ztsnr" in mark else "") for mark in said]
        raise ModelError(f"{paths[1]}: predicts {words[1]}, and {paths[0]} predicts {words[0]}. A sum of the two predicts neither: use a difference.")
    return said[0]


def _said(path: Path, source: SingleFile | Folder) -> tuple[str, ...]:
    if isinstance(source, Folder):
        return marks(read_json(path / "scheduler" / "scheduler_config.json"))
    v = "v_pred" in source.shapes or source.metadata.get("modelspec.prediction_type") == "v"
    return (*(["v_pred"] if v else []), *(["ztsnr"] if "ztsnr" in source.shapes else []))


def _facts(paths: list[Path], sources: list[Any], recipe: Blend, said: tuple[str, ...]) -> dict[str, str]:
    names = [path.name for path in paths]
    kept = {key: value for key, value in getattr(sources[0], "metadata", {}).items() if key == "modelspec.resolution"}
    refines = not any(key.startswith(CLIP_L) for key in sources[0].shapes)
    return kept | {
        "modelspec.sai_model_spec": "1.0.1", "modelspec.implementation": IMPLEMENTATION,
        "modelspec.architecture": f"stable-diffusion-xl-v1-{'refiner' if refines else 'base'}",
        "modelspec.title": " + ".join(source.name for source in sources),
        "modelspec.prediction_type": "v" if "v_pred" in said else "epsilon",
        "modelspec.merged_from": ", ".join(names),
        "darkroom.blend": json.dumps({"how": recipe.how, "weight": recipe.weight, "blocks": dict(sorted(recipe.blocks.items())), "parents": names}),
    }  # fmt: skip
