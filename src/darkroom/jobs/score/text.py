"""What was scored, in lines for a terminal."""

from __future__ import annotations

from typing import Any

from darkroom.jobs.score.run import Scored, Side
from darkroom.jobs.score.setup import MODELS, SETS
from darkroom.statistics import Summary


def lines(scored: Scored) -> list[str]:
    """A line a metric, then sets, copies, patterns, what differs and what went wrong, and where it all lies."""
    sides, told = [scored.side, *([scored.beside] if scored.beside else [])], list[str]()
    for side in sides:
        told.append(f"{side.name}: {len(side.items)} pictures; {side.answers.asked} scores computed, {side.answers.remembered} remembered")
        told += [f"  {_row(row, _better(scored, row.metric))}" for row in side.summaries if row.aggregation == "pooled"]
        told += [f"  {name:<12}{_set(found)}" for name, found in side.sets.items()]
    told += [f"again  {len(scored.copies)} of {len(scored.side.items)} are training pictures again: {', '.join(scored.copies[:3])}"] if scored.copies else []
    told += [f"means  {words}" for words in scored.patterns] + [f"so     {move.sentence}" for move in scored.moves]
    told += [f"note   {note}" for note in notes(sides)]
    return [
        *told,
        f"page   {(scored.out / 'scores.html').resolve()}",
        f"tables {(scored.out / 'scores.csv').resolve()}, summary.md, summary.csv, scores.parquet",
    ]


def notes(sides: list[Side]) -> list[str]:
    """Of both folders."""
    return [*sides[0].notes, *(f"{side.name}: {note}" for side in sides[1:] for note in side.notes)]


def catalogue_lines() -> tuple[dict[str, Any], list[str]]:
    """Every metric with its question: as facts, and in lines."""
    from darkroom.metrics import METRICS

    sets = dict.fromkeys(SETS, "How far is the whole folder from the reference set?")
    asked = {name: metric.question for name, metric in METRICS.items()} | sets
    own = {name: "; --model names its model" if name in MODELS else "" for name in asked}
    return {"metrics": asked}, [f"{name:<12}{question}{own[name]}" for name, question in asked.items()]


def _better(scored: Scored, metric: str) -> str:
    return next("higher" if one.higher_is_better else "lower" for one in scored.metrics if one.name == metric)


def _row(row: Summary, better: str) -> str:
    if row.mean is None or row.min is None or row.max is None:
        return f"{row.metric:<12}no scores"
    spread = f" ± {row.std:.2f}" if row.std is not None else ""
    return f"{row.metric:<12}{row.mean:.2f}{spread}, {row.min:.2f} to {row.max:.2f} ({row.count} pictures; {better} is better)"


def _set(found: dict[str, Any]) -> str:
    return f"{found['value']:.4g} ± {found['error']:.2g} to {found['references']} references, through {found['network']} (lower is better)"
