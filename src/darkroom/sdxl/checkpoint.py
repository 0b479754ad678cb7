"""Single-file checkpoints, SDXL base and refiner, in the layout that the field shares: what A1111, ComfyUI, sd-scripts and diffusers read and write.

What is written and read again is bit-equal in its own dtype, and equal to a cast in another. Nothing is unpickled; nothing goes over the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from darkroom.errors import ModelError
from darkroom.sdxl.configs import SCHEDULER, WORDS, Config, Parts, assemble, configs, fill, folder_configs, modules, read_json
from darkroom.sdxl.family import must_be, read_header
from darkroom.sdxl.layout import UNET, Piece, layout
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.sources import Live, Overlay, SingleFile, Source, VaeSource, check_shapes
from darkroom.sdxl.stream import ALIGNED, stream

MARKS = ("v_pred", "ztsnr")
"""Empty tensors by which ComfyUI, A1111's forks and sd-scripts' users know a model that predicts v, and one whose last step is pure noise."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"


def write_single_file(model: SDXL, path: Path, dtype: torch.dtype, vae: Path | None = None, metadata: Mapping[str, str] | None = None) -> None:
    """Write the model as one .safetensors, tensor by tensor: beyond the model itself, memory holds one tensor.

    `vae`: a folder or file whose VAE goes in instead of the model's own (the fp16 fix, or 0.9's). `metadata` adds to modelspec's words or
    replaces them. Equal model, dtype and metadata give equal bytes. Raises ModelError for a VAE of other shapes and for NaN, infinity and
    float16's overflow; OutputError; ValueError where an adapter is still on the model.
    """
    source: Source = Live(model)
    if vae is not None:
        source = Overlay(source, VaeSource(vae, model.vae))
    facts = modelspec(model.text_encoder is not None, model.resolution, Path(model.source).stem, predicts_v(model.scheduler_config))
    write_source(source, path, dtype, facts | dict(metadata or {}), marks(model.scheduler_config))


def write_source(source: Source, path: Path, dtype: torch.dtype, metadata: Mapping[str, str], marked: tuple[str, ...] = ()) -> None:
    """Any source as a single file: floating-point tensors in `dtype`, CLIP-L's positions in int64, and the empty tensors `marked`."""
    entries = {key: (torch.int64 if key.endswith("position_ids") else dtype, shape) for key, shape in source.shapes.items()}
    entries |= dict.fromkeys(marked, (dtype, (0,)))
    stream(path, entries, lambda key: torch.empty(0) if key in marked else source.tensor(key), metadata)


def modelspec(is_base: bool, resolution: int, title: str, v: bool = False) -> dict[str, str]:
    """The header words that modelspec 1.0.1 asks of a checkpoint; its hash is added while the file is written."""
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"stable-diffusion-xl-v1-{'base' if is_base else 'refiner'}",
        "modelspec.implementation": IMPLEMENTATION,
        "modelspec.title": title,
        "modelspec.resolution": f"{resolution}x{resolution}",
        "modelspec.prediction_type": "v" if v else "epsilon",
    }


def predicts_v(scheduler: Mapping[str, Any]) -> bool:
    """Whether a scheduler's configuration is that of a model which predicts v (Salimans and Ho 2022)."""
    return scheduler.get("prediction_type") == "v_prediction"


def marks(scheduler: Mapping[str, Any]) -> tuple[str, ...]:
    """The empty tensors that say so in a file."""
    return tuple(mark for mark, said in zip(MARKS, (predicts_v(scheduler), scheduler.get("rescale_betas_zero_snr")), strict=True) if said)


def read_single_file(path: Path, device: torch.device, dtype: torch.dtype, config: Path | None = None, vae: Path | None = None) -> SDXL:
    """Load an SDXL base or refiner from one .safetensors, mapped: where nothing is cast and nothing leaves the CPU, weights are read as they are used.

    `config`: a diffusers folder whose configuration, tokenizers and schedule the file follows; None is SDXL 1.0's or its refiner's own.
    `vae`: a folder or file whose VAE is taken instead. Before anything is allocated the header is checked: family, names and shapes.
    Raises ModelError for a pickle, a truncated file, another family, another shape and a missing tensor.
    """
    header = read_header(path)
    family = must_be(header, "SDXL base", "SDXL refiner")
    found = folder_configs(config) if config else configs("base" if family == "SDXL base" else "refiner")
    if ("text_encoder" in found) != (family == "SDXL base"):
        raise ModelError(f"{path}: is an {family}, and {config} configures the other one. Name the folder that belongs to it with base_config.")
    parts = modules(found)
    pieces = layout(parts)
    check_pieces(path, header.shapes, pieces, str(config or ("SDXL 1.0" if family == "SDXL base" else "the SDXL refiner")))
    source: Source = SingleFile(header)
    if vae is not None:
        source = Overlay(source, VaeSource(vae, parts["vae"]))
    _load(source, pieces, parts, device, dtype)
    index = read_json(config / "model_index.json") if config else {}
    scheduler = schedule_of(read_json(config / "scheduler" / "scheduler_config.json") if config else dict(SCHEDULER), header.shapes, header.metadata)
    model = assemble(parts, scheduler, str(path), device, dtype, config or WORDS, index.get("force_zeros_for_empty_prompt"))
    model.files = {path.name: path} | ({f"vae/{vae.name}": vae} if vae is not None and vae.is_file() else {})
    return model


def check_pieces(path: Path, shapes: Mapping[str, tuple[int, ...]], pieces: Mapping[str, Piece], whose: str) -> None:
    """Every key of the single file that this model needs is there and of its shape. Raises ModelError."""
    needed = {key: piece.shape for key, piece in pieces.items() if piece.names}
    check_shapes(path, shapes, needed, whose)
    strange = sorted(key for key in shapes if key.startswith(UNET) and key not in pieces)  # elsewhere keys of trainers lie about, which change no picture
    if strange:
        raise ModelError(
            f"{path}: its U-Net has {len(strange)} tensors that {whose} does not have: {', '.join(strange[:3])}. It is another architecture: "
            "if it has a diffusers folder, name that with base_config."
        )


def _load(source: Source, pieces: Mapping[str, Piece], parts: Parts, device: torch.device, dtype: torch.dtype) -> None:
    """Fill the parts, one tensor at a time. What a foreign file maps askew is copied, so that every loader's model predicts the same bits."""
    states: dict[str, dict[str, torch.Tensor]] = {part: {} for part in parts}
    for key, piece in pieces.items():
        if piece.names:
            for name, tensor in piece.unpack(source.tensor(key).reshape(piece.shape)).items():
                moved = tensor.to(device, dtype)
                states[piece.part][name] = moved if moved.data_ptr() % ALIGNED == 0 else moved.clone()
    for part, module in parts.items():
        fill(module, states[part])


def schedule_of(config: Config, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Config:
    """The file's own word on what it predicts goes before its configuration's."""
    if "v_pred" in shapes or metadata.get("modelspec.prediction_type") == "v":
        config = config | {"prediction_type": "v_prediction"}
    if "ztsnr" in shapes:  # Lin et al. 2024, section 3: the last step must be sampled
        config = config | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config
