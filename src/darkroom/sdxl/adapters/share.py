"""An adapter with what it counts for where several come together: a weight, one for the text encoders, and a factor by place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darkroom.errors import RecipeError
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.blend import check_words, weight_at, words_at
from darkroom.sdxl.formats import sgm_path


@dataclass(frozen=True)
class Share:
    """`text_weight` is for the text encoders (None: as `weight`); `blocks` multiplies by place, in the words of `blend.Blend`, the narrower word first."""

    adapter: Adapter
    weight: float = 1.0
    text_weight: float | None = None
    blocks: Mapping[str, float] = field(default_factory=dict)

    def at(self, key: Key) -> float:
        """What it counts for at one module."""
        own = self.weight if key[0] == "unet" or self.text_weight is None else self.text_weight
        return own * weight_at(words(self.adapter.catalogue, key), self.blocks, 1.0)

    def facts(self) -> dict[str, Any]:
        """For a header: what was merged, how strongly, and by which hash it is known again."""
        said: dict[str, Any] = {"file": self.adapter.path.name, "sha256": self.adapter.sha256, "weight": self.weight}
        return said | ({} if self.text_weight is None else {"text_weight": self.text_weight}) | ({"blocks": dict(self.blocks)} if self.blocks else {})


def words(catalogue: Catalogue, key: Key) -> list[str]:
    """The words for the place of a module, the narrowest first: ["input_blocks.4", "input_blocks", "unet"]."""
    part, path = key
    return words_at(part, sgm_path(path, catalogue.layers) if part == "unet" else path)


def check_shares(shares: Sequence[Share]) -> None:
    """Raises RecipeError for a weight that is no number, an unknown place, no adapter at all, and a file that is there twice."""
    if not shares:
        raise RecipeError("no adapter was given. Give at least one FILE or FILE:WEIGHT.")
    seen: dict[str, Share] = {}
    for share in shares:
        name, catalogue = share.adapter.path, share.adapter.catalogue
        for word, weight in (("weight", share.weight), ("text weight", share.text_weight)):
            if weight is not None and not math.isfinite(weight):
                raise RecipeError(f"{name}: its {word} {weight} is no number. Write FILE:WEIGHT, for example {name}:0.8.")
        check_words(share.blocks, {word for key in catalogue.places for word in words(catalogue, key)}, catalogue.source)
        if (other := seen.get(share.adapter.sha256)) is not None:
            raise RecipeError(f"{name}: is the same file as {other.adapter.path}. Give it once, with both weights together ({other.weight + share.weight:g}).")
        seen |= {share.adapter.sha256: share} if share.adapter.sha256 else {}


class Ruler:
    """How far things lie from what they should be, by place and over all: relative Frobenius norms."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, place: str, error: float, size: float, modules: int = 1) -> None:
        """`error` and `size` are Frobenius norms of one tensor."""
        sums = self._sums.setdefault(place, [0.0, 0.0, 0])
        for index, number in enumerate((error * error, size * size, modules)):
            sums[index] += number

    @property
    def norm(self) -> float:
        """Of everything that was measured."""
        return math.sqrt(sum(size for _, size, _ in self._sums.values()))

    @property
    def error(self) -> float:
        """Over all, relative."""
        return _ratio(sum(error for error, _, _ in self._sums.values()), sum(size for _, size, _ in self._sums.values()))

    def blocks(self) -> dict[str, dict[str, Any]]:
        """By place: the norm of what should be, the relative error, and how many modules."""
        return {
            place: {"norm": math.sqrt(size), "error": _ratio(error, size), "modules": modules} for place, (error, size, modules) in in_order(self._sums.items())
        }


def _ratio(error: float, size: float) -> float:
    return math.sqrt(error / size) if size else math.inf if error else 0.0


def in_order(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Places sorted: the U-Net first, from its input to its output, blocks by number."""
    order = ("unet", "time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out", "text_encoder", "text_encoder_2", "vae")

    def rank(item: tuple[str, Any]) -> tuple[int, int]:
        first, _, number = item[0].partition(".")
        return order.index(first) if first in order else len(order), int(number or 0)

    return sorted(items, key=rank)
