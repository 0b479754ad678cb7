"""Drawing on a small card: weights wait in host memory and come to the device when they are needed. Hooks by accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from darkroom.sdxl.model import SDXL

Memory = Literal["full", "model", "sequential"]


@contextmanager
def lean(models: Sequence[SDXL], others: Sequence[torch.nn.Module], how: Memory) -> Iterator[None]:
    """Within the block the models compute on their device though their weights lie in host memory.

    "full": nothing is done. "model": one whole part at a time is on the device. "sequential": one layer at a time, slow and smallest. The
    pictures are the same. The weights lie where they lay afterwards.
    """
    modules = _parts(models, others)
    if how == "full":
        yield
        return
    upcast = [m.vae for m in models if m.dtype == torch.float16 and m.vae.config.force_upcast]
    for vae in upcast:  # SDXL's own autoencoder overflows in fp16, and cannot change its precision while its weights are away
        vae.to(torch.float32)
    device = models[0].device
    undo = _by_part(modules, device) if how == "model" else _by_layer(modules, device)
    try:
        yield
    finally:
        undo()
        for vae in upcast:
            vae.to(torch.float16)


def _parts(models: Sequence[SDXL], others: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """Every module once, though models may share some."""
    found: dict[int, torch.nn.Module] = {}
    for model in models:
        for part in (model.text_encoder, model.text_encoder_2, model.unet, model.vae):
            if part is not None:
                found.setdefault(id(part), part)
    return [*found.values(), *others]


def _by_part(modules: Sequence[torch.nn.Module], device: torch.device) -> Any:
    from accelerate import cpu_offload_with_hook
    from accelerate.hooks import remove_hook_from_module

    hooks: list[Any] = []
    for module in modules:
        _, hook = cpu_offload_with_hook(module, device, prev_module_hook=hooks[-1] if hooks else None)
        hooks.append(hook)

    def undo() -> None:
        for module, hook in zip(modules, hooks, strict=True):
            hook.offload()
            remove_hook_from_module(module)

    return undo


def _by_layer(modules: Sequence[torch.nn.Module], device: torch.device) -> Any:
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    for module in modules:
        cpu_offload(module, device, offload_buffers=len(module._parameters) > 0)

    def undo() -> None:
        for module in modules:
            remove_hook_from_submodules(module)

    return undo
