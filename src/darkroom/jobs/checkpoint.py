"""Base models as files: looked into, brought into another form, blended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from darkroom import pocket
from darkroom.errors import OutputError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.combine import Number, dtype_of, free, open_unread
from darkroom.jobs.watch import Silent, Watcher

To = Literal["single", "folder"]


def show_base(model: str) -> dict[str, Any]:
    """Family, parameters by part beside SDXL's own, dtypes, prediction, metadata: from headers alone. Raises ModelError."""
    from darkroom.sdxl.survey import survey

    return survey(place_of(model))


def place_of(model: str) -> Path:
    """A path as it is, pocket's folder, or the folder of a hub id in the hub's cache. Raises ModelError."""
    from darkroom.sdxl.model import PICKLES, download

    place = Path(pocket.resolve(model))
    return place if place.exists() or place.suffix.lower() in (".safetensors", *PICKLES) else download(model)


@dataclass(frozen=True)
class Conversion:
    """A model, the form and dtype wanted (empty: as it is), and a VAE to go in instead of its own."""

    model: str
    out: Path
    to: To
    dtype: Number = ""
    vae: str = ""
    config: Path | None = None


def convert_base(asked: Conversion, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the model in another form, one tensor at a time, and say what a cast cost. Raises ModelError, OutputError, RecipeError."""
    from darkroom.sdxl.stream import HASH
    from darkroom.sdxl.unread import Cast, counted, write_model

    if (asked.out.suffix == ".safetensors") != (asked.to == "single"):
        rule = "a single file ends in .safetensors" if asked.to == "single" else "a folder does not end in .safetensors"
        raise RecipeError(f"--out {asked.out}: {rule}. Name the place so, or choose another form with --to.")
    free(asked.out)
    own = open_unread(asked.model, asked.config)
    unread = own.with_vae(Path(pocket.resolve(asked.vae))) if asked.vae else own
    dtype = dtype_of(asked.dtype, own.dtype)
    cast = Cast(unread.tensor, dtype)
    metadata = {key: value for key, value in own.metadata.items() if key != HASH}
    if asked.vae:
        metadata["darkroom.vae"] = json.dumps({name: sha256_file(file) for name, file in unread.model.files.items() if name.startswith("vae/")})
    write_model(unread.model, counted(cast.tensor, unread, (watcher or Silent()).move), asked.out, dtype, metadata)
    return {
        "out": str(asked.out), "from": asked.model, "to": asked.to, "dtype": str(dtype).removeprefix("torch."), "vae": asked.vae or None,
        "cast": {"all": cast.ruler.error, **{part: found["error"] for part, found in cast.ruler.blocks().items()}}, **_hashed(asked.out),
    }  # fmt: skip


def _hashed(out: Path) -> dict[str, Any]:
    return {"size": out.stat().st_size, "sha256": sha256_file(out)} if out.is_file() else {}


@dataclass(frozen=True)
class BlendOf:
    """Two models for a sum, three for a difference; `blocks` are "PLACE=W"."""

    models: tuple[str, ...]
    out: Path
    how: Literal["sum", "difference"] = "sum"
    weight: float = 0.5
    blocks: tuple[str, ...] = field(default_factory=tuple)
    dtype: Number = "fp16"


def merge_bases(asked: BlendOf) -> dict[str, Any]:
    """Write the blend as a single file, and say how far it lies from each parent. Raises ModelError, OutputError, RecipeError."""
    import torch

    from darkroom.jobs.combine import parse_blocks
    from darkroom.sdxl.blend import Blend, blend

    if asked.out.suffix != ".safetensors":
        raise RecipeError(f"--out {asked.out}: a blend is a single file, which ends in .safetensors. `darkroom base convert` makes a folder of it.")
    if asked.out.exists():
        raise OutputError(f"{asked.out}: is there already. Name another file with --out.")
    recipe = Blend(asked.how, asked.weight, parse_blocks(asked.blocks, 1)[0])
    distances = blend(asked.out, [place_of(model) for model in asked.models], recipe, dtype_of(asked.dtype, torch.float16))
    return {
        "out": str(asked.out), "how": asked.how, "weight": asked.weight, "blocks": dict(recipe.blocks), "models": list(asked.models),
        "dtype": asked.dtype, "distances": [{"parent": found.parent, "parts": found.parts} for found in distances], **_hashed(asked.out),
    }  # fmt: skip
