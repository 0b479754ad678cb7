"""Names of SDXL's parts in the files of the field, and adapter files in and out.

Written: kohya's layout in sgm spelling, which A1111, ComfyUI, sd-scripts and diffusers read. Read: that one, kohya's layout in diffusers
spelling, and diffusers' and PEFT's own. Nothing is matched by guessing: the names of the model at hand are enumerated and looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from darkroom.errors import AdapterError
from darkroom.files import atomic, sha256_bytes
from darkroom.sdxl.model import PICKLES, SDXL

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def sgm_path(path: str, layers: int) -> str:
    """A U-Net module path in diffusers' spelling to Stability's (sgm); `layers` is layers_per_block (2 in SDXL 1.0)."""
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
                    return f"output_blocks.{block * width + layers}.2.conv"
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


def kohya_name(part: str, path: str, layers: int) -> str:
    """`unet`, `down_blocks.1.attentions.0.proj_in` -> `lora_unet_input_blocks_4_1_proj_in`."""
    spelled = sgm_path(path, layers) if part == "unet" else text_path(path)
    return f"{PREFIXES[part]}_{spelled.replace('.', '_')}"


def adaptable(model: SDXL) -> Iterator[tuple[str, str, torch.nn.Linear | torch.nn.Conv2d]]:
    """Every linear and convolution that an adapter file can name: (part, module path, module)."""
    for part, root in model.parts.items():
        for path, module in root.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".lora_" not in path:
                yield part, path.removesuffix(".base_layer"), module


def _names(model: SDXL) -> dict[str, tuple[str, str]]:
    """Every spelling of every module -> (part, path)."""
    names = {}
    layers = int(model.unet.config.layers_per_block)
    for part, path, _ in adaptable(model):
        spelled = path if part == "unet" else text_path(path)
        for name in (kohya_name(part, path, layers), f"{PREFIXES[part]}_{spelled.replace('.', '_')}", f"{part}.{spelled}", f"{part}.{path}"):
            names[name] = (part, path)
        if part == "unet":
            names[path] = (part, path)  # a bare PEFT file of the U-Net alone
    return names


@dataclass(frozen=True)
class LowRank:
    """One module's change: up (out, r[, 1, 1]) @ down (r, in[, k, k]) * alpha / r."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


@dataclass
class AdapterFile:
    """A LoRA as it lay in its file, by (part, module path)."""

    path: Path
    sha256: str
    modules: dict[tuple[str, str], LowRank]
    metadata: dict[str, str] = field(default_factory=dict)
    short: str = ""
    """Twelve characters of the hash over everything after the header (A1111's short hash, the sites' AutoV3)."""


def write_adapter(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write kohya-named tensors atomically, with the metadata that readers look for. Equal tensors and metadata give equal bytes."""
    held = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    body = safetensors_bytes(held)
    body = body[8 + int.from_bytes(body[:8], "little") :]
    known = {"modelspec.hash_sha256": f"0x{sha256_bytes(body)}", **metadata}
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


SUFFIX = re.compile(
    r"(?P<name>.+?)(?:\.(?P<kohya>lora_down|lora_up)\.weight|\.(?P<alpha>alpha)|\.lora\.(?P<old>down|up)\.weight|\.lora_(?P<peft>A|B)(?:\.default)?\.weight|"
    r"\.lora_linear_layer\.(?P<te>down|up)\.weight)$"
)
SIDES = {"lora_down": "down", "lora_up": "up", "down": "down", "up": "up", "A": "down", "B": "up"}


def read_adapter(path: Path, model: SDXL) -> AdapterFile:
    """Read a LoRA file for this model, every key understood and every shape checked.

    Raises AdapterError for a missing or truncated file, a pickle, an unknown key, another family, or another shape. Nothing is unpickled.
    """
    tensors, metadata = read_tensors(path)
    names = _names(model)
    found: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    strange = []
    for key, tensor in tensors.items():
        match = SUFFIX.match(key)
        place = names.get(match["name"]) if match else None
        if match is None or place is None:
            strange.append(key)
            continue
        side = "alpha" if match["alpha"] else SIDES[match["kohya"] or match["old"] or match["peft"] or match["te"]]
        found.setdefault(place, {})[side] = tensor
    if strange or not found:
        raise AdapterError(_strange(path, strange, len(tensors), model))
    alphas = _recorded_alpha(metadata)
    shapes = {(part, module_path): module.weight.shape for part, module_path, module in adaptable(model)}
    modules = {}
    for place, sides in found.items():
        if "down" not in sides or "up" not in sides:
            raise AdapterError(f"{path}: {'.'.join(place)} has only {', '.join(sorted(sides))}; down and up are both needed. The file is incomplete.")
        down, up = sides["down"], sides["up"]
        _check_shape(path, place, down, up, shapes[place])
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise AdapterError(f"{path}: {'.'.join(place)} holds NaN or infinity. The training that made it diverged: use an earlier checkpoint.")
        alpha = float(sides["alpha"]) if "alpha" in sides and float(sides["alpha"]) != 0 else alphas.get(place[0], float(down.shape[0]))
        modules[place] = LowRank(down, up, alpha)
    data = path.read_bytes()
    short = sha256_bytes(data[8 + int.from_bytes(data[:8], "little") :])[:12]
    return AdapterFile(path, sha256_bytes(data), modules, metadata, short)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises AdapterError."""
    if path.suffix.lower() in PICKLES:
        raise AdapterError(f"{path}: a pickle can run code when it is opened, and is refused unread. Convert it to .safetensors where you trust it.")
    if not path.is_file():
        raise AdapterError(f"{path}: there is no such file. --adapter takes a .safetensors file, or FILE:WEIGHT.")
    try:
        with safe_open(path, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: is not a whole safetensors file ({error}). Fetch or train it again.") from None


def _recorded_alpha(metadata: dict[str, str]) -> dict[str, float]:
    """Newer diffusers files keep alpha in JSON metadata rather than in tensors."""
    try:
        facts = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        return {key.removesuffix(".lora_alpha"): float(value) for key, value in facts.items() if key.endswith(".lora_alpha")}
    except (ValueError, TypeError, AttributeError):
        return {}


def _check_shape(path: Path, place: tuple[str, str], down: torch.Tensor, up: torch.Tensor, shape: torch.Size) -> None:
    wanted_in, wanted_out = tuple(shape[1:]), shape[0]
    if tuple(down.shape[1:]) != wanted_in or up.shape[0] != wanted_out or up.shape[1] != down.shape[0]:
        raise AdapterError(
            f"{path}: {'.'.join(place)} is {tuple(up.shape)} x {tuple(down.shape)} in the file, and this base wants ({wanted_out}, r) x (r, "
            f"{', '.join(map(str, wanted_in))}). The adapter was made for another base model: choose that one with --base."
        )


def _strange(path: Path, strange: list[str], count: int, model: SDXL) -> str:
    text = " ".join(strange)
    shown = ", ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
    if "double_blocks" in text or "single_transformer_blocks" in text:
        return f"{path}: is an adapter for FLUX, not for SDXL ({shown})."
    if "lora_te_" in text:
        return f"{path}: is an adapter for SD 1.x or 2.x, not for SDXL ({shown})."
    if "hada_" in text or "lokr_" in text or "oft_blocks" in text or "dora_scale" in text:
        return f"{path}: is a LyCORIS or DoRA file, which this version does not read ({shown})."
    if not count:
        return f"{path}: holds no tensor at all."
    return f"{path}: {len(strange)} of {count} keys name nothing in {model.source}: {shown}. The adapter was made for another base model or method."
