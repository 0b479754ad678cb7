"""Numbers as the report shows them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is missing, not a number, or infinite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def decimals_of(scores: Sequence[float]) -> int:
    """Decimals that show a typical score with three digits: 71.2, 3.40, 0.312."""
    typical = statistics.median(map(abs, scores)) if scores else 1.0
    return min(6, max(0, 2 - math.floor(math.log10(typical)))) if typical else 2


def number(value: Any, places: int, signed: bool = False) -> str:
    """The value with a true minus; "-" for what is no finite number. A small one keeps one digit rather than become zero."""
    shown = finite(value)
    if shown is None:
        return "-"
    if shown and round(shown, places) == 0:
        places = min(12, -math.floor(math.log10(abs(shown))))
    return ("\u2212" if shown < 0 else "+" if signed and shown else "") + f"{abs(shown):,.{places}f}"


def p_value(value: Any) -> str:
    """Three decimals, or that it is smaller."""
    p = finite(value)
    return "-" if p is None else "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def percent(value: Any) -> str:
    """A share in whole percents."""
    share = finite(value)
    return "-" if share is None else f"{100 * share:.0f}\u00a0%"


def interval(ends: Sequence[Any] | None, places: int) -> str:
    """Both ends."""
    return f"{number(ends[0], places, signed=True)} to {number(ends[1], places, signed=True)}" if ends else "-"


def sized(sizes: Sequence[Any] | None, text: Callable[[Any], str]) -> str:
    """A size and its interval."""
    if not sizes:
        return "-"
    ends = f" ({text(sizes[1])} to {text(sizes[2])})" if sizes[1] is not None else ""
    return text(sizes[0]) + ends


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as ("outer.inner", "text") pairs, in their own order; a list of plain values is one text."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        value = dict(enumerate(value, 1))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{name}.{key}" if name else str(key))
    else:
        items = value if isinstance(value, (list, tuple)) else [value]
        yield name, ", ".join("-" if item is None or (isinstance(item, float) and not math.isfinite(item)) else str(item) for item in items) or "-"
