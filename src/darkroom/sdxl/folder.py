"""Write a model as a diffusers folder, which stock from_pretrained loads, of today and of years ago."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom.files import whole_folder, write_json, write_text
from darkroom.sdxl.layout import canonical
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.sources import weight_files
from darkroom.sdxl.stream import stream

CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"), "vae": ("diffusers", "AutoencoderKL"), "scheduler": ("diffusers", "EulerDiscreteScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"), "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"), "tokenizer_2": ("transformers", "CLIPTokenizer"),
}  # fmt: skip
FIRST = ("text_encoder", "tokenizer")  # a refiner has none


Tensors = Callable[[str, str], torch.Tensor]
"""The tensor of (part, name): ("unet", "conv_in.weight")."""


def write_folder(model: SDXL, path: Path, dtype: torch.dtype) -> None:
    """Write model_index.json, every part in `dtype`, tokenizers and scheduler. The folder is whole or not there; one tensor at a time is in memory.

    Raises OutputError where something lies there already or the place cannot be written, ModelError for NaN, infinity and float16's
    overflow, and ValueError where an adapter is still on the model.
    """
    states = {part: module.state_dict() for part, module in {**model.parts, "vae": model.vae}.items()}
    if adapted := next((name for state in states.values() for name in state if ".lora_" in name or ".base_layer." in name), None):
        raise ValueError(f"{adapted}: an adapter is on the model. Take it off (Attached.detach) before the model is written.")
    write_tensors(model, lambda part, name: states[part][name], path, dtype)


def write_tensors(
    model: SDXL, tensors: Tensors, path: Path, dtype: torch.dtype, metadata: Mapping[str, str] | None = None, unchanged: Mapping[str, Path] | None = None
) -> None:  # fmt: skip
    """The same of a model whose weights `tensors(part, name)` gives one by one; it may be on the meta device. `metadata` goes into darkroom.json.

    `unchanged` are parts and tokenizers of which a copy of another folder is taken, in its own number format: {"vae": FOLDER/vae}.
    """
    copied = unchanged or {}
    with whole_folder(path) as folder:
        for name, source in copied.items():
            _copy(source, folder / name)
        for part, module in sorted({**model.parts, "vae": model.vae}.items()):
            if part not in copied:
                _write_part(folder / part, part, module, tensors, dtype)
        for name in ("tokenizer", "tokenizer_2"):
            if (tokenizer := getattr(model, name)) is not None and name not in copied:
                _write_words(folder / name, tokenizer)
        scheduler = {"_class_name": CLASSES["scheduler"][1]} | model.scheduler_config
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
        write_json(folder / "model_index.json", _index(model, str(scheduler["_class_name"])))
        if metadata:
            write_json(folder / "darkroom.json", dict(metadata))


def _copy(source: Path, target: Path) -> None:
    """What loaders read of a part, without other variants of its weights."""
    target.mkdir()
    weights = weight_files(source) if any(source.glob("*.safetensors")) else []
    for file in [*weights, *sorted(source.glob("*.json")), *sorted(source.glob("*.txt"))]:
        shutil.copyfile(file, target / file.name)


def _index(model: SDXL, scheduler: str) -> dict[str, Any]:
    import diffusers

    refines = model.text_encoder is None
    classes = CLASSES | {"scheduler": ("diffusers", scheduler)}
    components = {name: [None, None] if refines and name in FIRST else list(value) for name, value in sorted(classes.items())}
    return {
        "_class_name": "StableDiffusionXLImg2ImgPipeline" if refines else "StableDiffusionXLPipeline",
        "_diffusers_version": diffusers.__version__,
        "force_zeros_for_empty_prompt": model.zeroes_empty,
        **({"requires_aesthetics_score": True} if refines else {}),
        **components,
    }


def _write_part(folder: Path, part: str, module: nn.Module, tensors: Tensors, dtype: torch.dtype) -> None:
    """Weights and config.json. Text encoders keep `text_model.` in their names: transformers before 5.6 wants it, and later ones understand it."""
    is_text = part.startswith("text_encoder")
    state = module.state_dict()
    names = {_stored(name) if is_text else name: name for name in state}
    folder.mkdir()
    config: Any = module.config
    if is_text:
        facts = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}  # whole: defaults differ between versions
        write_json(folder / "config.json", facts | {"dtype": str(dtype).removeprefix("torch."), "architectures": [type(module).__name__]})
    else:
        write_text(folder / "config.json", module.to_json_string())  # type: ignore[operator]
    file = folder / ("model.safetensors" if is_text else "diffusion_pytorch_model.safetensors")
    entries = {stored: (dtype, tuple(state[name].shape)) for stored, name in names.items()}
    stream(file, entries, lambda stored: tensors(part, names[stored]), {"format": "pt"}, hashed=False)


def _stored(name: str) -> str:
    return name if name == "text_projection.weight" else f"text_model.{canonical(name)}"


def _write_words(folder: Path, tokenizer: Any) -> None:
    """As transformers writes them, and vocab.json and merges.txt beside, which its versions before 5 look for."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_text(folder / "vocab.json", json.dumps(dict(sorted(model["vocab"].items(), key=lambda item: item[1])), ensure_ascii=False))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
