"""Adapters of any method merged into a base, tensor by tensor: W + sum of weight * delta(W), as `methods.stack` wears them.

Every delta is reckoned from the base's own weight, as at run time: DoRA, OFT and the like do not see what other adapters add, and their order is free.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Change
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.adapters.share import Ruler, Share, check_shares, words
from darkroom.sdxl.folder import Tensors


class Dressed:
    """`tensor(part, name)` of a base with adapters in it, in float32; what no adapter touches is the base's own.

    `change` measures how large the change is beside the weights, `rounding` how far the change that is written in `dtype` lies from the exact one
    (float64), both by place and of touched tensors alone. Raises as `check_shares` does, and AdapterError where nothing would change.
    """

    def __init__(self, base: Tensors, catalogue: Catalogue, shares: Sequence[Share], dtype: torch.dtype) -> None:
        check_shares(shares)
        self._base, self._catalogue, self._dtype = base, catalogue, dtype
        self._held = held_by(shares)
        self.change, self.rounding = Ruler(), Ruler()
        if not self._held:
            raise AdapterError("with these weights the adapters change nothing, and the result would be the base itself. Choose other weights.")

    @property
    def modules(self) -> int:
        """How many modules are touched."""
        return len(self._held)

    def tensor(self, part: str, name: str) -> Tensor:
        """One tensor of the result."""
        base = self._base(part, name)
        path, _, leaf = name.rpartition(".")
        held = self._held.get((part, path), ())
        deltas = [(by, delta) for by, change in held if (delta := _delta(change, leaf, base)) is not None]
        if not deltas:
            return base
        exact = base.double()
        for by, delta in deltas:
            exact = exact + by * delta.double()
        self._measure(words(self._catalogue, (part, path))[0], base, exact)
        return exact.float()

    def _measure(self, place: str, base: Tensor, exact: Tensor) -> None:
        size = float((exact - base).norm())
        self.change.add(place, size, float(base.double().norm()))
        self.rounding.add(place, float((exact.float().to(self._dtype).double() - exact).norm()), size)


def held_by(shares: Sequence[Share]) -> dict[Key, list[tuple[float, Change]]]:
    """By module, the changes and what each counts for."""
    found: dict[Key, list[tuple[float, Change]]] = {}
    for share in shares:
        for key, change in share.adapter.changes.items():
            if by := share.at(key):
                found.setdefault(key, []).append((by, change))
    return found


def _delta(change: Change, leaf: str, base: Tensor) -> Tensor | None:
    if leaf == "weight":
        return change.delta(base)
    return change.bias if leaf == "bias" else None
