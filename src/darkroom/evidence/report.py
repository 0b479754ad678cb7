"""The report of a trial: one HTML file that opens anywhere and shows, with pictures and intervals, whether the fine-tune is better.

`render` turns the plain result into a view (all numbers formatted, all pictures embedded) and fills `report.html.j2` with it.
The page needs nothing from outside, and forbids it to itself with a content security policy.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps

from darkroom.errors import DatasetError

LARGEST = 512  # pixels: twice the size at which the page shows a picture; larger ones are shrunk, or 64 of SDXL's weigh 130 MB
TINY = 128  # pixels: narrower pictures are enlarged with hard pixel edges
EXTREMES = 4  # pairs in "best", and in "worst"
SYMBOLS = {"better": "▲", "worse": "▼", "equivalent": "≈", "unclear": "○"}
TESTS = {"p": "p", "p_corrected": "corrected", "p_permutation": "permutation", "p_wilcoxon": "Wilcoxon"}  # columns of the table of second opinions

View = dict[str, Any]


def render(result: Mapping[str, Any], folder: Path) -> str:
    """The whole page for a trial's result; its pictures are read from `folder`. Raises DatasetError where one cannot be read."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("report.html.j2").read_text("utf-8"))
    places = {metric["name"]: _places(_scores(result, metric["name"])) for metric in result["metrics"]}
    cards = [_card(comparison, result, places.get(comparison["metric"], 2)) for comparison in result["comparisons"]]
    rows = _rows(result, _cells(result, folder), places)
    best, worst = _extremes(result, rows)
    return template.render(
        result=result,
        cards=cards,
        tally=Counter(card["verdict"] for card in cards),
        panels=_panels(result, cards),
        opinions=_by_metric(result, [(card["metric"], _opinion(card)) for card in cards if card["p_corrected"] is not None]),
        opinion_columns=[*TESTS.values(), "bootstrap interval", "effect", "better in"],
        plans=[_planned(card) for card in cards if card["verdict"] == "unclear" and card["plan"]],
        strips=_strips(result, folder),
        groups=[(prompt, list(group)) for prompt, group in itertools.groupby(rows, lambda row: row["prompt"])],
        best=best,
        worst=worst,
        summary=_summary(result, places),
        receipt=list(_flat(result["receipt"])),
        symbols=SYMBOLS,
        largest=LARGEST if any(cell and cell["picture"]["shrunk"] for row in rows for cell in row["cells"]) else None,
    )


def _finite(value: Any) -> float | None:
    """The value as a float, or None where it is missing, not a number, or infinite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _places(scores: Sequence[float]) -> int:
    """Decimals that show a typical score with three digits: 71.2, 3.40, 0.312."""
    typical = statistics.median(map(abs, scores)) if scores else 1.0
    return min(6, max(0, 2 - math.floor(math.log10(typical)))) if typical else 2


def _number(value: Any, places: int, signed: bool = False) -> str:
    """The value with a true minus; "-" for what is no finite number. A small one keeps one digit rather than become zero."""
    number = _finite(value)
    if number is None:
        return "-"
    if number and round(number, places) == 0:
        places = min(12, -math.floor(math.log10(abs(number))))
    return ("\u2212" if number < 0 else "+" if signed and number else "") + f"{abs(number):,.{places}f}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as ("outer.inner", "text") pairs, in their own order; a list of plain values is one text."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        value = dict(enumerate(value, 1))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        items = value if isinstance(value, (list, tuple)) else [value]
        yield name, ", ".join("-" if item is None or (isinstance(item, float) and not math.isfinite(item)) else str(item) for item in items) or "-"


def _picture(path: Path, alt: str) -> View:
    """A picture as a PNG data URI: its own bytes where it is a small PNG, else shrunk and turned upright, without its EXIF data."""
    try:
        with Image.open(path) as image:
            shrunk = max(image.size) > LARGEST
            own = image.format == "PNG" and not shrunk and "exif" not in image.info
            data, size = (path.read_bytes(), image.size) if own else _shrunk_png(image)
    except OSError as error:
        raise DatasetError(f"{path}: the report cannot show this picture: {error}. Put the file back, or run the trial again.") from error
    uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return {"uri": uri, "width": size[0], "height": size[1], "alt": alt, "tiny": size[0] < TINY, "shrunk": shrunk}


def _shrunk_png(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    shown = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
    shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "PNG")
    return file.getvalue(), shown.size


def _strips(result: Mapping[str, Any], folder: Path) -> list[View]:
    """The pictures of the subject: those it learned from, and those it never saw."""
    named = [(title, result[key]) for key, title in (("training", "Learned from"), ("references", "Held out, never learned from")) if result[key]]
    return [{"title": title, "pictures": [_picture(folder / file, f"{title}: {Path(file).name}") for file in files]} for title, files in named]


def _cells(result: Mapping[str, Any], folder: Path) -> dict[tuple[str, str, int], View]:
    """Every drawn picture with its scores by (arm, prompt, seed)."""
    arms, cells = {arm["name"] for arm in result["arms"]}, {}
    for drawn in result["pictures"]:
        arm, prompt, seed = key = drawn["arm"], drawn["prompt"], drawn["seed"]
        assert arm in arms and prompt in result["prompts"] and seed in result["seeds"], f"{key} is not in the trial's plan"
        scores = {metric["name"]: _finite((drawn.get("scores") or {}).get(metric["name"])) for metric in result["metrics"]}
        cells[key] = {"arm": arm, "picture": _picture(folder / drawn["file"], f"{arm}: {prompt} (seed {seed})"), "scores": scores}
    return cells


def _rows(result: Mapping[str, Any], cells: Mapping[tuple[str, str, int], View], places: Mapping[str, int]) -> list[View]:
    """One row a (prompt, seed); its cells in the order of the arms, None where nothing was drawn."""
    rows = []
    for index, (prompt, seed) in enumerate(itertools.product(result["prompts"], result["seeds"]), 1):
        base = cells.get((result["baseline"], prompt, seed))
        drawn = [_against(cells.get((arm["name"], prompt, seed)), base, places) for arm in result["arms"]]
        rows.append({"id": f"pair-{index}", "prompt": prompt, "seed": seed, "base": base and _against(base, base, places), "cells": drawn})
    return rows


def _against(cell: View | None, base: View | None, places: Mapping[str, int]) -> View | None:
    """The cell with its scores as (metric, score, distance from the baseline) texts."""
    if cell is None:
        return None
    base_scores = base["scores"] if base and base is not cell else {}
    gaps = {name: score - base_scores[name] for name, score in cell["scores"].items() if score is not None and base_scores.get(name) is not None}
    shown = [(name, _number(score, places[name]), _number(gaps[name], places[name], True) if name in gaps else "") for name, score in cell["scores"].items()]
    return {**cell, "gaps": gaps, "shown": shown}


def _extremes(result: Mapping[str, Any], rows: Sequence[View]) -> tuple[list[View], list[View]]:
    """The pairs with the largest gain and with the largest loss in the first metric, the most extreme first."""
    if not result["metrics"]:
        return [], []
    metric, sign = result["metrics"][0]["name"], 1 if result["metrics"][0]["higher_is_better"] else -1
    found = [(row, cell) for row in rows for cell in row["cells"] if cell and metric in cell["gaps"]]
    pairs = [{"row": row, "pair": [row["base"], cell], "gain": sign * cell["gaps"][metric], "gap": cell["shown"][0][2]} for row, cell in found]
    ranked = sorted(pairs, key=lambda pair: -pair["gain"])
    return [pair for pair in ranked if pair["gain"] > 0][:EXTREMES], [pair for pair in ranked[::-1] if pair["gain"] < 0][:EXTREMES]


def _card(comparison: Mapping[str, Any], result: Mapping[str, Any], places: int) -> View:
    """One comparison in words; a verdict that is none of the four counts as unclear, never as good news."""
    texts = {key: _number(comparison[key], places, signed=True) for key in ("mean", "low", "high")}
    means = {key: _number(comparison[key], places) for key in ("baseline_mean", "arm_mean")}
    words = {
        "unit": next((metric["unit"] for metric in result["metrics"] if metric["name"] == comparison["metric"]), ""),
        "verdict": comparison["verdict"] if comparison["verdict"] in SYMBOLS else "unclear",
        **{name: _p(comparison.get(name)) for name in TESTS},
        "p_corrected": None if comparison.get("p_corrected") is None else _p(comparison["p_corrected"]),
        "comparisons": comparison.get("comparisons", 1),
        "bootstrap": _interval(comparison.get("bootstrap"), places),
        "g": _sized(comparison.get("g"), lambda value: _number(value, 2, signed=True)),
        "wins": _sized(comparison.get("wins"), _percent),
        "notes": comparison.get("notes", []),
        "plan": comparison.get("plan"),
        "effect": _number(comparison["effect"], 2, signed=True),
        "confidence": f"{100 * comparison['confidence']:.4g}\u00a0%",
    }
    return {**comparison, **texts, **means, **words, "numbers": [_finite(comparison[key]) for key in ("low", "mean", "high")]}


def _p(value: Any) -> str:
    p = _finite(value)
    return "-" if p is None else "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def _percent(value: Any) -> str:
    share = _finite(value)
    return "-" if share is None else f"{100 * share:.0f}\u00a0%"


def _interval(ends: Sequence[Any] | None, places: int) -> str:
    return f"{_number(ends[0], places, signed=True)} to {_number(ends[1], places, signed=True)}" if ends else "-"


def _sized(sizes: Sequence[Any] | None, text: Callable[[Any], str]) -> str:
    """A size and its interval."""
    if not sizes:
        return "-"
    interval = f" ({text(sizes[1])} to {text(sizes[2])})" if sizes[1] is not None else ""
    return text(sizes[0]) + interval


def _by_metric(result: Mapping[str, Any], rows: Sequence[tuple[str, View]]) -> list[View]:
    """Rows of (metric, row) as one block a metric."""
    blocks = [{"metric": metric, "rows": [row for name, row in rows if name == metric["name"]]} for metric in result["metrics"]]
    return [block for block in blocks if block["rows"]]


def _opinion(card: View) -> View:
    """What other tests say of one comparison."""
    return {"arm": card["arm"], "cells": [*(card[name] for name in TESTS), card["bootstrap"], card["g"], card["wins"]]}


def _planned(card: View) -> View:
    """What it would take to see the difference, by seeds a prompt."""
    plan = card["plan"]
    sizes = [f"{_number(plan[name], _places([plan[name]]))} {card['unit']}".strip() for name in ("difference", "visible")]
    designs = [[f"{one[name]:,}" if one[name] else "-" for name in ("seeds", "prompts", "pairs", "pictures", "safe_prompts")] for one in plan["alternatives"]]
    return {"arm": card["arm"], "metric": card["metric"], "difference": sizes[0], "visible": sizes[1], "power": _percent(plan["power"]), "designs": designs}


def _panels(result: Mapping[str, Any], cards: Sequence[View]) -> list[View]:
    """The forest plot: one panel a metric with its own scale, one row a comparison."""
    panels = []
    for metric in result["metrics"]:
        mine = [card for card in cards if card["metric"] == metric["name"]]
        limit = _limit(number for card in mine for number in card["numbers"])
        if mine:
            panels.append({"metric": metric, "rows": [(card, interval_svg(card, limit)) for card in mine], "axis": axis_svg(limit)})
    return panels


def _limit(numbers: Iterable[float | None]) -> float:
    """The smallest of 1, 2, 4, 5 or 10 times a power of ten that holds every number on both sides of zero."""
    largest = max((abs(number) for number in numbers if number is not None), default=0.0)
    power = 10.0 ** math.floor(math.log10(largest)) if largest > 1e-12 else 1.0
    return next(step * power for step in (1, 2, 4, 5, 10, 20) if step * power >= largest)


def _x(number: float, limit: float) -> str:
    """Where a number lies across the plot: percents, so that the plot stretches with the page and its text does not."""
    return f"{50 + 42 * number / limit:.2f}%"


def interval_svg(card: Mapping[str, Any], limit: float) -> Markup:
    """One row of the forest plot: the zero line, the interval and the mean."""
    low, mean, high = card["numbers"]
    marks = '<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>'
    if low is not None and high is not None:
        marks += f'<line class="range" x1="{_x(low, limit)}" x2="{_x(high, limit)}" y1="50%" y2="50%"/>'
    if mean is not None:
        marks += f'<circle class="mean" cx="{_x(mean, limit)}" cy="50%" r="5.5"/>'
    label = f"{card['arm']}, {card['metric']}: {card['mean']}, interval {card['low']} to {card['high']}"
    return Markup('<svg class="interval {}" role="img" aria-label="{}">{}</svg>').format(card["verdict"], label, Markup(marks))


def axis_svg(limit: float) -> Markup:
    """The scale under a panel: five ticks from -limit to limit."""
    ticks = [(_x(at, limit), f"{at:+.6g}".replace("-", "\u2212") if at else "0") for at in (-limit, -limit / 2, 0, limit / 2, limit)]
    marks = "".join(f'<line x1="{x}" x2="{x}" y1="0" y2="5"/><text x="{x}" y="18">{text}</text>' for x, text in ticks)
    return Markup(f'<svg class="axis" aria-hidden="true"><line x1="8%" x2="92%" y1="0.5" y2="0.5"/>{marks}</svg>')


def _scores(result: Mapping[str, Any], metric: str, arm: str | None = None) -> list[float]:
    """The finite scores in one metric, of one arm or of all."""
    found = (_finite((drawn.get("scores") or {}).get(metric)) for drawn in result["pictures"] if arm in (None, drawn["arm"]))
    return [score for score in found if score is not None]


def _summary(result: Mapping[str, Any], places: Mapping[str, int]) -> list[View]:
    """What each arm scored in each metric: count, mean, standard deviation, minimum, median, maximum."""
    arms = [arm["name"] for arm in result["arms"]]
    named = [(metric, metric["name"]) for metric in result["metrics"]]
    return [{"metric": metric, "rows": [(arm, _moments(_scores(result, name, arm), places[name])) for arm in arms]} for metric, name in named]


def _moments(scores: Sequence[float], places: int) -> list[str]:
    if not scores:
        return ["0", "-", "-", "-", "-", "-"]
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    numbers = [statistics.fmean(scores), spread, min(scores), statistics.median(scores), max(scores)]
    return [str(len(scores)), *(_number(number, places) for number in numbers)]
