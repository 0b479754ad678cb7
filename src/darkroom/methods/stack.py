"""Several adapters on one model at once, each with its weight, and off again: the weights are bit-identical afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from darkroom.methods.lora import inject, remove
from darkroom.sdxl.formats import AdapterFile
from darkroom.sdxl.model import SDXL


@contextmanager
def worn(model: SDXL, adapters: Sequence[tuple[AdapterFile, float]]) -> Iterator[None]:
    """Within the block the model wears the adapters: W + sum of weight * (alpha / r) up @ down."""
    names = [f"worn_{index}" for index in range(len(adapters))]
    done: list[tuple[str, AdapterFile]] = []
    try:
        for name, (adapter, weight) in zip(names, adapters, strict=True):
            inject(model, name, {place: (change.rank, change.alpha) for place, change in adapter.modules.items()})
            done.append((name, adapter))
            with torch.no_grad():
                for (part, path), change in adapter.modules.items():
                    layer: Any = model.parts[part].get_submodule(path)
                    layer.lora_A[name].weight.copy_(change.down)
                    layer.lora_B[name].weight.copy_(change.up.view_as(layer.lora_B[name].weight))
                    layer.set_scale(name, weight)
        for _, adapter in done:
            for part, path in adapter.modules:
                layer = model.parts[part].get_submodule(path)
                layer.set_adapter([name for name in names if name in layer.lora_A], inference_mode=True)
        yield
    finally:
        for name, adapter in reversed(done):
            remove(model, list(adapter.modules), name)
