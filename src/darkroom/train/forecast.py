"""What memory a training will take, by component, before it begins; and what it took, beside that. What to do where it is too much is in `shortage`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from darkroom.methods import LoRA
from darkroom.sdxl.formats import adaptable
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.quantised import INSIDE, Scheme, packed_bytes
from darkroom.train.recipe import Recipe
from darkroom.train.rehearsal import Rehearsal, decoding, encoding, rehearse
from darkroom.train.swap import blocks, chosen

MIB = 1 << 20
AT_ONCE = {"adamw": 1, "schedule_free": 2}
"""Optimizers that on a GPU update all tensors together, and so many float32 copies of what is learned that they take for it (torch's and schedulefree's foreach
paths). The others go tensor by tensor."""


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device at the moment that wants most of them."""

    model: int
    """The U-Net's frozen weights, as they are after rounding and swapping."""
    text_encoders: int
    vae: int
    adapter: int
    """What is learned, where it is no weight of the model itself; else 0."""
    gradients: int
    optimizer: int
    average: int
    activations: int
    """All else that is alive at the largest moment."""
    moment: str
    """Which that is: encoding, training, or drawing (a preview)."""
    moments: dict[str, int]
    """Bytes in all at each of them."""
    rough: bool = False
    """Whether the method could not be rehearsed, so that another's activations stand for its own."""
    again: Callable[[Recipe], Forecast] | None = field(default=None, repr=False, compare=False)
    """The same for another recipe."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by component."""
        names = ("model", "text_encoders", "vae", "adapter", "gradients", "optimizer", "average", "activations")
        return {name: int(getattr(self, name)) for name in names}

    @property
    def mib(self) -> dict[str, float]:
        """MiB by component, those of nothing left out, and in all."""
        return {name: round(size / MIB, 1) for name, size in (self.parts | {"total": self.total}).items() if size or name == "model"}


def forecast(recipe: Recipe, model: SDXL, bucket: tuple[int, int], processes: int = 1) -> Forecast:
    """For batches of `bucket` (width, height), of each of so many processes. Raises RecipeError where the method or its swapping does not fit the model."""
    step, rough = _rehearsed(recipe, model, bucket)
    again = partial(forecast, model=model, bucket=bucket, processes=processes)
    if recipe.train.sharding != "no" and processes > 1:
        from darkroom.train.portions import moments_of

        return _largest(moments_of(recipe, model, bucket, step, processes), rough, again)
    sizes = [size for _, size in step.learned]
    weights, gradients = sum(sizes), max(sizes, default=0) if recipe.train.fused else sum(sizes)
    states = sum(recipe.optimizer.state_bytes(shape) for shape, _ in step.learned)
    encoders, vae = sum(size for name, size in step.frozen.items() if name != "unet"), sum(_sizes(model.vae))
    on_host = getattr(recipe.method, "ema_on_host", False) and model.device.type != "cpu"
    always = {
        "model": _unet_bytes(recipe, model, step.frozen["unet"]) + weights - step.extra,  # weights of the model that are learned themselves
        "adapter": step.extra, "average": 0 if on_host else step.average, "gradients": gradients, "optimizer": states,
    }  # fmt: skip
    alone = lean(recipe, model)
    moments = {
        "training": always | {
            "text_encoders": encoders if recipe.method.trains_text or not alone else 0, "vae": 0 if alone else vae,
            "activations": max(step.peak - gradients, _update(recipe, model, step)),
        },
        "encoding": always | {"text_encoders": encoders, "vae": vae, "gradients": 0, "optimizer": 0, "activations": encoding(model, bucket)},
        "drawing": always | {"text_encoders": encoders, "vae": vae, "activations": decoding(model, (model.resolution, model.resolution))},
    }  # fmt: skip
    return _largest(moments, rough, again)


def _largest(moments: dict[str, dict[str, int]], rough: bool, again: Callable[[Recipe], Forecast]) -> Forecast:
    totals = {name: sum(parts.values()) for name, parts in moments.items()}
    moment = max(totals, key=lambda name: totals[name])
    return Forecast(**moments[moment], moment=moment, moments=totals, rough=rough, again=again)


def _sizes(module: torch.nn.Module) -> list[int]:
    return [tensor.nbytes for tensor in (*module.parameters(), *module.buffers())]


def quantise(recipe: Recipe) -> Scheme:
    """How the frozen weights are rounded."""
    found: Scheme = getattr(recipe.train, "quantise", "no")
    return found


def swap_blocks(recipe: Recipe) -> int:
    """How many blocks wait in host memory."""
    return int(getattr(recipe.train, "swap_blocks", 0))


def may_round(recipe: Recipe) -> bool:
    """Whether the U-Net's weights may be rounded: neither where they are learned themselves nor where a ControlNet begins as their copy."""
    return str(recipe.method.kind) not in ("full", "controlnet")


def may_swap(recipe: Recipe) -> bool:
    """Whether blocks may be swapped: not where they are learned themselves."""
    return str(recipe.method.kind) != "full"


def lean(recipe: Recipe, model: SDXL) -> bool:
    """Whether parts that a step does not run wait in host memory (`swap.lodged` brings them)."""
    return model.device.type != "cpu" and (quantise(recipe) != "no" or swap_blocks(recipe) > 0)


_KNOWN: dict[str, Rehearsal] = {}
"""Rehearsals of this process: a step's tensors depend on these words alone."""


def _rehearsed(recipe: Recipe, model: SDXL, bucket: tuple[int, int]) -> tuple[Rehearsal, bool]:
    shapes = [str({name: tuple(tensor.shape) for name, tensor in part.state_dict().items()}) for part in model.parts.values()]
    train = recipe.train
    said = (recipe.learner.model_dump_json(), recipe.data.rows, train.gradient_checkpointing, train.fused, bucket, model.dtype, model.device.type, shapes)
    key = repr(said)
    if key not in _KNOWN:
        try:
            _KNOWN[key] = rehearse(recipe, model, bucket)
        except RuntimeError:  # torch's, for what a tensor without numbers cannot do
            return _stand_in(recipe, model, bucket), True
    return _KNOWN[key], False


def _stand_in(recipe: Recipe, model: SDXL, bucket: tuple[int, int]) -> Rehearsal:
    """A LoRA's step with the numbers that the method itself says it learns."""
    step = rehearse(recipe.model_copy(update={"method": LoRA()}), model, bucket)
    shapes = [tuple(module.weight.shape) for part, path, module in adaptable(model) if recipe.method.wanted(f"{part}.{path}")]
    learned: list[tuple[tuple[int, ...], int]] = [((count,), 4 * count) for count in map(recipe.method.numbers, shapes)]
    size = sum(size for _, size in learned)
    return replace(step, learned=learned, extra=size, peak=step.peak + size)


def _unet_bytes(recipe: Recipe, model: SDXL, whole: int) -> int:
    """The U-Net's frozen weights on the device. On a CPU everything is in main memory, and rounding and swapping only add to it."""
    scheme, count, width = quantise(recipe), swap_blocks(recipe), torch.finfo(model.dtype).bits // 8
    saved = {path: _saved(path, module, scheme, width) for path, module in model.unet.named_modules()}
    rounded = whole - sum(saved.values())
    sizes = {path: sum(_sizes(module)) for path, module in blocks(model.unet)}
    held = {path: size - sum(s for inner, s in saved.items() if inner.startswith(f"{path}.") or inner == path) for path, size in sizes.items()}
    away = [held[path] for path, _ in chosen(model.unet, count)]
    made = _made_anew(recipe, sizes, saved) if scheme != "no" else 0
    if model.device.type == "cpu":
        return whole + (rounded if scheme != "no" else 0) + made + sum(away) + _resident(recipe, away)
    return rounded + made - sum(away) + _resident(recipe, away)


def _saved(path: str, module: Any, scheme: Scheme, width: int) -> int:
    """Bytes that rounding takes off a layer."""
    if scheme == "no" or not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) or not INSIDE.fullmatch(path):
        return 0
    shape = tuple(module.weight.shape)
    return packed_bytes(shape, "no", width) - packed_bytes(shape, scheme, width)


def _made_anew(recipe: Recipe, sizes: dict[str, int], saved: dict[str, int]) -> int:
    """Weights that layers made of their rounded ones and that are there at a time: one layer's, or with checkpointing all of a block's."""
    if recipe.train.gradient_checkpointing:
        return max(size for path, size in sizes.items() if any(s and inner.startswith(path) for inner, s in saved.items()))
    return 2 * max(saved.values())


def _resident(recipe: Recipe, away: list[int]) -> int:
    """Swapped blocks that are there: this one and the next, and with checkpointing one more."""
    return sum(sorted(away)[-(3 if recipe.train.gradient_checkpointing else 2) :])


def _update(recipe: Recipe, model: SDXL, step: Rehearsal) -> int:
    """Bytes that the optimizer's update wants for itself, gradients and states not counted."""
    numbers = [math.prod(shape) for shape, _ in step.learned]
    one_by_one = recipe.train.fused or getattr(recipe.method, "weights", "") == "bf16" or model.device.type != "cuda"
    copies = 0 if one_by_one else AT_ONCE.get(recipe.optimizer.kind, 0)
    return 4 * copies * sum(numbers) if copies else 8 * max(numbers, default=0)


class Peak:
    """What the process takes from here on: of a GPU the most that is allocated, of main memory the growth beyond what was held at the beginning."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.began = _main_memory("VmRSS") if _forget_peak() else 0

    def measured(self, held: int) -> int:
        """Bytes so far; `held` are those of weights that were in main memory at the beginning (a GPU counts them itself). 0 where the system does not tell."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return held + _main_memory("VmHWM") - self.began if self.began else 0


def _forget_peak() -> bool:
    """Let Linux count the largest resident size anew (proc(5), clear_refs); False on other systems."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _main_memory(word: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{word}:")), 0)


def checked(found: Forecast, peak: int) -> dict[str, Any]:
    """Forecast and measured, for the receipt: by component, and how far off."""
    told: dict[str, Any] = {"forecast_mib": found.mib, "moment": found.moment, "measured_mib": round(peak / MIB, 1)}
    return told | ({"ratio": round(found.total / peak, 3)} if peak else {}) | ({"rough": True} if found.rough else {})
