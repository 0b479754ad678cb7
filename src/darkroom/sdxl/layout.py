"""The layout of single-file checkpoints, that of Stability's generative-models (sgm): which key holds which tensors of the model, and how.

Exact in both directions: `pack` after `unpack` and `unpack` after `pack` change no bit. SDXL 1.0 has 2,515 keys, its refiner 1,858.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from darkroom.sdxl.formats import plain_blocks, sgm_path

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer."
VAE_NAMES = [
    (r"^(encoder)\.down_blocks\.(\d)\.resnets\.(\d)", r"\1.down.\2.block.\3"), (r"^(encoder)\.down_blocks\.(\d)\.downsamplers\.0", r"\1.down.\2.downsample"),
    (r"^(decoder)\.up_blocks\.(\d)\.resnets\.(\d)", r"\1.up.\2.block.\3"), (r"^(decoder)\.up_blocks\.(\d)\.upsamplers\.0", r"\1.up.\2.upsample"),
    (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"), (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"group_norm", "norm"), (r"to_([qkv])\b", r"\1"), (r"to_out\.0", "proj_out"), (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut"),
]  # fmt: skip
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
    "self_attn.q_proj": "attn.in_proj", "self_attn.k_proj": "attn.in_proj", "self_attn.v_proj": "attn.in_proj",
}  # fmt: skip
OPEN_CLIP_OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias", "text_projection.weight": "text_projection",
}  # fmt: skip
LOGIT_SCALE = math.log(100)  # open_clip's ceiling, where bigG's training ended; nothing in SDXL reads it, and diffusers does not keep it

How = Literal["same", "conv", "fused", "transposed", "constant"]


@dataclass(frozen=True)
class Piece:
    """One key of a file: the tensors `names` of the model's `part`, made into one of `shape`."""

    part: str
    names: tuple[str, ...]
    how: How
    shape: tuple[int, ...]

    def pack(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """The model's tensors as the file holds them. A constant is made of nothing: CLIP-L's int64 positions, or bigG's unused logit scale."""
        match self.how:
            case "same":
                return tensors[0]
            case "conv":
                return tensors[0].reshape(self.shape)
            case "fused":
                return torch.cat(tensors)
            case "transposed":
                return tensors[0].T
            case "constant":
                return torch.arange(self.shape[1])[None] if self.shape else torch.tensor(LOGIT_SCALE)

    def unpack(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The file's tensor as the model holds it, by name. What is the same is not copied: from a mapped file it costs no memory."""
        match self.how:
            case "same":
                parts = [tensor]
            case "conv":
                parts = [tensor.reshape(self.shape[:2])]
            case "fused":
                parts = [third.clone() for third in tensor.chunk(3)]
            case "transposed":
                parts = [tensor.T.contiguous()]
            case "constant":
                parts = []
        return dict(zip(self.names, parts, strict=True))


def layout(parts: Mapping[str, nn.Module]) -> dict[str, Piece]:
    """Every key of the model's single file, sorted. The parts may be on the meta device: only names and shapes are looked at."""
    second = "conditioner.embedders.1.model." if "text_encoder" in parts else "conditioner.embedders.0.model."
    pieces = dict(_unet(parts["unet"])) | dict(_vae(parts["vae"])) | _open_clip(second, parts["text_encoder_2"])
    if "text_encoder" in parts:
        pieces |= dict(_clip(parts["text_encoder"]))
    return dict(sorted(pieces.items()))


def vae_layout(vae: nn.Module) -> dict[str, Piece]:
    """The autoencoder's keys alone, with their prefix first_stage_model."""
    return dict(_vae(vae))


def canonical(name: str) -> str:
    """A tensor's name without `text_model.`, which transformers 5.6 dropped from CLIPTextModel and files keep."""
    return name.removeprefix("text_model.")


def _shapes(module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, tensor in module.state_dict().items():
        if ".lora_" in name or ".base_layer." in name:
            raise ValueError(f"{name}: an adapter is on the model. Take it off (Attached.detach) before the model is written.")
        yield name, tuple(tensor.shape)


def _unet(unet: nn.Module) -> Iterator[tuple[str, Piece]]:
    layers = int(unet.config.layers_per_block)  # type: ignore[union-attr, arg-type]
    plain = plain_blocks(unet)
    for name, shape in _shapes(unet):
        path, _, leaf = name.rpartition(".")
        yield f"{UNET}{sgm_path(path, layers, plain)}.{leaf}", Piece("unet", (name,), "same", shape)


def _vae(vae: nn.Module) -> Iterator[tuple[str, Piece]]:
    last = len(vae.config.block_out_channels) - 1  # type: ignore[union-attr, arg-type]
    for name, shape in _shapes(vae):
        key = name
        for pattern, replacement in VAE_NAMES:
            key = re.sub(pattern, replacement, key)
        key = re.sub(r"decoder\.up\.(\d)", lambda match: f"decoder.up.{last - int(match[1])}", key)  # counted from the picture's end in the file
        conv = bool(re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key))
        yield VAE + key, Piece("vae", (name,), "conv" if conv else "same", (*shape, 1, 1) if conv else shape)


def _clip(encoder: nn.Module) -> Iterator[tuple[str, Piece]]:
    length = 0
    for name, shape in _shapes(encoder):
        yield f"{CLIP_L}text_model.{canonical(name)}", Piece("text_encoder", (name,), "same", shape)
        length = shape[0] if "position_embedding" in name else length
    yield f"{CLIP_L}text_model.embeddings.position_ids", Piece("text_encoder", (), "constant", (1, length))


def _open_clip(prefix: str, encoder: nn.Module) -> dict[str, Piece]:
    """open_clip's names, q, k and v in one matrix, and the projection the other way round."""
    pieces = {f"{prefix}logit_scale": Piece("text_encoder_2", (), "constant", ())}
    for name, shape in _shapes(encoder):
        if outside := OPEN_CLIP_OUTSIDE.get(canonical(name)):
            how: How = "transposed" if outside == "text_projection" else "same"
            pieces[prefix + outside] = Piece("text_encoder_2", (name,), how, shape[::-1] if how == "transposed" else shape)
            continue
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", canonical(name))
        assert match is not None, name
        key = f"{prefix}transformer.resblocks.{match[1]}.{OPEN_CLIP[match[2]]}"
        if match[2] == "self_attn.q_proj":
            names = tuple(name.replace("q_proj", f"{letter}_proj") for letter in "qkv")
            pieces[f"{key}_{match[3]}"] = Piece("text_encoder_2", names, "fused", (3 * shape[0], *shape[1:]))
        elif not OPEN_CLIP[match[2]].endswith("in_proj"):
            pieces[f"{key}.{match[3]}"] = Piece("text_encoder_2", (name,), "same", shape)
    return pieces
