"""Rates and ranks by block of networks.lora (down_lr_weight, block_dims and the rest) as method.rates and method.ranks.

Read from kohya-ss/sd-scripts, networks/lora.py: parse_block_lr_kwargs, get_block_dims_and_alphas, get_block_index (February 2026).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.report import Ledger

PLACES: tuple[tuple[str, ...], ...] = (
    (), (), ("down_blocks.0.resnets.0",), ("down_blocks.0.resnets.1",), ("down_blocks.0.downsamplers.0",),
    ("down_blocks.1.resnets.0", "down_blocks.1.attentions.0"), ("down_blocks.1.resnets.1", "down_blocks.1.attentions.1"), ("down_blocks.1.downsamplers.0",),
    ("down_blocks.2.resnets.0", "down_blocks.2.attentions.0"), ("down_blocks.2.resnets.1", "down_blocks.2.attentions.1"),
    ("mid_block.resnets.0",), ("mid_block.attentions.0",), ("mid_block.resnets.1",),
    ("up_blocks.0.resnets.0", "up_blocks.0.attentions.0"), ("up_blocks.0.resnets.1", "up_blocks.0.attentions.1"),
    ("up_blocks.0.resnets.2", "up_blocks.0.attentions.2", "up_blocks.0.upsamplers.0"),
    ("up_blocks.1.resnets.0", "up_blocks.1.attentions.0"), ("up_blocks.1.resnets.1", "up_blocks.1.attentions.1"),
    ("up_blocks.1.resnets.2", "up_blocks.1.attentions.2", "up_blocks.1.upsamplers.0"),
    ("up_blocks.2.resnets.0",), ("up_blocks.2.resnets.1",), ("up_blocks.2.resnets.2",), (),
)  # fmt: skip
"""sd-scripts' 23 blocks of SDXL: embeddings, nine of the way down, three in the middle, nine of the way up, the way out."""
COUNTS = {"down_lr_weight": 9, "mid_lr_weight": 3, "up_lr_weight": 9}
CURVES: dict[str, Callable[[float], float]] = {
    "sine": lambda part: math.sin(math.pi * part / 2), "cosine": lambda part: math.sin(math.pi * (1 - part) / 2),
    "linear": lambda part: part, "reverse_linear": lambda part: 1 - part, "zeros": lambda part: 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One word for method.rates and method.ranks: the rate and the rank it has there, and whether it is a convolution."""

    word: str
    rate: float
    rank: int
    convolution: bool


def blocks(ledger: Ledger, size: tuple[int, float], conv: tuple[int, float]) -> None:
    """`size` and `conv` are rank and alpha of the rest and of the convolutions. Raises RecipeError for lists that sd-scripts would refuse."""
    rates, dims = _rates(ledger), _list(ledger, "block_dims")
    changed = bool(ledger.recipe["method"]["convolution"])
    conv_dims = _list(ledger, "conv_block_dims") if (dims or rates) and changed else None
    places = list(_places(rates or [1.0] * len(PLACES), dims or [size[0]] * len(PLACES), conv_dims or [conv[0]] * len(PLACES), changed))
    _lay(ledger, places, size[0], conv[0])
    _rate_rows(ledger, bool(rates))
    _rank_row(ledger, "block_dims", bool(dims), "method.ranks" if ledger.recipe["method"].get("ranks") else "method.rates")
    if ledger["conv_block_dims"] is not None and not changed and (dims or rates):
        ledger.lack("conv_block_dims", "without conv_dim the convolutions are left alone here: set method.convolution, method.conv_rank and method.ranks")
    else:
        _rank_row(ledger, "conv_block_dims", bool(conv_dims), "method.ranks")
    own = bool(dims or rates)
    _alphas(ledger, "block_alphas", (dims or [size[0]] * len(PLACES)) if own else None, size)
    _alphas(ledger, "conv_block_alphas", (conv_dims or [conv[0]] * len(PLACES)) if own and changed else None, conv)


def _list(ledger: Ledger, key: str) -> list[int] | None:
    if ledger[key] is None:
        return None
    found = convert.numbers(ledger[key])
    if found is None or len(found) != len(PLACES) or any(each != int(each) or each < 0 for each in found):
        raise RecipeError(f"{ledger.shown(key)} = {ledger[key]!r}: must be {len(PLACES)} whole numbers, and sd-scripts would refuse it too. Correct it there.")
    return [int(each) for each in found]


def _rates(ledger: Ledger) -> list[float] | None:
    """A multiple for each of the blocks; None where none are given."""
    if not any(ledger[key] for key in COUNTS):
        return None
    least = float(ledger["block_lr_zero_threshold"])
    found = [weight for key, count in COUNTS.items() for weight in _weights(ledger, key, count, least)]
    return [1.0, *found, 1.0]


def _weights(ledger: Ledger, key: str, count: int, least: float) -> list[float]:
    """Numbers, filled up with 1, or a curve "cosine+0.25" over the blocks. Raises RecipeError."""
    said = ledger[key]
    if not said:
        return [1.0] * count
    name, _, above = str(said).partition("+")
    if name in CURVES:
        found = [CURVES[name](place / (count - 1)) + float(above or 0) for place in range(count)]
    else:
        numbers = convert.numbers(",".join(part or "0" for part in str(said).split(",")))
        if numbers is None:
            raise RecipeError(f"{ledger.shown(key)} = {said!r}: is neither numbers nor one of {', '.join(CURVES)}. Correct it there.")
        found = [*numbers, *[1.0] * count][:count]
    return [weight if weight > least else 0.0 for weight in found]


def _places(rates: list[float], dims: list[int], conv_dims: list[int], convolutions: bool) -> Iterator[Place]:
    """Every place that is changed, a residual block before the convolutions in it."""
    for words, rate, dim, conv_dim in zip(PLACES, rates, dims, conv_dims, strict=True):
        for word in words:
            if ".attentions." in word:
                yield Place(word, rate, dim, False)
            elif convolutions and ".resnets." in word:
                yield Place(word, rate, dim, False)
                yield from (Place(f"{word}.{name}", rate, conv_dim, True) for name in ("conv1", "conv2"))
            elif convolutions:
                yield Place(word, rate, conv_dim, True)


def _lay(ledger: Ledger, places: list[Place], rank: int, conv_rank: int) -> None:
    """Into method.rates and method.ranks, where a word says something that the longest one before it does not."""
    rates: dict[str, float] = {}
    ranks: dict[str, int] = {}
    for place in places:
        above = place.word.rpartition(".")[0]
        rate = place.rate if place.rank else 0.0
        if rate != rates.get(above, 1.0):
            rates[place.word] = round(rate, 6)
        if rate and place.rank != ranks.get(above, conv_rank if place.convolution else rank):
            ranks[place.word] = place.rank
    table = ledger.recipe["method"]
    if rates:
        table["rates"] = table.get("rates", {}) | rates
    if ranks:
        table["ranks"] = ranks


def _rate_rows(ledger: Ledger, given: bool) -> None:
    for key in COUNTS:
        if ledger[key]:
            ledger.tell(key, "method.rates", "by place, where a layer is changed; multiples of the U-Net's rate")
        else:
            ledger.imply(key, "1, as here")
    if given and ledger["block_lr_zero_threshold"]:
        ledger.tell("block_lr_zero_threshold", "method.rates", "what is not above it is 0")
    else:
        ledger.imply("block_lr_zero_threshold", "0, as here" if given else "no block has a rate of its own")


def _rank_row(ledger: Ledger, key: str, used: bool, target: str) -> None:
    if used:
        ledger.tell(key, target, "by place, where it is another than the rest's; 0 is a rate of 0")
    else:
        ledger.imply(key, "without block_dims or rates by block it counts for nothing there")


def _alphas(ledger: Ledger, key: str, dims: list[int] | None, size: tuple[int, float]) -> None:
    """alpha / rank is one number for all blocks here, there each may have its own: one alpha for all of them, where none are given."""
    if dims is None:
        ledger.imply(key, "without ranks or rates by block it counts for nothing there")
        return
    rank, alpha = size
    said = convert.numbers(ledger[key]) if ledger[key] is not None else [alpha] * len(dims)
    if said is None or len(said) != len(dims):
        raise RecipeError(f"{ledger.shown(key)} = {ledger[key]!r}: must be {len(dims)} numbers, and sd-scripts would refuse it too. Correct it there.")
    used = [(own, dim) for own, dim, words in zip(said, dims, PLACES, strict=True) if dim and words]
    if all(math.isclose((own or dim) / dim, alpha / rank) for own, dim in used):
        ledger.imply(key, "each is the same multiple of its rank, as here")
    else:
        ledger.lack(key, f"alpha / rank is the same in every block here, {alpha / rank:g}", even_left_out=True)
