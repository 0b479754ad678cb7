"""The true shapes of SDXL 1.0 and its refiner, as the published folders configure them; the same narrower, for tests; both without weights too.

Sources: config.json of the parts of stabilityai/stable-diffusion-xl-base-1.0 and -refiner-1.0 (Podell et al. 2023, table 1).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from darkroom.device import generator, quiet_libraries
from darkroom.errors import ModelError
from darkroom.sdxl.model import SDXL

Kind = Literal["base", "refiner"]
Config = dict[str, Any]
"""The configuration of one part."""
Parts = dict[str, nn.Module]
"""unet, vae, text_encoder_2, and for a base text_encoder."""

WORDS = Path(__file__).parents[1] / "pocket" / "weights"
"""Holds tokenizer and tokenizer_2: CLIP's own 49,408 words, which pocket, SDXL 1.0 and the refiner share. A single file carries none."""

_UNET: Config = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
}  # fmt: skip
UNETS: dict[Kind, Config] = {
    "base": _UNET | {
        "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 2816,
    },
    "refiner": _UNET | {
        "block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24], "transformer_layers_per_block": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560,
    },
}  # fmt: skip
VAE: Config = {
    "sample_size": 1024, "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "scaling_factor": 0.13025, "force_upcast": True,
}  # fmt: skip
_CLIP: Config = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
CLIP_L: Config = _CLIP | {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768, "hidden_act": "quick_gelu",
}  # fmt: skip
BIG_G: Config = _CLIP | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip
SCHEDULER: Config = {
    "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon", "interpolation_type": "linear", "use_karras_sigmas": False, "timestep_spacing": "leading", "steps_offset": 1,
}  # fmt: skip
WIDTHS = (
    "block_out_channels", "addition_time_embed_dim", "cross_attention_dim", "projection_class_embeddings_input_dim", "norm_num_groups",
    "hidden_size", "intermediate_size", "projection_dim",
)  # fmt: skip


def configs(kind: Kind, scale: int = 1) -> dict[str, Config]:
    """The configuration of each part. `scale` divides every width: depth, heads, keys and vocabulary stay, and so does the number of channels a group.

    Raises ValueError for a scale that does not divide the widths: 1, 2, 4, 8, 16 and 32 do.
    """
    if scale not in (1, 2, 4, 8, 16, 32):
        raise ValueError(f"scale = {scale}: must divide the 32 groups of a norm. Choose 1, 2, 4, 8, 16 or 32.")
    parts = {"unet": UNETS[kind], "vae": VAE, "text_encoder_2": BIG_G} | ({"text_encoder": CLIP_L} if kind == "base" else {})
    return {name: {key: _narrow(key, value, scale) for key, value in config.items()} for name, config in parts.items()}


def _narrow(key: str, value: Any, scale: int) -> Any:
    if key not in WIDTHS:
        return value
    return [width // scale for width in value] if isinstance(value, list) else value // scale


def folder_configs(folder: Path) -> dict[str, Config]:
    """The same from a diffusers folder, whose refiner has no text_encoder. Raises ModelError where one is missing or no JSON."""
    names = ["unet", "vae", "text_encoder_2", *(["text_encoder"] if (folder / "text_encoder").is_dir() else [])]
    return {name: read_json(folder / name / "config.json") for name in names}


def read_json(path: Path) -> Config:
    """A JSON object from a model's folder. Raises ModelError."""
    try:
        found: Config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). A diffusers folder has one in every part: give such a folder, or fetch it again.") from None
    return found


def modules(found: dict[str, Config]) -> Parts:
    """The parts without weights, on torch's meta device: names and shapes alone, in no memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    made: dict[str, Any] = {
        "unet": UNet2DConditionModel.from_config, "vae": AutoencoderKL.from_config,
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
        "text_encoder_2": lambda config: CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config)),
    }  # fmt: skip
    with quiet_libraries(), torch.device("meta"):
        return {name: made[name](dict(config)).eval().requires_grad_(False) for name, config in found.items()}


def empty(kind: Kind, scale: int = 1) -> Parts:
    """SDXL 1.0 or its refiner on the meta device."""
    return modules(configs(kind, scale))


def fill(module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    """Give a module from the meta device its weights, which are taken and not copied."""
    module.load_state_dict(state, strict=True, assign=True)
    device = next(iter(state.values())).device
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            assert name == "position_ids", f"{name}: a buffer that is in no file must be computed"
            owner.register_buffer(name, torch.arange(buffer.shape[-1], device=device).expand(buffer.shape).contiguous(), persistent=False)
    return module.eval().requires_grad_(False)


def build(kind: Kind, scale: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> SDXL:
    """A whole model of random weights on the CPU, each tensor drawn in float32 by (seed, part, name) and cast: two calls draw alike."""
    parts = empty(kind, scale)
    for part, module in parts.items():
        fill(module, {name: _random(seed, part, name, tensor.shape).to(dtype) for name, tensor in module.state_dict().items()})
    source = f"sdxl-{kind}" + (f"-{scale}th" if scale > 1 else "")
    return assemble(parts, dict(SCHEDULER), source, torch.device("cpu"), dtype)


def _random(seed: int, part: str, name: str, shape: torch.Size) -> torch.Tensor:
    """Norms near 1, biases near 0, matrices that keep a signal's size (LeCun et al. 1998): a pass through it stays finite in float16."""
    drawn = torch.randn(shape, generator=generator(seed, "random weights", part, name))
    if "embedding.weight" in name:
        return drawn.mul_(0.02)
    if len(shape) > 1:
        return drawn.div_(math.sqrt(math.prod(shape[1:])))
    return drawn.mul_(0.02).add_(1.0 if name.endswith("weight") else 0.0)


def assemble(
    parts: Parts, scheduler: Config, source: str, device: torch.device, dtype: torch.dtype, words: Path = WORDS, zeroes_empty: bool | None = None
) -> SDXL:
    """Parts to a model, with the tokenizers in `words`. A refiner's empty prompt is encoded, a base's is zeros, as in the published folders."""
    from transformers import CLIPTokenizer

    found: dict[str, Any] = dict(parts)
    has_one = "text_encoder" in found
    with quiet_libraries():
        one = CLIPTokenizer.from_pretrained(words / "tokenizer") if has_one else None
        two = CLIPTokenizer.from_pretrained(words / "tokenizer_2")
    return SDXL(
        one, two, found.get("text_encoder"), found["text_encoder_2"], found["unet"], found["vae"], scheduler, source, device, dtype,
        zeroes_empty=has_one if zeroes_empty is None else zeroes_empty,
    )  # fmt: skip
