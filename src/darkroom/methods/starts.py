"""Fresh changes: what each method begins with, as LyCORIS draws it (lycoris/modules/*.py). Every one of them is no change yet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.methods.woven import Thread
from darkroom.sdxl.adapters.changes import Full, Hada, Ia3, Kron, LowRank, Oft


def _learned(**tensors: Tensor) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(tensor) for name, tensor in tensors.items()}


def _kaiming(*shape: int, dice: torch.Generator) -> Tensor:
    """kaiming_uniform(a = sqrt 5): uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=dice)


def _normal(*shape: int, std: float, dice: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=dice) * std


def lowrank(weight: Tensor, rank: int, alpha: float, dice: torch.Generator) -> Thread:
    """down by kaiming_uniform, up zero."""
    ones = (1,) * (weight.ndim - 2)
    return Thread(LowRank, _learned(down=_kaiming(rank, *weight.shape[1:], dice=dice), up=torch.zeros(weight.shape[0], rank, *ones)), {"alpha": alpha})


def hada(weight: Tensor, rank: int, alpha: float, dice: torch.Generator) -> Thread:
    """w1_b and w2_b normal (1), w1_a normal (0.1), w2_a zero."""
    out, inside = weight.shape[0], weight[0].numel()
    tensors = {"w1_b": _normal(rank, inside, std=1, dice=dice), "w1_a": _normal(out, rank, std=0.1, dice=dice)}
    return Thread(Hada, _learned(**tensors, w2_b=_normal(rank, inside, std=1, dice=dice), w2_a=torch.zeros(out, rank)), {"alpha": alpha})


def kron(weight: Tensor, rank: int, alpha: float, factor: int, both: bool, dice: torch.Generator) -> Thread:
    """w1 (or its parts) by kaiming_uniform; w2 zero, or w2_a by kaiming_uniform and w2_b zero. A factor is whole where two parts would be no smaller."""
    (a, b), (c, d), sides = factors(weight.shape[0], factor), factors(weight.shape[1], factor), weight.shape[2:]
    tensors = {"w1": _kaiming(a, c, dice=dice)}
    if both and rank < max(a, c) / 2:
        tensors = {"w1_a": _kaiming(a, rank, dice=dice), "w1_b": _kaiming(rank, c, dice=dice)}
    if rank < max(b, d) / 2:
        tensors |= {"w2_a": _kaiming(b, rank, dice=dice), "w2_b": torch.zeros(rank, d * math.prod(sides))}
    else:
        tensors |= {"w2": torch.zeros(b, d, *sides)}
    return Thread(Kron, _learned(**tensors), {"alpha": alpha})


def ia3(weight: Tensor, on_input: bool) -> Thread:
    """Zeros: W + W * 0."""
    side = weight.shape[1 if on_input else 0]
    shape = (side,) if weight.ndim == 2 else (1, side, *[1] * (weight.ndim - 2))
    return Thread(Ia3, _learned(weight=torch.zeros(shape)), {"on_input": on_input})


def oft(weight: Tensor, block: int, butterfly: bool, constraint: float, rescale: bool) -> Thread:
    """Blocks of zeros: no rotation. An empty oft_blocks says that these outputs cannot be cut (BOFT wants an even side times a power of two)."""
    out = weight.shape[0]
    if butterfly:
        side, number = power_of_two(out, block)
        blocks = torch.zeros(number.bit_length() if side else 0, number, side, side)
    else:
        side, number = factors(out, block)
        blocks = torch.zeros(number, side, side)
    found: dict[str, Any] = {"oft_blocks": blocks}
    if rescale:
        found["rescale"] = torch.ones(out, *[1] * (weight.ndim - 1))
    return Thread(Oft, _learned(**found), {"alpha": constraint})


def full(weight: Tensor) -> Thread:
    """Zeros."""
    return Thread(Full, _learned(diff=torch.zeros(weight.shape)))


def magnitude(weight: Tensor) -> nn.Parameter:
    """DoRA's norm of each output (out, 1[, 1, 1]) at its present value, by the very sum of `products.decomposed`: a fresh one is no change to the last bit."""
    base = weight.float()
    norms = torch.linalg.vector_norm(base, dim=list(range(1, base.ndim)), keepdim=True) + torch.finfo(torch.float32).eps
    return nn.Parameter(norms)


def factors(size: int, wanted: int = -1) -> tuple[int, int]:
    """Two factors of `size`, the smaller first: `wanted` and the rest where it divides, else the nearest below it; -1: nearest to the root."""
    if wanted > 0 and size % wanted == 0:
        return min(wanted, size // wanted), max(wanted, size // wanted)
    most = size if wanted < 0 else wanted
    small = max(n for n in range(1, min(most, math.isqrt(size)) + 1) if size % n == 0)
    return small, size // small


def power_of_two(size: int, wanted: int) -> tuple[int, int]:
    """(side, number): an even side of at most `wanted` and a number that is a power of two, their product `size`; (0, 0) where there is none."""
    sides = [side for side in range(2, wanted + 1, 2) if size % side == 0 and (size // side).bit_count() == 1]
    return (sides[-1], size // sides[-1]) if sides else (0, 0)


def smallest_side(size: int) -> str:
    """The way out for outputs that a BOFT of this rank cannot cut."""
    side, _ = power_of_two(size, size)
    fewest = next((wanted for wanted in range(2, side + 1, 2) if power_of_two(size, wanted)[0]), 0)
    return f"Set method.rank to {fewest} or more." if fewest else 'Nothing fits them; take algorithm = "diag-oft".'
