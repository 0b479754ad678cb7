"""Several adapters on one model at once, each with its weights and its branch of guidance, and off again: the weights are bit-identical afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from darkroom.methods.lora import inject, remove
from darkroom.sdxl.formats import AdapterFile
from darkroom.sdxl.model import SDXL


@dataclass(frozen=True)
class Wear:
    """An adapter as it is to be worn: `text_weight` is for the text encoders' part (None: as `weight`); `branch` is "both" or one side of guidance."""

    adapter: AdapterFile
    weight: float = 1.0
    text_weight: float | None = None
    branch: str = "both"

    def on(self, part: str) -> float:
        """The weight on a part of the model."""
        return self.weight if part == "unet" or self.text_weight is None else self.text_weight


class Wearing:
    """What a model wears. `turn` chooses the adapters of one side of guidance; "none" is the bare model, to the last bit."""

    def __init__(self, model: SDXL, wears: Sequence[Wear] = ()) -> None:
        self.model, self.wears = model, tuple(wears)
        self.names = [f"worn_{index}" for index in range(len(wears))]

    @property
    def splits(self) -> bool:
        """Whether the two sides of guidance wear different things."""
        return any(wear.branch != "both" for wear in self.wears)

    def turn(self, side: str) -> None:
        """Let the model wear what this side wears: "conditional", "unconditional" or "none"."""
        chosen = [name for name, wear in zip(self.names, self.wears, strict=True) if side != "none" and wear.branch in ("both", side)]
        for layer in self._layers():
            here = [name for name in chosen if name in layer.lora_A]
            layer.enable_adapters(bool(here))
            if here:
                layer.set_adapter(here, inference_mode=True)

    def _layers(self) -> list[Any]:
        places = {place for wear in self.wears for place in wear.adapter.modules}
        return [self.model.parts[part].get_submodule(path) for part, path in sorted(places)]


@contextmanager
def worn(model: SDXL, wears: Sequence[Wear]) -> Iterator[Wearing]:
    """Within the block the model wears the adapters: W + sum of weight * (alpha / r) up @ down."""
    wearing = Wearing(model, wears)
    done: list[tuple[str, Wear]] = []
    try:
        for name, wear in zip(wearing.names, wears, strict=True):
            modules = wear.adapter.modules
            inject(model, name, {place: (change.rank, change.alpha) for place, change in modules.items()})
            done.append((name, wear))
            with torch.no_grad():
                for (part, path), change in modules.items():
                    layer: Any = model.parts[part].get_submodule(path)
                    layer.lora_A[name].weight.copy_(change.down)
                    layer.lora_B[name].weight.copy_(change.up.view_as(layer.lora_B[name].weight))
                    layer.set_scale(name, wear.on(part))
        wearing.turn("conditional")
        yield wearing
    finally:
        for name, wear in reversed(done):
            remove(model, list(wear.adapter.modules), name)
