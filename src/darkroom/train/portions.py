"""Memory of the first of several processes among which a model is divided (`train.sharding`), by component, at each of its moments.

The first one takes the most: it alone is shown the whole model when pictures are drawn, losses measured and files written.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from darkroom.methods.zeroed import BUCKET, LIVE
from darkroom.sdxl.model import SDXL
from darkroom.train.recipe import Recipe
from darkroom.train.rehearsal import Rehearsal, decoding, encoding
from darkroom.train.swap import blocks

Moments = dict[str, dict[str, int]]
AT_ONCE = 2
"""Units that are gathered at a time: the one that computes and the next."""


def moments_of(recipe: Recipe, model: SDXL, bucket: tuple[int, int], step: Rehearsal, processes: int) -> Moments:
    """Bytes by component, as `forecast` names them: what learns and all that belongs to it divided, one unit whole while it computes."""
    sizes = [size for _, size in step.learned]
    weights, frozen = sum(sizes), step.frozen["unet"]
    states = sum(recipe.optimizer.state_bytes(shape) for shape, _ in step.learned)
    learns, host = recipe.method.trains_text, model.device.type == "cpu"
    encoders, vae = (_bytes(model, *(name for name in model.parts if name != "unet")), _bytes(model, "vae"))
    base = _bytes(model, "unet", *(model.parts if learns else ())) if host else 0  # on a GPU what the base was waits in main memory
    always = {
        "model": _part(weights + frozen, processes) + base, "adapter": 0, "average": _part(step.average, processes),
        "gradients": _part(weights, processes), "optimizer": _part(states, processes),
    }  # fmt: skip
    text = encoders if host and not learns else 0
    gathered = _gathered(model, recipe, learns)
    if recipe.train.sharding != "fsdp":
        always, gathered = _zero(recipe.train.sharding, always, weights, frozen, processes, model), _buffers(recipe.train.sharding, model, weights)
    beside = max(step.peak - weights, 8 * max((math.prod(shape) for shape, _ in step.learned), default=0) // processes)
    shown = _bytes(model, "unet", *(model.parts if learns else ()))
    return {
        "training": always | {"text_encoders": text, "vae": vae if host else 0, "activations": beside + gathered},
        "encoding": always | {"text_encoders": encoders, "vae": vae, "gradients": 0, "optimizer": 0, "activations": encoding(model, bucket)},
        "drawing": always | {
            "text_encoders": 0 if learns else encoders, "vae": vae,
            "activations": shown + decoding(model, (model.resolution, model.resolution)),
        },
    }  # fmt: skip


def _zero(word: str, always: dict[str, int], weights: int, frozen: int, processes: int, model: SDXL) -> dict[str, int]:
    """DeepSpeed computes with weights beside those that it steps, but where stage 3 computes in bf16; a step has this process's gradients twice."""
    mine = _part(weights, processes)
    shared = always["model"] - _part(weights + frozen, processes)  # the base's own, on a CPU
    if word == "zero2":
        return always | {"model": weights + frozen + mine + shared, "gradients": 2 * mine}
    twice = 2 if model.dtype == torch.float32 else 1
    return always | {"model": twice * mine + _part(frozen, processes) + shared, "gradients": mine + min(mine, 4 * LIVE)}


def _buffers(word: str, model: SDXL, weights: int) -> int:
    """What gradients are reduced in; of stage 3 also weights that are whole for a while, with their gradients."""
    bucket = min(4 * BUCKET, weights)
    largest = 4 * max(_numbers(module) for _, module in blocks(model.unet))
    return 2 * bucket if word == "zero2" else 3 * bucket + min(4 * LIVE, weights) + largest


def _part(size: int, processes: int) -> int:
    return -(-size // processes)


def _gathered(model: SDXL, recipe: Recipe, learns: bool) -> int:
    """Weights that are whole for a while, with the gradients of those that compute: units of the U-Net, what is left of it, and encoders that learn."""
    wide = 2 if getattr(recipe.method, "weights", "fp32") == "bf16" else 4
    units = [_numbers(module) for _, module in blocks(model.unet)]
    rest = _numbers(model.unet) - sum(units)
    encoders = sum(_numbers(part) for name, part in model.parts.items() if name != "unet") if learns else 0
    return wide * ((AT_ONCE + 1) * max(units) + 2 * rest + 2 * encoders)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(model: SDXL, *parts: str) -> int:
    """Of parts in the model's own number format."""
    found = {**model.parts, "vae": model.vae}
    return sum(tensor.nbytes for part in dict.fromkeys(parts) for tensor in (*found[part].parameters(), *found[part].buffers()))
