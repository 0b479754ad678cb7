"""Any change of a weight, learned: each chosen module computes with W + delta(W), where delta is the very formula with which files are worn.

The formulas are those of `sdxl/adapters/changes.py`, which are checked against lycoris-lora; so what is learned, what is saved and what is worn later are
one thing, for every method. The base weights are never touched: a module's `forward` is laid over, and taken away again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from darkroom.device import generator
from darkroom.methods.attached import Adapting
from darkroom.methods.chosen import Chosen, Key, kept, put_back
from darkroom.sdxl.adapters.changes import Change
from darkroom.sdxl.adapters.layouts import Adapter, tensors_in
from darkroom.sdxl.adapters.places import Catalogue
from darkroom.sdxl.model import SDXL
from darkroom.values import seed_for


@dataclass
class Thread:
    """What is learned of one module: a method, its tensors by field, and what of it is constant."""

    method: Callable[..., Change]
    learned: dict[str, nn.Parameter]
    constant: dict[str, Any] = field(default_factory=dict)

    def change(self, cut: Callable[[dict[str, Any]], dict[str, Any]] = lambda fields: fields) -> Change:
        """The change as it is now; `cut` may take some of the tensors away (DyLoRA)."""
        return self.method(**cut({**self.learned, **self.constant}))


class Woven(Adapting):
    """Changes on a model that are being learned."""

    def __init__(
        self, spec: Chosen, model: SDXL, start: Callable[[Key, nn.Module, torch.Generator], Thread], seed: int, *, header: dict[str, Any],
        dropout: float = 0.0, block: int = 0,
    ) -> None:  # fmt: skip
        """`start` gives the fresh thread of a module. `dropout` is how often a module is left as it was for one batch; `block` is DyLoRA's (0: off)."""
        self.spec, self.model, self.seed, self.header = spec, model, seed, header
        self.dropout, self.block = dropout, block
        self.batch: int | None = None
        self.modules = spec.modules(model)
        self.threads = {key: start(key, module, generator(seed, "weave", *key)) for key, module in self.modules.items()}
        for (part, _), thread in self.threads.items():
            for name, tensor in thread.learned.items():
                thread.learned[name] = nn.Parameter(tensor.detach().to(next(model.parts[part].parameters()).device, torch.float32))
        for root in model.parts.values():
            root.requires_grad_(False)
        for key, module in self.modules.items():
            module.forward = self._forward(key, module)

    def _forward(self, key: Key, module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            change = None if self._dropped(key) else self.threads[key].change(self._cut(key))
            return changed(module, change, x)

        return forward

    def _dropped(self, key: Key) -> bool:
        """Whether this module is left as it was in this batch: a function of (seed, batch, module), so that computing it again gives the same."""
        if not self.dropout or self.batch is None:
            return False
        return float(torch.rand((), generator=generator(self.seed, "module dropout", self.batch, *key))) < self.dropout

    def _cut(self, key: Key) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """DyLoRA (Valipour et al. 2023, section 4.2): in each batch the first b ranks are used and the last block of them learns; all when drawing."""
        if not self.block or self.batch is None:
            return lambda fields: fields
        rank = int(self.threads[key].learned["down"].shape[0])
        last = (1 + seed_for(self.seed, "dylora", self.batch, *key) % (rank // self.block)) * self.block
        first = last - self.block

        def cut(fields: dict[str, Any]) -> dict[str, Any]:
            down, up = fields["down"], fields["up"]
            held = torch.cat([down[:first].detach(), down[first:last]]), torch.cat([up[:, :first].detach(), up[:, first:last]], 1)
            return fields | {"down": held[0], "up": held[1]}

        return cut

    def prepare(self, batch: int | None) -> None:
        """The number of the batch that comes; None before pictures, figures and files, which use everything."""
        self.batch = batch

    def _named(self) -> Iterator[tuple[Key, str, nn.Parameter]]:
        for key, thread in self.threads.items():
            for name, parameter in thread.learned.items():
                yield key, f"{key[0]}.{key[1]}.{name}", parameter

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One for each rate."""
        return self.spec.grouped(((key, parameter) for key, _, parameter in self._named()), rate)

    def state(self) -> dict[str, torch.Tensor]:
        """Full-precision tensors by name."""
        return kept(self._named())

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        put_back(self._named(), state)

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """kohya's layout, with LyCORIS' suffixes."""
        changes = {}
        for key, thread in self.threads.items():
            held = {name: parameter.detach().cpu().to(dtype) for name, parameter in thread.learned.items()}
            changes[key] = thread.method(**held, **thread.constant)
        return tensors_in(Adapter(Path("learned"), "", changes, catalogue=Catalogue.of(self.model)), "kohya")

    def metadata(self) -> dict[str, str]:
        """LyCORIS' header words."""
        words = {key: json.dumps(value) if isinstance(value, dict) else str(value) for key, value in self.header.items()}
        return {"ss_network_module": "lycoris.kohya", **words}

    def detach(self) -> None:
        """Take the forwards away; the base weights were never touched."""
        for module in self.modules.values():
            module.__dict__.pop("forward", None)


def changed(module: nn.Module, change: Change | None, x: torch.Tensor) -> torch.Tensor:
    """What the module gives with the change: op(x, W + delta). In half precision op(x, W) + op(x, delta), for W + delta would round delta away."""
    weight: Any = module.weight
    delta = None if change is None else change.delta(weight)
    if delta is None:
        return _applied(module, x, weight, module.bias)  # type: ignore[arg-type]
    if weight.dtype == torch.float32:
        return _applied(module, x, weight + delta, module.bias)  # type: ignore[arg-type]
    return _applied(module, x, weight, module.bias) + _applied(module, x, delta.to(weight.dtype), None)  # type: ignore[arg-type]


def _applied(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    match module:
        case nn.Conv2d():
            return functional.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)
        case _:
            return functional.linear(x, weight, bias)
