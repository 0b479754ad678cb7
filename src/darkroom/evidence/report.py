"""The report of a trial: one HTML file that opens anywhere and shows, with pictures and intervals, whether the fine-tune is better.

`render` turns the plain result into a view (all numbers formatted, all pictures embedded) and fills `report.html.j2` with it.
The page needs nothing from outside, and forbids it to itself with a content security policy.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from darkroom.evidence.album import Album, View, extremes, rows, strips
from darkroom.evidence.figures import decimals_of, finite, flat, interval, number, p_value, percent, sized
from darkroom.evidence.forest import axis_svg, interval_svg, scale
from darkroom.evidence.rated_page import rated_section
from darkroom.statistics import describe

SYMBOLS = {"better": "▲", "worse": "▼", "equivalent": "≈", "unclear": "○"}
TESTS = {"p": "p", "p_corrected": "corrected", "p_permutation": "permutation", "p_wilcoxon": "Wilcoxon"}  # columns of the table of second opinions
FEW = 6  # comparisons that are shown as cards; more are shown as a table and sentences
OPEN = 6  # prompts whose pictures are open from the start
AGGREGATIONS = {
    "pooled": "Pooled: over all pictures at once.",
    "mean of prompts": "Mean of prompts: each figure within every prompt, then averaged over the prompts.",
}
COLUMNS = {
    "mean": "mean", "std": "std", "min": "min", "q25": "25\u00a0%", "q50": "50\u00a0%", "q75": "75\u00a0%", "max": "max", "skew": "skew",
    "kurtosis": "kurtosis", "clip_mean": "CLIP mean", "clip_std": "CLIP std",
}  # fmt: skip


def render(result: Mapping[str, Any], folder: Path) -> str:
    """The whole page for a trial's result; its pictures are read from `folder`. One that cannot be read is said in its place."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("report.html.j2").read_text("utf-8"))
    places = {metric["name"]: decimals_of(_scores(result, metric["name"])) for metric in result["metrics"]}
    cards = [_card(comparison, result, places.get(comparison["metric"], 2)) for comparison in result["comparisons"]]
    contrasts = list(dict.fromkeys((card["arm"], card["against"]) for card in cards))
    album = Album(folder, len(result["pictures"]))
    drawn = rows(result, album, places)
    best, worst = extremes(result, drawn, contrasts, next(iter(places.values()), 2))
    planned = [card for card in cards if card["verdict"] == "unclear" and card["plan"]]
    groups = [(prompt, list(group)) for prompt, group in itertools.groupby(drawn, lambda row: row["prompt"])]
    return template.render(
        result=result,
        cards=cards if len(cards) <= FEW else [],
        blocks=_blocks(result, cards, contrasts),
        tally=Counter(card["verdict"] for card in cards),
        against_base=all(against == result["baseline"] for _, against in contrasts),
        panels=_panels(result, cards),
        opinions=_by_metric(result, [(card["metric"], _opinion(card)) for card in cards if card["p_corrected"] is not None]),
        opinion_columns=[*TESTS.values(), "bootstrap interval", "effect", "better in"],
        plans=_by_metric(result, [(card["metric"], _planned(card)) for card in planned]),
        plan_seeds=sorted({one["seeds"] for card in planned for one in card["plan"]["alternatives"]}),
        strips=strips(result, album),
        groups=groups,
        open_groups=OPEN if len(groups) > OPEN + 2 else len(groups),
        best=best,
        worst=worst,
        tables=[(title, _summary(result, places, name)) for name, title in AGGREGATIONS.items()],
        table_columns=["n", "prompts", *COLUMNS.values()],
        receipt=list(flat(result["receipt"])),
        symbols=SYMBOLS,
        rated=rated_section(result, folder, SYMBOLS),
        largest=album.side if any(cell and cell["picture"]["shrunk"] for row in drawn for cell in row["cells"]) else None,
    )


def _card(comparison: Mapping[str, Any], result: Mapping[str, Any], places: int) -> View:
    """One comparison in words; a verdict that is none of the four counts as unclear, never as good news."""
    texts = {key: number(comparison[key], places, signed=True) for key in ("mean", "low", "high")}
    means = {key: number(comparison[key], places) for key in ("baseline_mean", "arm_mean")}
    against = comparison.get("against", result["baseline"])
    words = {
        "against": against,
        "difference": _difference(result, comparison["arm"], against),
        "unit": next((metric["unit"] for metric in result["metrics"] if metric["name"] == comparison["metric"]), ""),
        "verdict": comparison["verdict"] if comparison["verdict"] in SYMBOLS else "unclear",
        **{name: p_value(comparison.get(name)) for name in TESTS},
        "p_corrected": None if comparison.get("p_corrected") is None else p_value(comparison["p_corrected"]),
        "comparisons": comparison.get("comparisons", 1),
        "bootstrap": interval(comparison.get("bootstrap"), places),
        "g": sized(comparison.get("g"), lambda value: number(value, 2, signed=True)),
        "wins": sized(comparison.get("wins"), percent),
        "notes": comparison.get("notes", []),
        "plan": comparison.get("plan"),
        "effect": number(comparison["effect"], 2, signed=True),
        "confidence": f"{100 * comparison['confidence']:.4g}\u00a0%",
    }
    return {**comparison, **texts, **means, **words, "numbers": [finite(comparison[key]) for key in ("low", "mean", "high")]}


def _difference(result: Mapping[str, Any], arm: str, against: str) -> View | None:
    """In what the two arms differ, where the result says so."""
    return next((one for one in result.get("contrasts", ()) if (one["arm"], one["against"]) == (arm, against)), None)


def _blocks(result: Mapping[str, Any], cards: Sequence[View], contrasts: Sequence[tuple[str, str]]) -> list[View]:
    """The verdicts by comparison: a cell for each metric, None where it was not asked."""
    found = []
    for arm, against in contrasts:
        mine = {card["metric"]: card for card in cards if (card["arm"], card["against"]) == (arm, against)}
        cells = [mine.get(metric["name"]) for metric in result["metrics"]]
        told = list(mine.values())
        shared = [note for note in told[0]["notes"] if len(told) > 1 and all(note in card["notes"] for card in told)]
        told = [{**card, "notes": [note for note in card["notes"] if note not in shared]} for card in told]
        by_sight = [[card for card in told if (card["verdict"] == "unclear") is unseen] for unseen in (False, True)]
        found.append({"arm": arm, "against": against, "difference": _difference(result, arm, against), "cells": cells, "notes": shared,
                      "seen": by_sight[0], "unseen": by_sight[1]})  # fmt: skip
    return found


def _by_metric(result: Mapping[str, Any], found: Sequence[tuple[str, View]]) -> list[View]:
    """Rows of (metric, row) as one block a metric."""
    blocks = [{"metric": metric, "rows": [row for name, row in found if name == metric["name"]]} for metric in result["metrics"]]
    return [block for block in blocks if block["rows"]]


def _opinion(card: View) -> View:
    """What other tests say of one comparison."""
    return {"arm": card["arm"], "against": card["against"], "cells": [*(card[name] for name in TESTS), card["bootstrap"], card["g"], card["wins"]]}


def _planned(card: View) -> View:
    """What it would take to see the difference: prompts by seeds, with those that are surely enough in brackets."""
    plan = card["plan"]
    sizes = {name: number(plan[name], decimals_of([plan[name]])) for name in ("difference", "visible")}
    designs = {one["seeds"]: f"{one['prompts']:,} ({one['safe_prompts']:,})" if one["safe_prompts"] else f"{one['prompts']:,}" for one in plan["alternatives"]}
    return {"arm": card["arm"], "against": card["against"], **sizes, "power": percent(plan["power"]), "designs": designs}


def _panels(result: Mapping[str, Any], cards: Sequence[View]) -> list[View]:
    """The forest plot: one panel a metric with its own scale, one row a comparison."""
    panels = []
    for metric in result["metrics"]:
        mine = [card for card in cards if card["metric"] == metric["name"]]
        limit = scale(number for card in mine for number in card["numbers"])
        if mine:
            panels.append({"metric": metric, "rows": [(card, interval_svg(card, limit)) for card in mine], "axis": axis_svg(limit)})
    return panels


def _scores(result: Mapping[str, Any], metric: str) -> list[float]:
    """The finite scores in one metric."""
    found = (finite((drawn.get("scores") or {}).get(metric)) for drawn in result["pictures"])
    return [score for score in found if score is not None]


def _summary(result: Mapping[str, Any], places: Mapping[str, int], aggregation: str) -> list[View]:
    """What each arm scored in each metric, in the guide's columns and one of the two aggregations."""
    blocks = []
    for metric in result["metrics"]:
        lines = [(arm["name"], _line(result, arm["name"], metric["name"], places, aggregation)) for arm in result["arms"]]
        blocks.append({"metric": metric, "rows": lines})
    return blocks


def _line(result: Mapping[str, Any], arm: str, metric: str, places: Mapping[str, int], aggregation: str) -> list[str]:
    mine = [row for row in result["pictures"] if row["arm"] == arm]
    scores, clip = ([finite((row.get("scores") or {}).get(name)) for row in mine] for name in (metric, "clip"))
    found = describe(scores, [row["prompt"] for row in mine], clip if any(score is not None for score in clip) else ())
    one = next(summary for summary in found if summary.aggregation == aggregation)
    decimals = {"skew": 2, "kurtosis": 2, "clip_mean": places.get("clip", 2), "clip_std": places.get("clip", 2)}
    return [str(one.count), str(one.prompts), *(number(getattr(one, name), decimals.get(name, places[metric])) for name in COLUMNS)]
