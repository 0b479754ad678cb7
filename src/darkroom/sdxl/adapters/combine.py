"""Several adapters into one, and one into fewer ranks. How far the written tensors, rounding included, lie from the exact sum is measured by place.

"sum" adds the changes themselves, exactly for every method, as full differences: a large file. "concat" lays low-rank factors side by side, exactly: ranks
add up. "svd" is the nearest of a given rank. Adding the factors of LoRAs to one another, as some programs do, is no sum of the LoRAs: it is not offered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from darkroom.errors import AdapterError, RecipeError
from darkroom.sdxl.adapters.changes import Change, Full, Hada, Kron, LowRank, Norm, tensors_of
from darkroom.sdxl.adapters.layouts import Adapter, Words
from darkroom.sdxl.adapters.matrices import Cut, Matrix, Thin, added, apart, cut, depends, factors, matrix_of, width
from darkroom.sdxl.adapters.places import Key, Place
from darkroom.sdxl.adapters.share import Ruler, Share, check_shares, words

How = Literal["sum", "concat", "svd"]
Weight = Callable[[Key], Tensor]
"""The base's weight at a module."""
Progress = Callable[[int, int], None]
LEVEL = 16.0
"""The alpha of every module where no rank was named: one for all, because diffusers 0.42 reads kohya's attention layers so (see `level`)."""
NOTHING = 1e-12
"""What is this small beside its parts is what float64 leaves where they cancel."""

Held = list[tuple[float, Change]]


@dataclass
class Made:
    """What came of it: the changes, how far they lie from the exact ones, and what a LoRA could not hold, counted."""

    changes: dict[Key, Change] = field(default_factory=dict)
    ruler: Ruler = field(default_factory=Ruler)
    lost: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """The figures for a person or a header."""
        ranks = Counter(change.rank for change in self.changes.values() if change.rank)
        return {
            "modules": len(self.changes), "ranks": {str(rank): count for rank, count in sorted(ranks.items())}, "norm": self.ruler.norm,
            "error": self.ruler.error, "blocks": self.ruler.blocks(), "left_out": dict(self.lost),
        }  # fmt: skip


def combine(
    shares: Sequence[Share], how: How, by: Cut, dtype: torch.dtype, weight: Weight | None = None, progress: Progress = lambda done, total: None
) -> Made:
    """One adapter that adds what all of them add with their weights. `by` is the rank of "svd"; `weight` gives the base's weights, for methods that need
    them: then the result is exact on that base alone.

    Raises RecipeError for weights, places and ranks that cannot be; AdapterError where the way cannot hold a method, or nothing is left.
    """
    check_shares(shares)
    places = shares[0].adapter.catalogue.places
    keys = sorted({key for share in shares for key in share.adapter.changes})
    held = {key: _held(shares, key) for key in keys}
    _check(shares, how, by, weight, {places[key]: parts for key, parts in held.items() if parts})
    made, level = Made(), _level(shares, how, by)
    for done, key in enumerate(keys, 1):
        if held[key]:
            _at(made, places[key], words(shares[0].adapter.catalogue, key)[0], held[key], how, by, level, dtype, weight)
        progress(done, len(keys))
    if not made.changes:
        raise AdapterError("nothing is left: with these weights the adapters change nothing, or cancel one another. Choose other weights.")
    return made


def resize(adapter: Adapter, by: Cut, dtype: torch.dtype, weight: Weight | None = None, progress: Progress = lambda done, total: None) -> Made:
    """The nearest LoRA of a smaller rank: of LoRA, LoHa and LoKr from their factors, of a full difference from its singular values.

    Raises RecipeError for a rank that is larger than what the file has; AdapterError for a method that needs the base where `weight` is None.
    """
    return combine([Share(adapter)], "svd", by, dtype, weight, progress)


def _held(shares: Sequence[Share], key: Key) -> Held:
    found = [(share.at(key), share.adapter.changes[key]) for share in shares if key in share.adapter.changes]
    return [(by, change) for by, change in found if by]


def _check(shares: Sequence[Share], how: How, by: Cut, weight: Weight | None, held: dict[Place, Held]) -> None:
    whose = {id(change): share.adapter.path for share in shares for change in share.adapter.changes.values()}
    for place, parts in held.items():
        for _, change in parts:
            if depends(change) and weight is None:
                raise AdapterError(
                    f"{whose[id(change)]}: {place} is {change.method}, and what that adds depends on the base's weights. Name the base with --base"
                    + (', and --how svd or sum: "concat" takes LoRA, LoHa and LoKr alone.' if how == "concat" else ".")
                )
            if how == "concat" and place.kind in ("linear", "conv"):
                _check_concat(whose[id(change)], place, change)
    if how == "svd":
        by.check()
        most = max((_most(place, parts) for place, parts in held.items() if place.kind in ("linear", "conv")), default=0)
        if most and by.rank > most:
            raise RecipeError(f"rank = {by.rank}: there are no more than {most} ranks in it. Choose {most} or fewer.")


def _check_concat(file: Path, place: Place, change: Change) -> None:
    side = min(place.shape[0], math.prod(place.shape[1:]))
    if not isinstance(change, LowRank | Hada | Kron) or (not isinstance(change, LowRank) and width(change) >= side):
        raise AdapterError(f"{file}: {place} is {change.method}, which has no low rank to lay beside others. Use --how svd with --rank, or --how sum.")


def _most(place: Place, parts: Held) -> int:
    """The largest rank that the sum can have here."""
    side = min(place.shape[0], math.prod(place.shape[1:]))
    return min(side, sum(width(change) if isinstance(change, LowRank | Hada | Kron) and not depends(change) else side for _, change in parts))


def _level(shares: Sequence[Share], how: How, by: Cut) -> float:
    if how == "svd":
        return float(by.rank or LEVEL)
    return float(sum(max((change.rank for change in share.adapter.changes.values()), default=0) for share in shares)) or LEVEL


def _at(made: Made, place: Place, block: str, held: Held, how: How, by: Cut, level: float, dtype: torch.dtype, weight: Weight | None) -> None:
    """Add what one module gets."""
    base = weight(place.key) if weight is not None and any(depends(change) for _, change in held) else None
    parts = [(share, matrix_of(change, place.shape, base)) for share, change in held]
    exact, bias = added(parts), _bias(held)
    size = exact.norm()
    if len(parts) > 1 and size < NOTHING * sum(abs(share) * part.norm() for share, part in parts):
        size = 0.0
    change: Change
    match place.kind, how:
        case (("linear" | "conv"), "concat"):
            change = _side_by_side(place, held, level, dtype)
        case (("linear" | "conv"), "svd"):
            change = lowrank(place, cut(exact, by), level, dtype) if size else Full(None, None if bias is None else bias.to(dtype))
        case _:
            change = _full(place, exact, bias, dtype)
    if isinstance(change, LowRank) and bias is not None:
        made.lost["biases"] += 1
        bias = None
    if size or bias is not None:
        made.changes[place.key] = change
    else:
        made.lost["modules that change nothing"] += 1
    if size:
        made.ruler.add(block, apart(exact, matrix_of(change, place.shape)), size)
    if bias is not None and change.bias is not None:
        made.ruler.add(block, float((change.bias - bias).norm()), float(bias.norm()), modules=0)


def _bias(held: Held) -> Tensor | None:
    found = [by * change.bias.double() for by, change in held if change.bias is not None]
    return torch.stack(found).sum(0) if found and any(bias.any() for bias in found) else None


def _full(place: Place, exact: Matrix, bias: Tensor | None, dtype: torch.dtype) -> Change:
    whole, shift = exact.whole().view(place.shape).to(dtype), None if bias is None else bias.to(dtype)
    return Norm(whole, shift) if place.kind == "norm" else Full(whole, shift)


def _side_by_side(place: Place, held: Held, level: float, dtype: torch.dtype) -> LowRank:
    """Weights, signs and scales go into `up`: `down` holds the files' own numbers."""
    thin = [(by, factors(change)) for by, change in held if isinstance(change, LowRank | Hada | Kron)]
    rank = sum(factor.rank for _, factor in thin)
    up = torch.cat([factor.up * (by * rank / level) for by, factor in thin], 1)
    return _written(place, up, torch.cat([factor.down for _, factor in thin]), level, dtype)


def lowrank(place: Place, thin: Thin, alpha: float, dtype: torch.dtype) -> LowRank:
    """The factors as a LoRA of this module with this alpha, its scale undone in both factors alike."""
    root = (thin.rank / alpha) ** 0.5
    return _written(place, thin.up * root, thin.down * root, alpha, dtype)


def _written(place: Place, up: Tensor, down: Tensor, alpha: float, dtype: torch.dtype) -> LowRank:
    ones = (1,) * (len(place.shape) - 2)
    found = LowRank(down.view(-1, *place.shape[1:]).to(dtype).contiguous(), up.view(*up.shape, *ones).to(dtype).contiguous(), alpha)
    if not (found.up.isfinite().all() and found.down.isfinite().all()):
        raise AdapterError(f"{place}: its numbers are too large for {str(dtype).removeprefix('torch.')}. Choose --dtype bf16 or fp32, or smaller weights.")
    return found


def bundled(shares: Sequence[Share]) -> Words:
    """The embeddings of all the files together. Raises AdapterError where two bring the same word."""
    found: Words = {}
    for share in shares:
        for word, vectors in share.adapter.embeddings.items():
            if word in found:
                raise AdapterError(f"{share.adapter.path}: bundles the word {word!r}, and so does another one. Rename one: a prompt says one thing.")
            found[word] = vectors
    return found


def widest(adapters: Sequence[Adapter]) -> torch.dtype:
    """The dtype that holds all their numbers: float32 where they differ, or are of another kind than a file of weights has."""
    changes = [change for adapter in adapters for change in adapter.changes.values()]
    found = {tensor.dtype for change in changes for tensor in tensors_of(change).values() if tensor.is_floating_point()}
    return next(iter(found)) if len(found) == 1 and found <= {torch.float16, torch.bfloat16} else torch.float32
