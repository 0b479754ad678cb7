"""The scores to be looked at: one HTML file with a histogram of each metric, its best and worst pictures, and the words. It loads nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from darkroom.jobs.contact import thumb_uri
from darkroom.jobs.score.ask import Answers
from darkroom.jobs.score.beside import Move
from darkroom.jobs.score.items import Item
from darkroom.statistics import Summary

if TYPE_CHECKING:
    from darkroom.metrics import Metric

SHOWN = 6  # best and worst pictures of a metric
BINS = 24
WIDE, HIGH = 480, 120  # units of a histogram
Card = dict[str, Any]


@dataclass(frozen=True)
class View:
    """All that is shown."""

    name: str
    items: Sequence[Item]
    answers: Answers
    other: str
    other_items: Sequence[Item]
    other_answers: Answers | None
    metrics: Sequence[Metric]
    summaries: Sequence[Summary]
    sets: dict[str, dict[str, Any]]
    other_sets: dict[str, dict[str, Any]]
    moves: Sequence[Move]
    patterns: Sequence[str]
    notes: Sequence[str]
    scorer: str
    training: Sequence[Path] = ()
    """The pictures learned from, to be shown beside what copies them."""


def page(view: View) -> str:
    """The whole page."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.filters["short"] = lambda number: "-" if number is None else f"{number:.4g}"
    env.filters["thousands"] = lambda number: f"{number:,}"
    template = env.from_string(Path(__file__).with_name("page.html.j2").read_text("utf-8"))
    thumbs: dict[Path, str] = {}

    def uri(path: Path) -> str:
        if path not in thumbs:
            thumbs[path] = thumb_uri((path.name, path))[1]
        return thumbs[path]

    shown = [_metric(metric, view, uri) for metric in view.metrics]
    sets = [(name, view.name, found) for name, found in view.sets.items()] + [(name, view.other, found) for name, found in view.other_sets.items()]
    return template.render(view=view, metrics=shown, sets=sets, scorer=view.scorer)


def _metric(metric: Metric, view: View, uri: Any) -> dict[str, Any]:
    scores = view.answers.scores[metric.name]
    others = list(view.other_answers.scores[metric.name].values()) if view.other_answers else []
    by_file = {item.file: item for item in view.items}
    ranked = sorted(scores, key=lambda file: (-scores[file] if metric.higher_is_better else scores[file], file))
    few = min(SHOWN, (len(ranked) + 1) // 2)
    nearest = _nearest(metric, view, [by_file[file].path for file in ranked[-few:]] if few else [])
    best = [_card(by_file[file], scores[file], uri) for file in ranked[:few]]
    worst = [_card(by_file[file], scores[file], uri, nearest.get(by_file[file].path)) for file in ranked[::-1][:few] if file not in ranked[:few]]
    rows = [row for row in view.summaries if row.metric == metric.name]
    move = next((move for move in view.moves if move.metric == metric.name), None)
    return {
        "name": metric.name, "question": metric.question, "unit": metric.unit, "higher": metric.higher_is_better, "rows": rows, "best": best, "worst": worst,
        "histogram": histogram(list(scores.values()), others), "move": move, "count": len(scores),
    }  # fmt: skip


def _nearest(metric: Any, view: View, paths: Sequence[Path]) -> dict[Path, Path]:
    """For copying, the training picture that each is nearest to."""
    if metric.name != "copying" or not view.training or not paths:
        return {}
    from darkroom.jobs.score.items import Album

    return {path: view.training[place] for path, (_, place) in zip(paths, metric.nearest(Album(paths)), strict=True)}


def _card(item: Item, score: float, uri: Any, nearest: Path | None = None) -> Card:
    return {
        "file": item.file, "prompt": item.prompt, "seed": item.seed, "score": score, "uri": uri(item.path), "nearest": nearest.name if nearest else "",
        "nearest_uri": uri(nearest) if nearest else "",
    }  # fmt: skip


def histogram(mine: Sequence[float], others: Sequence[float]) -> Markup:
    """Bars for `mine`, an outline for `others`, as shares of each; a line at each mean. Inline SVG, "" where there is nothing."""
    everything = [*mine, *others]
    if not everything:
        return Markup("")
    low, high = min(everything), max(everything)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    bins = min(BINS, max(6, round(2 * len(mine) ** 0.5)))
    one, two = (np.histogram(values, bins, (low, high))[0] / max(1, len(values)) for values in (mine, others))
    top = max(float(one.max()), float(two.max()), 1e-9)
    step = WIDE / bins
    bars = "".join(
        f'<rect class="bar" x="{place * step + 1:.1f}" y="{HIGH - HIGH * share / top:.1f}" width="{step - 2:.1f}" height="{HIGH * share / top:.1f}"/>'
        for place, share in enumerate(one)
        if share
    )
    points = " ".join(f"{x * step:.1f},{HIGH - HIGH * share / top:.1f}" for place, share in enumerate(two) for x in (place, place + 1))
    outline = f'<polyline class="outline" points="0,{HIGH} {points} {WIDE},{HIGH}"/>' if others else ""
    means = "".join(_mean_line(values, low, high, kind) for values, kind in ((mine, "mean"), (others, "mean other")) if values)
    ends = f'<text x="0" y="{HIGH + 18}">{low:.4g}</text><text x="{WIDE}" y="{HIGH + 18}" text-anchor="end">{high:.4g}</text>'
    label = f"{len(mine)} scores from {low:.4g} to {high:.4g}"
    return Markup(
        f'<svg viewBox="0 -4 {WIDE} {HIGH + 26}" role="img" aria-label="{label}">{bars}{outline}{means}<path class="axis" d="M0 {HIGH}H{WIDE}"/>{ends}</svg>'
    )


def _mean_line(values: Sequence[float], low: float, high: float, kind: str) -> str:
    x = WIDE * (float(np.mean(values)) - low) / (high - low)
    return f'<path class="{kind}" d="M{x:.1f} -4V{HIGH}"/>'
