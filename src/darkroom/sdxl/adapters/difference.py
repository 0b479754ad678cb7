"""Two adapters compared by what they do to the weights, whatever their layout, method, rank and alpha: norms, distance and angle by place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Change, tensors_of
from darkroom.sdxl.adapters.combine import Progress, Weight
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.matrices import apart, depends, matrix_of
from darkroom.sdxl.adapters.places import Key, Place
from darkroom.sdxl.adapters.share import in_order, words
from darkroom.sdxl.adapters.show import TRAINING


@dataclass
class Sums:
    """Squares of Frobenius norms: of A, of B, of A - B."""

    a: float = 0.0
    b: float = 0.0
    apart: float = 0.0
    modules: int = 0

    def add(self, a: float, b: float, difference: float, modules: int = 1) -> None:
        """The norms at one module."""
        self.a, self.b, self.apart, self.modules = self.a + a * a, self.b + b * b, self.apart + difference * difference, self.modules + modules

    def facts(self) -> dict[str, Any]:
        """`difference` is |A - B| / max(|A|, |B|); `cosine` of the angle between them and `strength` s of the nearest s * A are None where one is nothing."""
        a, b, inner = math.sqrt(self.a), math.sqrt(self.b), (self.a + self.b - self.apart) / 2
        return {
            "a": a, "b": b, "difference": math.sqrt(self.apart) / max(a, b) if max(a, b) else 0.0,
            "cosine": max(-1.0, min(1.0, inner / (a * b))) if a * b else None, "strength": inner / self.a if self.a else None, "modules": self.modules,
        }  # fmt: skip


@dataclass
class Compared:
    """All of it; `sentence` is the verdict."""

    overall: dict[str, Any]
    blocks: dict[str, dict[str, Any]]
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    both: int = 0
    training: dict[str, list[str | None]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    sentence: str = ""

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(vars(self))


def compare(a: Adapter, b: Adapter, weight: Weight | None = None, progress: Progress = lambda done, total: None) -> Compared:
    """Both were read for one base; `weight` gives that base's weights, for methods whose change depends on them. Raises AdapterError without."""
    total, blocks = Sums(), dict[str, Sums]()
    keys = sorted(a.changes.keys() | b.changes.keys())
    for done, key in enumerate(keys, 1):
        place = a.catalogue.places[key]
        norms = _norms(a, b, place, weight)
        for sums in (total, blocks.setdefault(words(a.catalogue, key)[0], Sums())):
            for count, (one, two, difference) in enumerate(norms):
                sums.add(one, two, difference, modules=int(count == 0))
        progress(done, len(keys))
    found = Compared(total.facts(), {block: sums.facts() for block, sums in in_order(blocks.items())})
    found.only_a, found.only_b = (_names(a, one.changes.keys() - two.changes.keys()) for one, two in ((a, b), (b, a)))
    found.both = len(a.changes.keys() & b.changes.keys())
    found.training = differing(a.metadata, b.metadata)
    found.words = _words(a, b)
    found.sentence = verdict(found.overall, not found.only_a and not found.only_b and not found.words)
    return found


def _names(a: Adapter, keys: set[Key]) -> list[str]:
    return [str(a.catalogue.places[key]) for key in sorted(keys)]


def _norms(a: Adapter, b: Adapter, place: Place, weight: Weight | None) -> list[tuple[float, float, float]]:
    """(|A|, |B|, |A - B|) of the weight's change, and of the bias's where there is one."""
    held = [(adapter, adapter.changes.get(place.key)) for adapter in (a, b)]
    base = _base(held, place, weight)
    matrices = [None if change is None else matrix_of(change, place.shape, base) for _, change in held]
    one, two = matrices
    sizes = [0.0 if matrix is None else matrix.norm() for matrix in matrices]
    distance = max(sizes)
    if one is not None and two is not None:
        distance = 0.0 if _equal(*(change for _, change in held)) else apart(one, two)
    found = [(sizes[0], sizes[1], distance)]
    biases = [None if change is None or change.bias is None else change.bias.double() for _, change in held]
    if any(bias is not None for bias in biases):
        shifts = [0.0 if bias is None else bias for bias in biases]
        found.append((_size(shifts[0]), _size(shifts[1]), _size(shifts[0] - shifts[1])))
    return found


def _equal(one: Change | None, two: Change | None) -> bool:
    """Number for number: then nothing is reckoned, and float64's own rounding does not blur it."""
    if one is None or two is None or type(one) is not type(two) or one.alpha != two.alpha:
        return False
    first, second = tensors_of(one), tensors_of(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _size(shift: Tensor | float) -> float:
    return float(shift.norm()) if isinstance(shift, Tensor) else abs(shift)


def _base(held: list[tuple[Adapter, Change | None]], place: Place, weight: Weight | None) -> Tensor | None:
    for adapter, change in held:
        if change is not None and depends(change):
            if weight is None:
                raise AdapterError(f"{adapter.path}: {place} is {change.method}, and what that adds depends on the base's weights. Name the base with --base.")
            return weight(place.key)
    return None


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, list[str | None]]:
    """Facts of the training that the two headers tell differently, or one of them alone."""
    return {key: [a.get(key), b.get(key)] for key in TRAINING if a.get(key) != b.get(key)}


def _words(a: Adapter, b: Adapter) -> dict[str, str]:
    """Bundled embeddings that are not the same in both."""
    found = {word: "A alone" if word in a.embeddings else "B alone" for word in a.embeddings.keys() ^ b.embeddings.keys()}
    for word in a.embeddings.keys() & b.embeddings.keys():
        one, two = a.embeddings[word], b.embeddings[word]
        if one.keys() != two.keys() or any(one[clip].shape != two[clip].shape or not bool((one[clip] == two[clip]).all()) for clip in one):
            found[word] = "different vectors"
    return dict(sorted(found.items()))


def verdict(overall: Mapping[str, Any], same_modules: bool) -> str:
    """One sentence on the whole. The bounds are ours: 1 % is what rounding to 8 bits of mantissa (bfloat16) can make, and no training is."""
    difference, cosine, strength = overall["difference"], overall["cosine"], overall["strength"]
    if difference == 0:
        return "The same adapter, exactly." if same_modules else "The same change of the weights, exactly, though not the same modules or words."
    if cosine is None:
        return "One of the two changes nothing, and the other one does."
    if difference < 0.01:
        return f"The same adapter to {difference:.1e}: what rounding or another layout makes."
    if cosine > 0.999:
        return f"The same direction at another strength: B is {strength:.3g} times A, to {math.sqrt(max(0.0, 1 - cosine * cosine)):.1e}."
    if cosine < -0.999:
        return f"The opposite direction: B is {strength:.3g} times A."
    if cosine > 0.5:
        return f"Relatives: they point the same way (cosine {cosine:.3f}) and lie {difference:.0%} apart, as two checkpoints of one training do."
    if cosine > 0.05:
        return f"Another adapter, with something in common: cosine {cosine:.3f}."
    return (
        f"Another adapter: cosine {cosine:.3f}, which is as good as at right angles."
        if cosine > -0.05
        else f"Another adapter, which pulls against the first: cosine {cosine:.3f}."
    )
