"""Frozen weights in 8 or 4 bits, for adapters: each layer makes its weight anew when it computes, forwards and backwards, and keeps it for neither.

What a layer computes is exactly what a layer with the rounded weight would, so that gradients are exact for the rounded model. The modules stay themselves
(peft, DoRA and LyCORIS read `module.weight`), and afterwards they hold their own weights again: the very tensors, or bit-equal ones. These wait in host
memory, where a model that is to be learned on a small card is opened anyway (`open_base(..., memory="model")`): as the mapping of its file, which is free.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from darkroom.errors import RecipeError
from darkroom.sdxl.formats import adaptable

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL

Scheme = Literal["no", "fp8", "int8", "nf4"]
Packed = tuple[Tensor, Tensor]
"""A weight's numbers, and their scales."""

BITS: dict[Scheme, float] = {"fp8": 8, "int8": 8, "nf4": 4.5}
"""Bits a number, scales included (fp8, int8: and 32 for each output)."""
BLOCK = 64
"""Numbers that share a scale in nf4 (QLoRA, section 3)."""
INSIDE = re.compile(r"(down_blocks|mid_block|up_blocks)\..*|.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)")
"""What is rounded: all of the blocks and of the text encoders' layers (99.6 % of SDXL's U-Net). The first, the last and the embeddings are not."""


def pack(weight: Tensor, scheme: Scheme) -> Packed:
    """Round a weight (out, ...).

    fp8: float8_e4m3fn under a power of two for each output, so that scaling back is exact (the format: Micikevicius et al. 2022). int8: the largest of
    each output is 127 (Dettmers et al. 2022, section 2; equal to bitsandbytes' int8_vectorwise_quant). nf4: bitsandbytes' NormalFloat in blocks of 64
    (Dettmers et al. 2023, section 3). Raises RecipeError where nf4 has no bitsandbytes.
    """
    match scheme:
        case "fp8":
            most = torch.finfo(torch.float8_e4m3fn).max
            scale = torch.exp2(torch.ceil(torch.log2((_largest(weight) / most).clamp_min(2.0**-24))))
            return (weight.float() / scale).to(torch.float8_e4m3fn), scale
        case "int8":
            scale = _largest(weight).clamp_min(torch.finfo(torch.float32).tiny) / 127
            return (weight.float() / scale).round().to(torch.int8), scale
        case "nf4":
            made = _bitsandbytes().quantize_4bit(weight.reshape(_rows(weight.shape)), blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
            return made[0].flatten(), made[1].absmax
    raise AssertionError(f"{scheme} packs nothing")


def unpack(packed: Packed, scheme: Scheme, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The rounded weight (out, ...) that `pack` gave."""
    numbers, scale = packed
    match scheme:
        case "fp8":
            return numbers.to(dtype).mul_(scale.to(dtype))
        case "int8":
            return (numbers * scale).to(dtype)
        case "nf4":
            functional = _bitsandbytes()
            state = functional.QuantState(scale, shape=_rows(shape), dtype=dtype, blocksize=BLOCK, quant_type="nf4")
            made: Tensor = functional.dequantize_4bit(numbers[:, None], state)
            return made.view(*shape)
    raise AssertionError(f"{scheme} unpacks nothing")


def _rows(shape: Sequence[int]) -> torch.Size:
    """One row a block, where blocks come out even: bitsandbytes 0.50 on a CPU begins a block with each row, and so reads wrong scales where rows do not."""
    numbers = math.prod(shape)
    return torch.Size((numbers // BLOCK, BLOCK) if numbers % BLOCK == 0 else (1, numbers))


def _largest(weight: Tensor) -> Tensor:
    """The largest magnitude of each output, (out, 1, ...), float32."""
    return weight.float().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)


def _bitsandbytes() -> Any:
    try:
        return import_module("bitsandbytes").functional
    except ImportError as error:
        raise RecipeError(
            f'train.quantise = "nf4" is of the package bitsandbytes, which cannot be used here ({error}). Install it: pip install "sdxl-darkroom[gpu]"; '
            'or take "fp8", which needs nothing.'
        ) from None


class Rounded:
    """What both kinds of layers have in common: a `weight` that is made when it is asked for."""

    form: tuple[Scheme, torch.Size, torch.dtype]
    numbers: Tensor
    scale: Tensor
    before: Callable[[], object] | None = None
    """Called before the numbers are read: they may have to come to the device first."""

    @property
    def weight(self) -> Tensor:
        return lend(self._made(), self._made)

    @torch.no_grad()
    def _made(self) -> Tensor:
        if self.before is not None:
            self.before()
        return unpack((self.numbers, self.scale), *self.form)


class RoundedLinear(Rounded, nn.Linear):  # type: ignore[override]  # a parameter becomes a property
    """A linear layer of rounded weights."""


class RoundedConv2d(Rounded, nn.Conv2d):  # type: ignore[override]
    """A convolution of rounded weights."""


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: RoundedLinear, nn.Conv2d: RoundedConv2d}


@dataclass(frozen=True)
class _Before:
    """A layer as it was."""

    module: nn.Module
    kind: type[nn.Module]
    weight: Tensor
    device: torch.device

    def put_back(self) -> None:
        module = self.module
        for name in ("numbers", "scale", "form"):
            delattr(module, name)
        module.__class__ = self.kind
        self.weight.data = self.weight.data.to(self.device)
        module._parameters = {"weight": self.weight, **module._parameters}  # type: ignore[dict-item]  # the weight comes first in state_dict


@contextmanager
def quantised(model: SDXL, scheme: Scheme, parts: Sequence[str] = ("unet",)) -> Iterator[None]:
    """Within the block the blocks of these parts are rounded by `scheme`, on the model's device. Afterwards they are, bit for bit, what they were.

    Enter it before a method is attached: DoRA's lengths are then those of the weights that it learns on. Raises RecipeError where nf4 has no bitsandbytes.
    """
    if scheme == "no":
        yield
        return
    done: list[_Before] = []
    try:
        for part, path, module in list(adaptable(model)):
            if part in parts and INSIDE.fullmatch(path) and type(module) in KINDS:
                done.append(_round(module, scheme, model.device))
        with remembering():
            yield
    finally:
        for before in reversed(done):
            before.put_back()


@torch.no_grad()
def _round(module: nn.Linear | nn.Conv2d, scheme: Scheme, device: torch.device) -> _Before:
    weight = module.weight
    before = _Before(module, type(module), weight, weight.device)
    numbers, scale = pack(weight.to(device), scheme)
    weight.data = weight.data.cpu()  # a model that lies on the device makes room
    del module._parameters["weight"]
    rounded: Any = module
    rounded.__class__ = KINDS[type(module)]
    rounded.form = scheme, weight.shape, weight.dtype
    for name, tensor in (("numbers", numbers), ("scale", scale)):
        rounded.register_buffer(name, tensor, persistent=False)
    return before


def packed_bytes(shape: Sequence[int], scheme: Scheme, width: int) -> int:
    """What a weight of this shape takes, scales included; `width` bytes a number where it is not rounded."""
    numbers = math.prod(shape)
    match scheme:
        case "no":
            return numbers * width
        case "nf4":
            return -(-numbers // 2) + 4 * -(-numbers // BLOCK)
        case _:
            return numbers + 4 * shape[0]


# What autograd keeps. A layer keeps its weight for the backward pass, which would bring every weight back that was packed or moved away. So weights are
# lent: autograd then keeps how to make one again. One table for all: of nested hooks it asks the innermost alone.
_lent: dict[int, tuple[weakref.ref[Tensor], Callable[[], Tensor]]] = {}


@dataclass(frozen=True)
class _View:
    """A view of a lent tensor."""

    again: Callable[[], Tensor]
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any


def lend(tensor: Tensor, again: Callable[[], Tensor]) -> Tensor:
    """The tensor, of whose views autograd keeps nothing but `again`, which makes an equal one. Keep it alive while it is used."""
    key = tensor.untyped_storage()._cdata
    _lent[key] = weakref.ref(tensor, lambda gone: _lent.pop(key, None) if _lent.get(key, (None,))[0] is gone else None), again
    return tensor


def _keep(tensor: Tensor) -> Tensor | _View:
    found = _lent.get(tensor.untyped_storage()._cdata)
    if found is None:
        return tensor
    return _View(found[1], tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())


def _recall(kept: Tensor | _View) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    return kept.again().view(kept.dtype).as_strided(kept.size, kept.stride, kept.offset)


@contextmanager
def remembering() -> Iterator[None]:
    """Within the block autograd keeps no lent tensor."""
    with torch.autograd.graph.saved_tensors_hooks(_keep, _recall):
        yield
