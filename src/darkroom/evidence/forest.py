"""The forest plot: how large each difference is, with its interval, as scalable pictures that stretch with the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup


def interval_svg(card: Mapping[str, Any], limit: float) -> Markup:
    """One row of the forest plot: the zero line, the interval and the mean."""
    low, mean, high = card["numbers"]
    marks = '<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>'
    if low is not None and high is not None:
        marks += f'<line class="range" x1="{across(low, limit)}" x2="{across(high, limit)}" y1="50%" y2="50%"/>'
    if mean is not None:
        marks += f'<circle class="mean" cx="{across(mean, limit)}" cy="50%" r="5.5"/>'
    label = f"{card['arm']} against {card['against']}, {card['metric']}: {card['mean']}, interval {card['low']} to {card['high']}"
    return Markup('<svg class="interval {}" role="img" aria-label="{}">{}</svg>').format(card["verdict"], label, Markup(marks))


def axis_svg(limit: float) -> Markup:
    """The scale under a panel: five ticks from -limit to limit."""
    ticks = [(across(at, limit), f"{at:+.6g}".replace("-", "\u2212") if at else "0") for at in (-limit, -limit / 2, 0, limit / 2, limit)]
    marks = "".join(f'<line x1="{x}" x2="{x}" y1="0" y2="5"/><text x="{x}" y="18">{text}</text>' for x, text in ticks)
    return Markup(f'<svg class="axis" aria-hidden="true"><line x1="8%" x2="92%" y1="0.5" y2="0.5"/>{marks}</svg>')


def scale(numbers: Iterable[float | None]) -> float:
    """The smallest of 1, 2, 4, 5 or 10 times a power of ten that holds every number on both sides of zero."""
    largest = max((abs(number) for number in numbers if number is not None), default=0.0)
    power = 10.0 ** math.floor(math.log10(largest)) if largest > 1e-12 else 1.0
    return next(step * power for step in (1, 2, 4, 5, 10, 20) if step * power >= largest)


def across(number: float, limit: float) -> str:
    """Where a number lies across the plot: percents, so that the plot stretches with the page and its text does not."""
    return f"{50 + 42 * number / limit:.2f}%"
