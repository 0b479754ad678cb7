"""What a base model's file or folder holds, told from headers alone: family, parts and their parameters beside the true counts, dtypes, prediction."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.sdxl.blend import CONSTANTS, part_of
from darkroom.sdxl.checkpoint import MARKS, predicts_v, schedule_of
from darkroom.sdxl.configs import SCHEDULER, Config, Kind, read_json
from darkroom.sdxl.family import WORDS, Family, read_header
from darkroom.sdxl.layout import UNET, VAE
from darkroom.sdxl.sources import check_index, weight_files

TRUE: dict[str, dict[str, int]] = {
    "base": {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "vae": 83_653_863},
    "refiner": {"unet": 2_259_526_660, "text_encoder_2": 694_659_840, "vae": 83_653_863},
}
"""Parameters of SDXL 1.0 (Podell et al. 2023; counted from the published configurations)."""
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header names it."""

    part: str
    name: str
    shape: tuple[int, ...]
    dtype: str


def survey(place: Path) -> dict[str, Any]:
    """The facts, as JSON has them. No weight is read. Raises ModelError for a pickle, what is missing or damaged, and an adapter."""
    return _of_folder(place) if place.is_dir() else _of_file(place)


def _of_file(place: Path) -> dict[str, Any]:
    header = read_header(place)
    if header.family in ("adapter", "embedding"):
        raise ModelError(f"{place}: is an {header.family} and no base model. `darkroom adapter show {place}` looks into it.")
    whole = header.family.startswith("SDXL")
    tensors = [Tensor(_part(name) if whole else "other", name, header.shapes[name], dtype) for name, dtype in _dtypes(place)]
    scheduler = schedule_of(dict(SCHEDULER), header.shapes, header.metadata)
    kind = "refiner" if header.family == "SDXL refiner" else "base"
    facts = {"path": str(place), "form": "single file", "size": place.stat().st_size, "family": header.family, "what": WORDS[header.family]}
    return facts | _counts(tensors, kind if whole else "") | (_prediction(scheduler) if whole else {}) | {"metadata": dict(sorted(header.metadata.items()))}


def _part(name: str) -> str:
    """Keys that belong to no part, such as those of an EMA, are others."""
    return part_of(name) if name.startswith((UNET, VAE, "conditioner.embedders.")) else "other"


def _of_folder(place: Path) -> dict[str, Any]:
    check_index(place)
    kind: Kind = "base" if (place / "text_encoder").is_dir() else "refiner"
    family: Family = "SDXL base" if kind == "base" else "SDXL refiner"
    files = [(part, file) for part in TRUE[kind] for file in weight_files(place / part)]
    tensors = [Tensor(part, name, shape, dtype) for part, file in files for name, shape, dtype in _of_part(file)]
    facts = {"path": str(place), "form": "diffusers folder", "size": sum(file.stat().st_size for _, file in files), "family": family, "what": WORDS[family]}
    scheduler, said = read_json(place / "scheduler" / "scheduler_config.json"), place / "darkroom.json"
    return facts | _counts(tensors, kind) | _prediction(scheduler) | {"metadata": read_json(said) if said.is_file() else {}}


def _of_part(file: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    shapes = read_header(file).shapes
    yield from ((name, shapes[name], dtype) for name, dtype in _dtypes(file))


def _dtypes(file: Path) -> list[tuple[str, str]]:
    with safe_open(hand_over(file), "pt") as opened:
        return [(name, str(opened.get_slice(name).get_dtype())) for name in opened.keys()]  # noqa: SIM118 - not a dict


def _counts(tensors: list[Tensor], kind: str) -> dict[str, Any]:
    """By part, parameters beside SDXL's; `kind` is empty for what is no SDXL."""
    learned = [t for t in tensors if not t.name.endswith(CONSTANTS) and t.name not in MARKS]
    parts: dict[str, dict[str, Any]] = {}
    for part in (*PARTS, "other"):
        if here := [t for t in learned if t.part == part]:
            dtypes: Counter[str] = Counter()
            for t in here:
                dtypes[t.dtype] += math.prod(t.shape)
            parts[part] = {"parameters": dtypes.total(), "tensors": len(here), "dtypes": dict(dtypes.most_common()), "true": TRUE.get(kind, {}).get(part)}
    missing = [part for part in TRUE.get(kind, {}) if part not in parts]
    return {"parameters": sum(found["parameters"] for found in parts.values()), "parts": parts, "missing": missing}


def _prediction(scheduler: Config) -> dict[str, Any]:
    return {"prediction": "v" if predicts_v(scheduler) else "noise", "zero_snr": bool(scheduler.get("rescale_betas_zero_snr"))}


def lines(known: Mapping[str, Any]) -> list[str]:
    """The facts for a terminal."""
    told = [f"{known['path']}: {known['what']}, {known['form']}, {known['size'] / 1e6:,.1f} MB, {known['parameters']:,} parameters"]
    for part, found in known["parts"].items():
        dtypes = found["dtypes"]
        named = ", ".join(dtypes) if len(dtypes) == 1 else ", ".join(f"{dtype} ({count / found['parameters']:.0%})" for dtype, count in dtypes.items())
        told.append(f"{part:16}{found['parameters']:>16,}   {named:12}   {_beside(part, found)}".rstrip())
    told += [f"{part:16}{'missing':>16}" for part in known["missing"]]
    if "prediction" in known:
        told.append(f"predicts {known['prediction']}" + (", its last step is pure noise (zero SNR)" if known["zero_snr"] else ""))
    return told + [f"{key.removeprefix('modelspec.')}: {value if len(value) <= 200 else value[:197] + '...'}" for key, value in known["metadata"].items()]


def _beside(part: str, found: Mapping[str, Any]) -> str:
    if found["true"] is None:
        return "belongs to no part of SDXL, and changes no picture" if part == "other" else ""
    return "as SDXL 1.0" if found["parameters"] == found["true"] else f"SDXL 1.0 has {found['true']:,}"
