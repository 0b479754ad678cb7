"""Every module that an adapter can name, and every way in which files of the field spell it. Nothing is matched by guessing: names are looked up.

The spellings are those of public code: sd-scripts (networks/lora.py), ComfyUI (comfy/lora.py), diffusers (loaders/lora_conversion_utils.py), peft,
OneTrainer (util/convert_lora_util.py), ai-toolkit and LyCORIS (wrapper.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, cast

import torch
from torch import nn

from darkroom.device import quiet_libraries as quiet
from darkroom.sdxl.formats import PREFIXES, kohya_name, plain_blocks, sgm_path, text_path
from darkroom.sdxl.model import SDXL

Key = tuple[str, str]
"""(part, module path): ("unet", "mid_block.attentions.0.proj_in")."""
Kind = Literal["linear", "conv", "norm", "embedding"]
KINDS: dict[type[nn.Module], Kind] = {nn.Linear: "linear", nn.Conv2d: "conv", nn.LayerNorm: "norm", nn.GroupNorm: "norm", nn.Embedding: "embedding"}
COVERED = {
    "unet": re.compile(r".*\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)"),
    "text_encoder": re.compile(r".*\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"),
    "text_encoder_2": re.compile(r".*\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"),
}
"""What a LoRA of sd-scripts covers by default: 722 + 72 + 192 = 986 modules of SDXL 1.0."""

UNET = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "transformer_layers_per_block": (1, 2, 10),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768, "vocab_size": 49408,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
CLIP_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280, "vocab_size": 49408,
    "max_position_embeddings": 77, "hidden_act": "gelu",
}  # fmt: skip
"""The configurations of stabilityai/stable-diffusion-xl-base-1.0: 2,567,463,684, 123,060,480 and 694,659,840 parameters."""


@dataclass(frozen=True)
class Place:
    """A module that can be changed: `shape` is that of its weight, `bias` whether it has one, `kohya` its name in kohya's files."""

    part: str
    path: str
    kind: Kind
    shape: tuple[int, ...]
    bias: bool
    kohya: str

    @property
    def key(self) -> Key:
        return self.part, self.path

    @property
    def covered(self) -> bool:
        """Whether a LoRA of sd-scripts covers it by default."""
        return bool(COVERED[self.part].fullmatch(self.path))

    def __str__(self) -> str:
        return f"{self.part}.{self.path}"


@dataclass(frozen=True, eq=False, repr=False)
class Catalogue:
    """The places of one model, by (part, path). `layers` is the U-Net's layers_per_block and `plain` its up blocks without transformers: sgm counts by them."""

    places: dict[Key, Place]
    layers: int
    source: str
    plain: frozenset[int] = frozenset()

    @classmethod
    def of(cls, model: SDXL) -> Catalogue:
        """The places of a model, whatever it wears at the time."""
        return cls._of_parts(dict(model.parts), model.source)

    @classmethod
    def of_sdxl(cls) -> Catalogue:
        """The places of SDXL 1.0 base at their true shapes, without its weights."""
        return _sdxl()

    @classmethod
    def _of_parts(cls, parts: dict[str, nn.Module], source: str) -> Catalogue:
        found, unet = {}, cast(Any, parts["unet"])
        layers, plain = int(unet.config.layers_per_block), plain_blocks(unet)
        for part in sorted(parts, reverse=True):
            for path, module in parts[part].named_modules():
                kind = next((kind for kind_of, kind in KINDS.items() if isinstance(module, kind_of)), None)
                if kind is None or ".lora_" in path:
                    continue
                path = path.removesuffix(".base_layer")
                shape = tuple(module.weight.shape)
                found[part, path] = Place(part, path, kind, shape, getattr(module, "bias", None) is not None, kohya_name(part, path, layers, plain))
        return cls(found, layers, source, plain)

    def __repr__(self) -> str:
        return f"Catalogue({self.source}, {len(self.places)} places)"

    @property
    def words(self) -> dict[str, int]:
        """Widths of the token embeddings: {"clip_l": 768, "clip_g": 1280}."""
        paths = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
        widths = {part: place.shape[1] for (part, path), place in self.places.items() if path.endswith("token_embedding")}
        return {name: widths[part] for name, part in paths.items() if part in widths}

    @cached_property
    def names(self) -> dict[str, tuple[Place, str]]:
        """Every spelling of every place -> the place and the style of the spelling."""
        found: dict[str, tuple[Place, str]] = {}
        for place in self.places.values():
            for name, style in _unet_names(place, self.layers, self.plain) if place.part == "unet" else _text_names(place):
                if found.setdefault(name, (place, style))[0] is not place:
                    raise AssertionError(f"{name} is both {found[name][0]} and {place}")
        return found

    def coverage(self) -> dict[str, int]:
        """How many modules a LoRA can cover: {"unet": 722, "text_encoder": 72, "text_encoder_2": 192} in SDXL 1.0."""
        return {part: sum(place.covered for place in self.places.values() if place.part == part) for part in PREFIXES}


@cache
def _sdxl() -> Catalogue:
    with quiet():
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        with torch.device("meta"):
            parts: dict[str, nn.Module] = {
                "unet": UNet2DConditionModel(**UNET),
                "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L)),
                "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
            }
    return Catalogue._of_parts(parts, "SDXL 1.0")


def _flat(path: str) -> str:
    return path.replace(".", "_")


def _processor(path: str) -> str:
    """diffusers before 0.22 named attention's layers through its processor: `attn1.to_out.0` -> `attn1.processor.to_out`."""
    return re.sub(r"\.to_([qkv]|out)(\.0)?$", r".processor.to_\1", path)


def _unet_names(place: Place, layers: int, plain: frozenset[int]) -> Iterator[tuple[str, str]]:
    path, sgm = place.path, sgm_path(place.path, layers, plain)
    yield place.kohya, "kohya"
    yield f"{PREFIXES['unet']}_{_flat(path)}", "kohya-diffusers"
    yield f"lycoris_{_flat(path)}", "lycoris"
    for spelled in {path, _processor(path)}:
        yield f"unet.{spelled}", "dotted"
        yield spelled, "bare"
    yield f"base_model.model.{path}", "bare"
    yield f"unet.base_model.model.{path}", "dotted"
    yield f"diffusion_model.{sgm}", "comfy"
    if sgm not in (path, _processor(path)):
        yield sgm, "comfy"


def _text_names(place: Place) -> Iterator[tuple[str, str]]:
    """With and without `text_model.`, which current transformers drops from encoder 1 and keeps in encoder 2."""
    part, prefix = place.part, PREFIXES[place.part]
    full = text_path(place.path)
    short = full.removeprefix("text_model.")
    encoder = "clip_l" if part == "text_encoder" else "clip_g"
    yield place.kohya, "kohya-text"
    if short != full:
        yield f"{prefix}_{_flat(short)}", "kohya-short-text"
    for spelled in {full, short}:
        old = re.sub(r"self_attn\.(q|k|v|out)_proj$", r"self_attn.to_\1", spelled)
        for name in {spelled, old}:
            yield f"{part}.{name}", "dotted"
        yield f"{part}.base_model.model.{spelled}", "dotted"
        yield f"text_encoders.{encoder}.transformer.{spelled}", "comfy"
