"""Methods that add a product of small matrices to a weight: LoRA, LoCon, DoRA, LoHa, LoKr, GLoRA. What they share is told in `changes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def decomposed(weight: Tensor, delta: Tensor, magnitude: Tensor | None) -> Tensor:
    """The delta of DoRA (Liu et al. 2024, eq. 5): W + delta, brought to the learned norms; without a magnitude the delta itself.

    `magnitude` is (out, 1[, 1, 1]), a norm for each output (peft, LyCORIS' wd_on_output), or (1, in[, 1, 1]), one for each input (early kohya files).
    """
    if magnitude is None:
        return delta
    changed: Tensor = weight.float() + delta
    keep = 0 if magnitude.shape[0] == weight.shape[0] else 1
    dims = [dim for dim in range(weight.ndim) if dim != keep]
    norm: Tensor = torch.linalg.vector_norm(changed, dim=dims, keepdim=True) + torch.finfo(torch.float32).eps
    return changed * (magnitude.float() / norm) - weight.float()


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(p, r, k, k) from a core (i, j, k, k), a (i, p) and b (j, r)."""
    product: Tensor = torch.einsum("ij...,ip,jr->pr...", core, a, b)
    return product.contiguous()  # torch.kron wants it so


@dataclass(frozen=True, eq=False)
class LowRank:
    """LoRA (Hu et al. 2021) and LoCon: up (out, r[, 1, 1]) @ down (r, in[, k, k]) * alpha / r; with mid (r, r, k, k), down is 1 x 1."""

    down: Tensor
    up: Tensor
    alpha: float
    mid: Tensor | None = None
    dora_scale: Tensor | None = None
    suffixes: ClassVar = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight", "dora_scale": "dora_scale"}

    @property
    def method(self) -> str:
        return ("LoRA" if self.down.ndim == 2 else "LoCon") if self.dora_scale is None else "DoRA"

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def bias(self) -> Tensor | None:
        return None

    def _full(self) -> Tensor:
        down, up, scale = self.down.float(), self.up.float().flatten(1), self.alpha / self.rank
        if self.mid is not None:
            return tucker(self.mid.float(), up.T, down.flatten(1)) * scale
        return (up @ down.flatten(1)).view(up.shape[0], *down.shape[1:]) * scale

    def delta(self, weight: Tensor) -> Tensor:
        return decomposed(weight, self._full().reshape(weight.shape), self.dora_scale)

    def norm(self) -> float | None:
        """|up down| from two r x r matrices: |U D|^2 = tr(U^T U D D^T)."""
        if self.dora_scale is not None:
            return None
        if self.mid is not None:
            return float(self._full().norm())
        up, down = self.up.flatten(1).double(), self.down.flatten(1).double()
        squared = ((up.T @ up) * (down @ down.T)).sum()
        return float(squared.clamp(min=0).sqrt()) * abs(self.alpha) / self.rank


@dataclass(frozen=True, eq=False)
class Hada:
    """LoHa (FedPara, Hyeon-Woo et al. 2022): (w1_a w1_b) * (w2_a w2_b) elementwise * alpha / r; with t1, t2 each factor is a Tucker product."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    alpha: float
    t1: Tensor | None = None
    t2: Tensor | None = None
    dora_scale: Tensor | None = None
    suffixes: ClassVar = {name: f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")} | {"dora_scale": "dora_scale"}
    method: ClassVar = "LoHa"

    @property
    def rank(self) -> int:
        return int(self.w1_b.shape[0])

    @property
    def bias(self) -> Tensor | None:
        return None

    def _full(self) -> Tensor:
        halves = ((self.t1, self.w1_a, self.w1_b), (self.t2, self.w2_a, self.w2_b))
        one, two = (a.float() @ b.float() if t is None else tucker(t.float(), a.float(), b.float()) for t, a, b in halves)
        return one * two * (self.alpha / self.rank)

    def delta(self, weight: Tensor) -> Tensor:
        return decomposed(weight, self._full().reshape(weight.shape), self.dora_scale)

    def norm(self) -> float | None:
        return None if self.dora_scale is not None else float(self._full().norm())


@dataclass(frozen=True, eq=False)
class Kron:
    """LoKr: the Kronecker product of w1 (or w1_a w1_b) and w2 (or w2_a w2_b, or a Tucker product with t2) * alpha / r; unscaled where both are whole."""

    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None
    alpha: float = 1.0
    dora_scale: Tensor | None = None
    suffixes: ClassVar = {name: f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")} | {"dora_scale": "dora_scale"}
    method: ClassVar = "LoKr"

    @property
    def rank(self) -> int:
        """The inner rank; 0 where both factors are whole."""
        factor = self.w2_b if self.w2_b is not None else self.w1_b
        return 0 if factor is None else int(factor.shape[0])

    @property
    def bias(self) -> Tensor | None:
        return None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 1.0

    def factors(self) -> tuple[Tensor, Tensor]:
        """w1 (a, b) and w2 (c, d) or (c, d, k, k), whole, in float32."""
        return _factor(self.w1, self.w1_a, self.w1_b, None), _factor(self.w2, self.w2_a, self.w2_b, self.t2)

    def delta(self, weight: Tensor) -> Tensor:
        one, two = self.factors()
        return decomposed(weight, torch.kron(one.view(*one.shape, *[1] * (two.ndim - 2)), two).reshape(weight.shape) * self.scale, self.dora_scale)

    def norm(self) -> float | None:
        if self.dora_scale is not None:
            return None
        one, two = self.factors()
        return float(one.norm() * two.norm()) * abs(self.scale)


def _factor(whole: Tensor | None, a: Tensor | None, b: Tensor | None, core: Tensor | None) -> Tensor:
    if whole is not None:
        return whole.float()
    assert a is not None and b is not None
    if core is not None:
        return tucker(core.float(), a.float(), b.float())
    product = a.float() @ b.float().flatten(1)
    return product.view(a.shape[0], *b.shape[1:])


@dataclass(frozen=True, eq=False)
class Glora:
    """GLoRA (Chavan et al. 2023) as LyCORIS writes it: (b1 b2 + W a1 a2) * alpha / r."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float
    suffixes: ClassVar = {name: f"{name}.weight" for name in ("a1", "a2", "b1", "b2")}
    method: ClassVar = "GLoRA"

    @property
    def rank(self) -> int:
        return int(self.a2.shape[0])

    @property
    def bias(self) -> Tensor | None:
        return None

    def delta(self, weight: Tensor) -> Tensor:
        own = (self.b1.float().flatten(1) @ self.b2.float().flatten(1)).view(weight.shape)
        of_weight = torch.einsum("oi...,ir,rj->oj...", weight.float(), self.a1.float().flatten(1), self.a2.float().flatten(1))
        return (own + of_weight) * (self.alpha / self.rank)

    def norm(self) -> float | None:
        return None
