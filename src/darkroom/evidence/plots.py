"""Small plots as one list of marks, drawn twice: as SVG for a page and by Pillow for a PNG. Curves with intervals, and surfaces of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape
from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Role = Literal["grid", "band", "line", "second", "thin", "points", "dot", "chosen", "gone", "text", "title"]
INKS: dict[str, str] = {
    "grid": "#e2ded6", "band": "#cfe3da", "line": "#14664c", "second": "#a3341c", "thin": "#6f9a89", "dot": "#14664c",
    "points": "#14664c", "chosen": "#1d1b18", "gone": "#f0ebe3", "text": "#645e55", "title": "#1d1b18",
}  # fmt: skip
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 42, 30


@dataclass(frozen=True)
class Line:
    """One line through a panel. Where ends are given they are the interval around each point."""

    name: str
    points: tuple[Point, ...]
    ends: tuple[tuple[float, float] | None, ...] = ()
    role: Role = "line"


@dataclass(frozen=True)
class Panel:
    """A plot of lines over steps."""

    title: str
    remark: str
    lines: tuple[Line, ...]
    chosen: float
    gone: float | None = None
    """From this step on nothing was considered."""


@dataclass(frozen=True)
class Mark:
    """One thing to draw. `points` in pixels of a panel."""

    kind: Literal["line", "area", "dot", "text", "dashed"]
    role: Role
    points: tuple[Point, ...]
    text: str = ""
    anchor: Literal["start", "middle", "end"] = "start"


def marks(panel: Panel) -> Iterator[Mark]:
    """Everything of a panel, from back to front."""
    xs = [x for line in panel.lines for x, _ in line.points]
    ys = [y for line in panel.lines for _, y in line.points] + [y for line in panel.lines for ends in line.ends if ends for y in ends]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 4)
    low, high = min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])

    def at(x: float, y: float) -> Point:
        across = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        up = (y - low) / ((high - low) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    if panel.gone is not None:
        yield Mark("area", "gone", (at(panel.gone, low), at(max(xs), low), at(max(xs), high), at(panel.gone, high)))
    for y in y_ticks:
        yield Mark("line", "grid", (at(min(xs), y), at(max(xs), y)))
        yield Mark("text", "text", ((LEFT - 6, at(0, y)[1] + 4),), _number(y, y_ticks), "end")
    for x in x_ticks:
        yield Mark("text", "text", ((at(x, low)[0], HEIGHT - BOTTOM + 17),), f"{x:g}", "middle")
    for line in panel.lines:
        yield from _band(line, at)
    for line in panel.lines:
        yield from [Mark("line", line.role, tuple(at(*point) for point in line.points))] if line.role != "points" else []
        yield from (Mark("dot", "dot", (at(*point),)) for point in line.points if line.role in ("line", "points"))
    yield Mark("dashed", "chosen", (at(panel.chosen, low), at(panel.chosen, high)))
    yield Mark("text", "title", ((4, 15),), panel.title)
    yield Mark("text", "text", ((4, 29),), panel.remark)


def _band(line: Line, at: Callable[[float, float], Point]) -> Iterator[Mark]:
    whole = [(x, ends) for (x, _), ends in zip(line.points, line.ends, strict=False) if ends]
    if len(whole) > 1:
        yield Mark("area", "band", (*(at(x, low) for x, (low, _) in whole), *(at(x, high) for x, (_, high) in reversed(whole))))


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that span the range: steps of 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * wanted >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = [round((first + number) * step, 12) for number in range(int((high - first * step) / step + 1e-9) + 1)]
    return found or [low]


def _number(value: float, among: Sequence[float]) -> str:
    step = abs(among[1] - among[0]) if len(among) > 1 else abs(value) or 1.0
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9)) + (round(step / 10 ** math.floor(math.log10(step)), 6) == 2.5)}f}".replace("-", "\u2212")


def svg(panel: Panel) -> Markup:
    """The panel as SVG; its colours are the page's, by class."""
    body = Markup("").join(_tag(mark) for mark in marks(panel))
    label = f"{panel.title}; {panel.chosen:g} is marked"
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(WIDTH, HEIGHT, label, body)


def _tag(mark: Mark) -> Markup:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.points)
    name = mark.role
    match mark.kind:
        case "line" | "dashed":
            return Markup('<polyline class="{}" points="{}"/>').format(name, points)
        case "area":
            return Markup('<polygon class="{}" points="{}"/>').format(name, points)
        case "dot":
            return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(name, *mark.points[0])
        case "text":
            return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, *mark.points[0], mark.anchor, escape(mark.text))


def paint(pen: ImageDraw.ImageDraw, panel: Panel, left: float, top: float, scale: float = 2.0) -> None:
    """The panel by Pillow, `scale` times as large, at this place."""
    for mark in marks(panel):
        points = [(left + scale * x, top + scale * y) for x, y in mark.points]
        ink = INKS[mark.role]
        match mark.kind:
            case "line":
                pen.line(points, ink, round(scale * (1 if mark.role in ("grid", "thin") else 2)), joint="curve")
            case "dashed":
                _dashes(pen, points, ink, scale)
            case "area":
                pen.polygon(points, ink)
            case "dot":
                x, y = points[0]
                pen.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), ink)
            case "text":
                font = ImageFont.load_default(round(scale * (13 if mark.role == "title" else 11)))
                pen.text(points[0], mark.text.replace("\u2212", "-"), ink, font, {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor])


def _dashes(pen: ImageDraw.ImageDraw, points: Sequence[Point], ink: str, scale: float) -> None:
    (x, bottom), (_, top) = points
    y = bottom
    while y > top:
        pen.line([(x, y), (x, max(top, y - 5 * scale))], ink, round(scale))
        y -= 9 * scale


def sheet(panels: Sequence[Panel], columns: int = 2, scale: float = 2.0) -> Image.Image:
    """All panels on one picture."""
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (round(scale * (WIDTH * columns + 16)), round(scale * (HEIGHT * rows + 16))), "#ffffff")
    pen = ImageDraw.Draw(page)
    for number, panel in enumerate(panels):
        paint(pen, panel, scale * (8 + WIDTH * (number % columns)), scale * (8 + HEIGHT * (number // columns)), scale)
    return page
