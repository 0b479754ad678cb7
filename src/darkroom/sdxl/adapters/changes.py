"""What each method adds to a weight. One small class per method, with the formulas of LyCORIS (KohakuBlueleaf/LyCORIS, lycoris/functional).

`delta(weight)` is what is added to the base weight (out, in[, k, k]) at multiplier 1, computed in float32; `bias` is what is added to the module's bias;
`norm()` is the Frobenius norm of the delta where it can be had without the base weight. `suffixes` name the tensors as kohya's files do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from darkroom.sdxl.adapters.products import Glora, Hada, Kron, LowRank

__all__ = ["METHODS", "Change", "Full", "Glora", "Hada", "Ia3", "Kron", "LowRank", "Norm", "Oft", "tensors_of"]


@dataclass(frozen=True, eq=False)
class Ia3:
    """(IA)^3 (Liu et al. 2022): W times a learned vector, of its inputs or of its outputs."""

    weight: Tensor
    on_input: bool
    suffixes: ClassVar = {"weight": "weight", "on_input": "on_input"}
    method: ClassVar = "(IA)^3"
    rank: ClassVar = 0
    alpha: ClassVar[float | None] = None
    bias: ClassVar[Tensor | None] = None

    def delta(self, weight: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (weight.ndim - 2)) if self.on_input else (-1, *[1] * (weight.ndim - 1))
        return weight.float() * self.weight.float().flatten().view(shape)

    def norm(self) -> float | None:
        return None


@dataclass(frozen=True, eq=False)
class Oft:
    """Orthogonal finetuning: diag-OFT (Qiu et al. 2023) with oft_blocks (n, b, b), BOFT (Liu et al. 2024) with (m, n, b, b).

    R = (I + Q)(I - Q)^-1 with Q = B - B^T, its norm held to alpha * out where alpha > 0; `rescale` (out, 1[, 1, 1]) stretches the outputs.
    """

    oft_blocks: Tensor
    alpha: float = 0.0
    rescale: Tensor | None = None
    suffixes: ClassVar = {"oft_blocks": "oft_blocks", "rescale": "rescale"}
    bias: ClassVar[Tensor | None] = None

    @property
    def method(self) -> str:
        return "diag-OFT" if self.oft_blocks.ndim == 3 else "BOFT"

    @property
    def rank(self) -> int:
        """The side of a block."""
        return int(self.oft_blocks.shape[-1])

    def rotations(self, out: int) -> Tensor:
        """Orthogonal blocks of the shape of oft_blocks."""
        blocks = self.oft_blocks.float()
        skew = blocks - blocks.transpose(-1, -2)
        norm, most = skew.norm() + 1e-8, self.alpha * out
        if 0 < most < norm:
            skew = skew * (most / norm)
        eye = torch.eye(skew.shape[-1], device=skew.device)
        turns: Tensor = (eye + skew) @ torch.linalg.inv(eye - skew)
        return turns

    def delta(self, weight: Tensor) -> Tensor:
        base, turns = weight.float(), self.rotations(weight.shape[0])
        turned = _blockwise(turns, base) if turns.ndim == 3 else _butterfly(turns, base)
        return (turned if self.rescale is None else turned * self.rescale.float().view(-1, *[1] * (base.ndim - 1))) - base

    def norm(self) -> float | None:
        return None


def _blockwise(turns: Tensor, base: Tensor) -> Tensor:
    """Each block of outputs turned by R^T, as LyCORIS and sd-scripts have it."""
    return torch.einsum("knm,kn...->km...", turns, base.reshape(*turns.shape[:2], *base.shape[1:])).reshape(base.shape)


def _butterfly(turns: Tensor, base: Tensor) -> Tensor:
    """Stage i turns blocks of outputs that lie 2^i * b / 2 apart."""
    side = turns.shape[-1]
    for stage, turn in enumerate(turns):
        apart = 2**stage * side // 2
        mixed = base.reshape(-1, 2, apart, *base.shape[1:]).transpose(1, 2).reshape(-1, side, *base.shape[1:])
        mixed = torch.einsum("nij,nj...->ni...", turn, mixed)
        base = mixed.reshape(-1, apart, 2, *base.shape[1:]).transpose(1, 2).reshape(base.shape)
    return base


@dataclass(frozen=True, eq=False)
class Full:
    """The difference itself: diff of the weight's shape, diff_b of the bias's."""

    diff: Tensor | None = None
    diff_b: Tensor | None = None
    suffixes: ClassVar = {"diff": "diff", "diff_b": "diff_b"}
    method: ClassVar = "full"
    rank: ClassVar = 0
    alpha: ClassVar[float | None] = None

    @property
    def bias(self) -> Tensor | None:
        return None if self.diff_b is None else self.diff_b.float()

    def delta(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight, dtype=torch.float32) if self.diff is None else self.diff.float().view(weight.shape)

    def norm(self) -> float | None:
        return 0.0 if self.diff is None else float(self.diff.float().norm())


@dataclass(frozen=True, eq=False)
class Norm:
    """The difference of a layer norm's or group norm's weight (C,) and bias (C,)."""

    w_norm: Tensor
    b_norm: Tensor | None = None
    suffixes: ClassVar = {"w_norm": "w_norm", "b_norm": "b_norm"}
    method: ClassVar = "norm"
    rank: ClassVar = 0
    alpha: ClassVar[float | None] = None

    @property
    def bias(self) -> Tensor | None:
        return None if self.b_norm is None else self.b_norm.float()

    def delta(self, weight: Tensor) -> Tensor:
        return self.w_norm.float().view(weight.shape)

    def norm(self) -> float | None:
        return float(self.w_norm.float().norm())


Change = LowRank | Hada | Kron | Glora | Ia3 | Oft | Full | Norm
METHODS: tuple[type[Change], ...] = (LowRank, Hada, Kron, Glora, Ia3, Oft, Full, Norm)


def tensors_of(change: Change) -> dict[str, Tensor]:
    """The tensors of a change under kohya's suffixes; (IA)^3's on_input becomes a tensor too. The alpha is not among them."""
    found = {suffix: getattr(change, field) for field, suffix in change.suffixes.items()}
    return {suffix: value if isinstance(value, Tensor) else torch.tensor(int(value)) for suffix, value in found.items() if value is not None}
