"""What a .safetensors file is, told from its header alone: names and shapes, no weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.sdxl.model import PICKLES

Family = Literal[
    "SDXL base", "SDXL refiner", "SDXL inpainting", "SDXL EDM", "SD 1.x", "SD 2.x", "SD 3", "FLUX", "adapter", "embedding", "ControlNet",
    "U-Net", "VAE", "text encoder", "unknown",
]  # fmt: skip
Shapes = Mapping[str, tuple[int, ...]]

FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"
ADAPTER = re.compile(r"lora_|\.lora\.|^lycoris_|\.(hada_w|lokr_w|oft_blocks|dora_scale|diff_b?$)|\.lora[_.]?(A|B|down|up)\b")
CONTROL = ("control_model.", "controlnet_", "input_hint_block.", "control_add_embedding.")
VAE_KEYS = tuple(f"{prefix}{side}.conv_in.weight" for prefix in ("", "first_stage_model.", "vae.") for side in ("encoder", "decoder"))
UNET_KEYS = (FIRST_CONV, "input_blocks.0.0.weight", "diffusion_model.input_blocks.0.0.weight", "conv_in.weight", "unet.conv_in.weight")
WORDS: dict[Family, str] = {
    "SDXL base": "a whole SDXL base checkpoint",
    "SDXL refiner": "an SDXL refiner, which draws over what a base has begun: it goes with --refiner",
    "SDXL inpainting": "an SDXL inpainting checkpoint, whose U-Net takes 9 channels and not 4. Darkroom inpaints with an ordinary base",
    "SDXL EDM": "a Playground 2.5 or CosXL checkpoint, which has SDXL's shapes and another noise schedule (EDM), that Darkroom does not have",
    "SD 1.x": "a checkpoint of another family (SD 1.x)",
    "SD 2.x": "a checkpoint of another family (SD 2.x)",
    "SD 3": "a checkpoint of another family (SD 3)",
    "FLUX": "a checkpoint of another family (FLUX)",
    "adapter": "an adapter. --base takes the whole model; --adapter takes adapters",
    "embedding": "an embedding of textual inversion. --embedding takes embeddings",
    "ControlNet": "a ControlNet. --control takes those",
    "U-Net": "a bare U-Net, without text encoders. Give the checkpoint that holds them too",
    "VAE": "a bare VAE. It goes into a checkpoint with --vae; --base takes the whole model",
    "text encoder": "a bare text encoder. --base takes the whole model",
    "unknown": "a checkpoint of another family that Darkroom does not know",
}


@dataclass(frozen=True)
class Header:
    """A safetensors file before any weight is read."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        return recognise(self.shapes)


def read_header(path: Path) -> Header:
    """Names, shapes and metadata. Raises ModelError where the file is missing, truncated or a pickle, which is refused unread."""
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"{path}: a pickle can run code when it is opened, and is refused unread. Fetch the .safetensors that most authors publish beside it, or convert "
            'it on a machine that holds nothing of yours: safetensors.torch.save_file(torch.load(FILE, weights_only=True)["state_dict"], "model.safetensors").'
        )
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file. Give a .safetensors checkpoint, a diffusers folder or a hub id.")
    try:
        with safe_open(hand_over(path), "pt") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 - not a dict
            return Header(path, shapes, dict(opened.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is not a whole safetensors file ({error}). Fetch it again.") from None


def recognise(shapes: Shapes) -> Family:
    """The family that the names and the first convolution's width tell."""
    if FIRST_CONV in shapes and _has(shapes, "conditioner.embedders."):
        return _sdxl(shapes)
    if any(ADAPTER.search(key) for key in shapes):
        return "adapter"
    if _has(shapes, *CONTROL):
        return "ControlNet"
    if any("double_blocks." in key or "single_transformer_blocks." in key for key in shapes):
        return "FLUX"
    if any("joint_blocks." in key or "add_k_proj" in key for key in shapes):
        return "SD 3"
    if _has(shapes, "cond_stage_model.transformer."):
        return "SD 1.x"
    if _has(shapes, "cond_stage_model.model."):
        return "SD 2.x"
    return _bare(shapes)


def _sdxl(shapes: Shapes) -> Family:
    has_l, has_g = _has(shapes, "conditioner.embedders.0.transformer."), _has(shapes, "conditioner.embedders.1.model.")
    refines = _has(shapes, "conditioner.embedders.0.model.")
    if "edm_mean" in shapes or "edm_vpred.sigma_max" in shapes:
        return "SDXL EDM"
    if shapes[FIRST_CONV][1:2] != (4,):
        return "SDXL inpainting"
    return "SDXL base" if has_l and has_g else "SDXL refiner" if refines and not has_g else "unknown"


def _bare(shapes: Shapes) -> Family:
    """What is no whole model."""
    if shapes.keys() & set(UNET_KEYS):
        return "U-Net"
    if shapes.keys() & set(VAE_KEYS):
        return "VAE"
    if any("token_embedding.weight" in key for key in shapes):
        return "text encoder"
    few = 0 < len(shapes) <= 4 and all(len(shape) in (1, 2) for shape in shapes.values())
    return "embedding" if few and all(max(shape, default=0) < 8192 for shape in shapes.values()) else "unknown"


def _has(shapes: Iterable[str], *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for key in shapes)


def must_be(header: Header, *wanted: Family) -> Family:
    """The file's family, where it is one of those. Raises ModelError, which says what the file is instead."""
    family = header.family
    if family in wanted:
        return family
    if not header.shapes:
        raise ModelError(f"{header.path}: holds no tensor at all. Fetch it again.")
    asked = wanted[0] if len(wanted) == 1 else "SDXL"
    raise ModelError(f"{header.path}: is no {asked} checkpoint but {WORDS[family]}.")
