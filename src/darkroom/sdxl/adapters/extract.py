"""What a tuned checkpoint has beyond its base, as a LoRA: the nearest of a rank, one weight of each in memory. What a LoRA cannot hold is measured too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from darkroom.errors import AdapterError, ModelError, RecipeError
from darkroom.sdxl.adapters.combine import LEVEL, Made, Progress, lowrank
from darkroom.sdxl.adapters.matrices import Cut, Whole, apart, cut, matrix_of
from darkroom.sdxl.adapters.places import Place
from darkroom.sdxl.adapters.share import words
from darkroom.sdxl.unread import Unread

UNLEARNED = ("position_ids", "logit_scale")


@dataclass(frozen=True)
class Extraction:
    """What is wanted: `conv_rank` is for convolutions larger than 1 x 1 (None: as `by`; 0: they are left out), `text_encoders` whether theirs are taken."""

    by: Cut
    conv_rank: int | None = None
    text_encoders: bool = True

    def cut_at(self, place: Place) -> Cut | None:
        """The rank of one module; None where it is not wanted."""
        if place.part != "unet" and not self.text_encoders:
            return None
        if len(place.shape) == 4 and math.prod(place.shape[2:]) > 1 and self.conv_rank is not None:
            return Cut(self.conv_rank, self.by.energy, self.by.cumulative, self.by.ratio) if self.conv_rank else None
        return self.by


@dataclass
class Extracted:
    """The LoRA with its error beside what it should hold, and `left_out`: what else differs, each with its count and its share of the whole change."""

    made: Made
    left_out: dict[str, dict[str, float]]
    error_of_all: float
    dtypes: tuple[str, str]


def extract(tuned: Unread, base: Unread, wanted: Extraction, dtype: torch.dtype, progress: Progress = lambda done, total: None) -> Extracted:
    """Raises ModelError for models of different shapes and numbers that are not finite; RecipeError for a rank that cannot be; AdapterError where the two
    do not differ in anything that a LoRA holds.
    """
    wanted.by.check()
    if (wanted.conv_rank or 0) < 0:
        raise RecipeError(f"conv rank = {wanted.conv_rank}: cannot be below 0. 0 leaves convolutions out.")
    names = _names(tuned, base)
    places = base.catalogue.places
    _check_rank(wanted, [place for place in places.values() if place.kind in ("linear", "conv")])
    made, left = Made(), dict[str, list[float]]()
    for done, (part, name) in enumerate(names, 1):
        if (difference := _difference(tuned, base, part, name)) is not None:
            path, _, leaf = name.rpartition(".")
            place = places.get((part, path))
            how = wanted.cut_at(place) if place is not None and place.kind in ("linear", "conv") and leaf == "weight" else None
            if how is None or place is None:
                sums = left.setdefault(_label(part, leaf, place), [0, 0.0])
                sums[0] += 1
                sums[1] += float(difference.square().sum())
            else:
                _take(made, base, place, difference, how, float(wanted.by.rank or LEVEL), dtype)
        progress(done, len(names))
    if not made.changes:
        raise AdapterError(f"{tuned.place}: {_nothing(left, base.place)}")
    return _summed(made, left, (_name(tuned.dtype), _name(base.dtype)))


def _names(tuned: Unread, base: Unread) -> list[tuple[str, str]]:
    """(part, name) of every tensor. Raises ModelError where the two have others."""
    shapes = [{(part, name): tuple(t.shape) for part, module in one.parts.items() for name, t in module.state_dict().items()} for one in (tuned, base)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(name) != shapes[1].get(name):
            said = [str(found[name]) if name in found else "missing" for found in shapes]
            raise ModelError(f"{tuned.place}: {'.'.join(name)} is {said[0]}, and {said[1]} in {base.place}. Only models of one shape have a difference.")
    return sorted(name for name in shapes[1] if not name[1].endswith(UNLEARNED))


def _check_rank(wanted: Extraction, places: list[Place]) -> None:
    for name, rank in (("rank", wanted.by.rank), ("conv rank", wanted.conv_rank or 0)):
        most = max(min(place.shape[0], math.prod(place.shape[1:])) for place in places)
        if rank > most:
            raise RecipeError(f"{name} = {rank}: the largest module has {most} ranks. Choose {most} or fewer; 16 to 128 is usual.")


def _difference(tuned: Unread, base: Unread, part: str, name: str) -> Tensor | None:
    """Tuned minus base in float64; None where they are equal."""
    one, two = tuned.tensor(part, name), base.tensor(part, name)
    difference = one.double() - two.double()
    if not difference.isfinite().all():
        where: Path = base.place if one.isfinite().all() else tuned.place
        raise ModelError(f"{where}: {part}.{name} holds NaN or infinity. The model is broken: use an earlier checkpoint.")
    return difference if difference.any() else None


def _take(made: Made, base: Unread, place: Place, difference: Tensor, how: Cut, level: float, dtype: torch.dtype) -> None:
    exact = Whole(difference.reshape(place.shape[0], -1))
    change = lowrank(place, cut(exact, how), level, dtype)
    made.changes[place.key] = change
    made.ruler.add(words(base.catalogue, place.key)[0], apart(exact, matrix_of(change, place.shape)), exact.norm())


def _label(part: str, leaf: str, place: Place | None) -> str:
    if part == "vae":
        return "vae"
    kind = "embedding" if place is None else place.kind
    if leaf == "bias" and kind != "norm":
        return "biases"
    unasked = "convolutions" if part == "unet" else "text encoders"
    return {"norm": "norms", "embedding": "embeddings"}.get(kind, f"{unasked}, which were not asked for")


def _nothing(left: dict[str, list[float]], base: Path) -> str:
    if not left:
        return f"is equal to {base}, number for number: there is nothing to extract. Is it the right file?"
    differs = ", ".join(f"{label} ({count:.0f})" for label, (count, _) in left.items())
    return f"differs from {base} in nothing that this LoRA would hold, but in {differs}. Ask for more parts, or use `darkroom base merge`."


def _summed(made: Made, left: dict[str, list[float]], dtypes: tuple[str, str]) -> Extracted:
    """The VAE is no part of what an adapter is measured by: its share is of its own."""
    outside = sum(square for label, (_, square) in left.items() if label != "vae")
    inside, missed = made.ruler.norm**2, (made.ruler.error * made.ruler.norm) ** 2
    shares = {
        label: {"tensors": int(count), "norm": math.sqrt(square), "share": math.sqrt(square / (inside + outside)) if label != "vae" else math.nan}
        for label, (count, square) in sorted(left.items())
    }
    return Extracted(made, shares, math.sqrt((missed + outside) / (inside + outside)), dtypes)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
