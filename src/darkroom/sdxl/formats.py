"""Names of SDXL's parts in the files of the field, and adapter files in and out.

Written: kohya's layout in sgm spelling, which A1111, ComfyUI, sd-scripts and diffusers read. Everything else of adapter files, their methods and
layouts, is in `adapters/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as safetensors_bytes

from darkroom.files import atomic
from darkroom.sdxl.model import SDXL

if TYPE_CHECKING:  # that package imports this file
    from darkroom.sdxl.adapters.layouts import Adapter

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def plain_blocks(unet: Any) -> frozenset[int]:
    """The up blocks without transformers, by number: {2} in SDXL 1.0, {0, 3} in its refiner."""
    return frozenset(number for number, kind in enumerate(unet.config.up_block_types) if "Attn" not in kind)


def sgm_path(path: str, layers: int, plain: Collection[int] = ()) -> str:
    """A U-Net module path in diffusers' spelling to Stability's (sgm).

    `layers` is layers_per_block (2 in SDXL 1.0). sgm numbers what a block holds, so that the upsampler of a block in `plain` (`plain_blocks`) is .1,
    after its ResNet alone, and else .2, after ResNet and transformer. Raises KeyError for what no U-Net of SDXL has.
    """
    if path in OUTSIDE:
        return OUTSIDE[path]
    match re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.?(.*)|mid_block\.(resnets|attentions)\.(\d)\.?(.*)", path):
        case None:
            raise KeyError(path)
        case found if found[1] is None:
            place = "middle_block." + ("1" if found[6] == "attentions" else str(2 * int(found[7])))
            kind, rest = found[6], found[8]
        case found:
            side, block, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
            width = layers + 1
            match side, kind:
                case "down", "downsamplers":
                    return f"input_blocks.{(block + 1) * width}.0.op"
                case "up", "upsamplers":
                    return f"output_blocks.{block * width + layers}.{1 if block in plain else 2}.conv"
                case "down", _:
                    place = f"input_blocks.{1 + block * width + index}.{int(kind == 'attentions')}"
                case _:
                    place = f"output_blocks.{block * width + index}.{int(kind == 'attentions')}"
    if kind == "resnets":
        rest = RESNET[rest]
    return f"{place}.{rest}" if rest else place


def text_path(path: str) -> str:
    """A text-encoder module path as files spell it: current transformers drops `text_model.` from CLIPTextModel, files keep it."""
    return path if path.startswith(("text_model.", "text_projection")) else f"text_model.{path}"


def kohya_name(part: str, path: str, layers: int, plain: Collection[int] = ()) -> str:
    """`unet`, `down_blocks.1.attentions.0.proj_in` -> `lora_unet_input_blocks_4_1_proj_in`; `layers` and `plain` as in `sgm_path`."""
    spelled = sgm_path(path, layers, plain) if part == "unet" else text_path(path)
    return f"{PREFIXES[part]}_{spelled.replace('.', '_')}"


def adaptable(model: SDXL) -> Iterator[tuple[str, str, torch.nn.Linear | torch.nn.Conv2d]]:
    """Every linear and convolution that an adapter file can name: (part, module path, module)."""
    for part, root in model.parts.items():
        for path, module in root.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in path:
                yield part, path.removesuffix(".base_layer"), module


def write_adapter(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write kohya-named tensors atomically, with the metadata that readers look for. Equal tensors and metadata give equal bytes."""
    from darkroom.sdxl.adapters.metadata import hashes

    held = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    known = {**hashes(held, metadata), **metadata}
    with atomic(path) as part:
        part.write_bytes(ordered(safetensors_bytes(held, known)))


def ordered(data: bytes) -> bytes:
    """The same safetensors file with its metadata in sorted order: the library writes it in an order that changes from call to call."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_adapter(path: Path, model: SDXL) -> Adapter:
    """Read an adapter file of any method for this model. Raises AdapterError: see `adapters.layouts.read`."""
    from darkroom.sdxl.adapters.layouts import read
    from darkroom.sdxl.adapters.places import Catalogue

    return read(path, Catalogue.of(model))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises AdapterError."""
    from darkroom.sdxl.adapters.header import Header

    header = Header.read(path)
    return dict(header.tensors()), dict(header.metadata)
