"""Several adapters on one model at once, each with its weights and its branch of guidance, and off again: the weights are bit-identical afterwards.

A plain low-rank change is worn as a peft layer beside the weight. Any other method changes the weight itself while it is worn: the original
tensors are kept and put back, themselves and not copies of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from darkroom.methods.lora import inject, remove
from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.model import SDXL

Place = tuple[str, str]


@dataclass(frozen=True)
class Wear:
    """An adapter as it is to be worn: `text_weight` is for the text encoders' part (None: as `weight`); `branch` is "both" or one side of guidance."""

    adapter: Adapter
    weight: float = 1.0
    text_weight: float | None = None
    branch: str = "both"

    def on(self, part: str) -> float:
        """The weight on a part of the model."""
        return self.weight if part == "unet" or self.text_weight is None else self.text_weight

    @property
    def beside(self) -> dict[Place, LowRank]:
        """The changes that are worn as layers beside the weight."""
        return {place: change for place, change in self.adapter.changes.items() if isinstance(change, LowRank) and _plain(change)}

    @property
    def within(self) -> list[Place]:
        """The places whose weight itself is changed."""
        return [place for place, change in self.adapter.changes.items() if not (isinstance(change, LowRank) and _plain(change))]


def _plain(change: LowRank) -> bool:
    return change.mid is None and change.dora_scale is None


class Wearing:
    """What a model wears. `turn` chooses the adapters of one side of guidance; "none" is the bare model, to the last bit."""

    def __init__(self, model: SDXL, wears: Sequence[Wear] = ()) -> None:
        self.model, self.wears = model, tuple(wears)
        self.names = [f"worn_{index}" for index in range(len(wears))]
        self.side = "none"
        self._bare: dict[Place, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._dressed: dict[tuple[Place, tuple[int, ...]], tuple[torch.Tensor, torch.Tensor | None]] = {}

    @property
    def splits(self) -> bool:
        """Whether the two sides of guidance wear different things."""
        return any(wear.branch != "both" for wear in self.wears)

    def turn(self, side: str) -> None:
        """Let the model wear what this side wears: "conditional", "unconditional" or "none"."""
        if side == self.side:
            return
        self.side = side
        chosen = [index for index, wear in enumerate(self.wears) if side != "none" and wear.branch in ("both", side)]
        for place in sorted({place for wear in self.wears for place in wear.beside}):
            layer = self._module(place)
            here = [self.names[index] for index in chosen if self.names[index] in layer.lora_A]
            layer.enable_adapters(bool(here))
            if here:
                layer.set_adapter(here, inference_mode=True)
        for place in sorted({place for wear in self.wears for place in wear.within}):
            self._dress(place, tuple(index for index in chosen if place in self.wears[index].within))

    def _module(self, place: Place) -> Any:
        return self.model.parts[place[0]].get_submodule(place[1])

    @torch.no_grad()
    def _dress(self, place: Place, chosen: tuple[int, ...]) -> None:
        module = self._module(place)
        module = getattr(module, "base_layer", module)
        own = getattr(module, "bias", None)  # an embedding has none at all
        weight, bias = self._bare.setdefault(place, (module.weight.data, None if own is None else own.data))
        if chosen and (place, chosen) not in self._dressed:
            self._dressed[place, chosen] = self._changed(place, chosen, weight, bias)
        weight, bias = self._dressed[place, chosen] if chosen else (weight, bias)
        module.weight.data = weight
        if bias is not None:
            module.bias.data = bias

    def _changed(self, place: Place, chosen: tuple[int, ...], weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """W + sum of weight * delta(W) in float32, and the bias likewise."""
        whole, shift = weight.float().clone(), None if bias is None else bias.float().clone()
        for index in chosen:
            change, by = self.wears[index].adapter.changes[place], self.wears[index].on(place[0])
            whole += by * change.delta(weight.cpu()).to(whole.device)
            if change.bias is not None and shift is not None:
                shift += by * change.bias.to(shift.device)
        return whole.to(weight.dtype), None if shift is None or bias is None else shift.to(bias.dtype)


@contextmanager
def worn(model: SDXL, wears: Sequence[Wear]) -> Iterator[Wearing]:
    """Within the block the model wears the adapters: W + sum of weight * delta."""
    wearing = Wearing(model, wears)
    done: list[tuple[str, Wear]] = []
    try:
        for name, wear in zip(wearing.names, wears, strict=True):
            if wear.beside:
                _put_on(model, name, wear)
                done.append((name, wear))
        wearing.turn("conditional")
        yield wearing
    finally:
        wearing.turn("none")
        for name, wear in reversed(done):
            remove(model, list(wear.beside), name)


def _put_on(model: SDXL, name: str, wear: Wear) -> None:
    inject(model, name, {place: (change.rank, change.alpha) for place, change in wear.beside.items()})
    with torch.no_grad():
        for (part, path), change in wear.beside.items():
            layer: Any = model.parts[part].get_submodule(path)
            layer.lora_A[name].weight.copy_(change.down)
            layer.lora_B[name].weight.copy_(change.up.view_as(layer.lora_B[name].weight))
            layer.set_scale(name, wear.on(part))
