"""Optimizers that other packages bring: imported when one is built, in words where the package is missing, and in silence."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from darkroom.errors import RecipeError

Groups = list[dict[str, Any]]
BLOCK, SMALL = 256, 4096
"""bitsandbytes keeps one float32 scale for 256 numbers, and tensors of less than 4096 in 32 bits."""


@contextlib.contextmanager
def brought_by(name: str, kind: str, extra: str) -> Iterator[None]:
    """Within the block the module `name` is imported. Raises RecipeError that says how to install it."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that no optimizer uses
    try:
        yield
    except ImportError as error:
        missing = f"is not installed ({error})" if isinstance(error, ModuleNotFoundError) else f"cannot be imported: {error}"
        raise RecipeError(f'optimizer.kind = "{kind}" is of the package {name}, which {missing}. Install it: pip install "sdxl-darkroom[{extra}]"') from None


@contextlib.contextmanager
def in_silence() -> Iterator[None]:
    """Some print a line when they are made."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def one_rate(kind: str, rate: float, groups: Groups) -> None:
    """Raises RecipeError where parts have rates of their own, and the optimizer sets one for all."""
    others = sorted({group.get("lr", rate) for group in groups} - {rate})
    if others:
        shown = ", ".join(f"{other:g}" for other in others)
        raise RecipeError(
            f'optimizer.kind = "{kind}" finds one rate for all that is learned, and parts have their own (a factor of {shown} beside {rate:g}). Give '
            "every part the same rate (method.text_rate = 1), or take an optimizer with a fixed rate such as adamw."
        )


def in_8_bits(shape: Sequence[int], averages: int) -> int:
    """Bytes that bitsandbytes keeps for a tensor of `shape` with so many running averages."""
    numbers = math.prod(shape)
    if numbers < SMALL:
        return averages * numbers * 4
    return averages * (numbers + 4 * -(-numbers // BLOCK) + 4 * BLOCK)
