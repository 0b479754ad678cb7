"""Scores of a run's pictures, checkpoint by checkpoint, and the curves that they make. A metric that fails costs its own curve and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.evidence.held import Held
from darkroom.files import sha256_file
from darkroom.jobs.watch import Silent, Watcher
from darkroom.statistics.plateau import Curve

if TYPE_CHECKING:
    from darkroom.metrics import Given, Metric

EXCESS = "copying beyond chance"
LOSS = "held-out loss"
OWN = {
    LOSS: ("How well does it predict pictures of the subject that it never saw?", "mean squared error", "held-out pictures"),
    EXCESS: ("Are its pictures nearer to those it learned from than to others of the subject?", "points of 100", "prompts"),
}


@dataclass
class Row:
    """One picture and its scores."""

    kind: str
    """ "subject": the prompt names the trigger; "class": it does not."""
    step: int
    prompt: int
    text: str
    seed: int
    file: str
    scores: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Pictures with their scores, and curves of what was asked of them."""

    rows: Sequence[Row]
    curves: tuple[Curve, ...]
    facts: Mapping[str, dict[str, Any]]
    """By curve: question, unit and what its units are."""
    notes: tuple[str, ...]
    """What could not be measured, in words."""
    copies: Mapping[int, int]
    """By step, how many pictures the copy score calls copies."""


@dataclass(frozen=True)
class Asked:
    """The metrics that are ready before anything is drawn, so that what is missing is said in time."""

    given: Given
    metrics: Mapping[str, Metric]
    apart: Metric
    """The copy score against held-out pictures: what likeness without copying would score."""
    likeness: str


def ready(likeness: str, scorer: str, models: Mapping[str, str], held: Held, device: str) -> Asked:
    """Open the metrics. Raises DatasetError or ModelError, in words, where one lacks something."""
    from darkroom.device import pick_device
    from darkroom.jobs.score.items import Album
    from darkroom.metrics import METRICS, Given
    from darkroom.metrics.eye import Eye

    chosen = pick_device(device)
    given = Given(Eye.load(scorer, chosen), Album(held.held_out), Album(held.training), models=models, device=chosen)
    names = (likeness, "clip", "diversity", "copying")
    apart = METRICS["copying"](Given(training=given.references, models=models, device=chosen))
    return Asked(given, {name: METRICS[name](given) for name in names}, apart, likeness)


def measure(rows: Sequence[Row], out: Path, asked: Asked, clip_prompts: Sequence[str], held: Held, watcher: Watcher) -> Measured:
    """Score all rows and make the curves; `clip_prompts` are what each prompt says without the trigger. Scores are remembered by what is in the files."""
    metrics, drift, notes = asked.metrics, _drift(rows, out, asked.given), list[str]()
    if drift is None:
        notes.append("drift was not measured: no pictures of the class were drawn. Where the subject names no class, say one with --class, such as cat.")
    steps = sorted({row.step for row in rows})
    scoring = _Scoring(out, watcher, notes)
    for done, step in enumerate(steps, 1):  # one after the other: pictures of one prompt are compared with each other, those of two steps never
        subject, others = ([row for row in rows if (row.step, row.kind) == (step, kind)] for kind in ("subject", "class"))
        scoring.ask(subject, [metric for name, metric in metrics.items() if name != "clip"], [row.text for row in subject])
        scoring.ask(subject, [metrics["clip"]], [clip_prompts[row.prompt] for row in subject])
        scoring.ask(subject, [asked.apart], [row.text for row in subject], EXCESS)
        if drift:
            scoring.ask(others, [drift], [row.text for row in others])
        watcher.move("scoring", done, len(steps))
    _beyond(rows)
    found = {**metrics, EXCESS: asked.apart, **({"drift": drift} if drift else {})}
    facts = {name: (metric.question, metric.unit, "prompts") for name, metric in found.items()} | OWN
    told = {name: dict(zip(("question", "unit", "over"), fact, strict=True)) for name, fact in facts.items()}
    curves = [_curve([row for row in rows if name in row.scores], name, metric.higher_is_better, notes) for name, metric in found.items()]
    named = (_loss_curve(held), *(_named(curve, asked.likeness) for curve in curves if curve))
    copies = _copies(rows, getattr(metrics["copying"], "copy_from", math.inf))
    return Measured(rows, named, told | {"likeness": told[asked.likeness]}, tuple(dict.fromkeys(notes)), copies)


class _Scoring:
    """Asks metrics about rows; what fails is noted, and costs its own scores and nothing else."""

    def __init__(self, out: Path, watcher: Watcher, notes: list[str]) -> None:
        from darkroom.jobs.score.store import open_store

        self.out, self.notes, self.store = out, notes, open_store(watcher)

    def ask(self, rows: Sequence[Row], metrics: Sequence[Metric], prompts: Sequence[str], name: str = "") -> None:
        from darkroom.jobs.score.ask import Asking, complaints
        from darkroom.jobs.score.items import Item

        items = [Item(self.out / row.file, row.file, sha256_file(self.out / row.file), prompt) for row, prompt in zip(rows, prompts, strict=True)]
        answers = Asking(items, self.store, Silent()).ask(metrics)
        for metric in metrics:
            for row, value in zip(rows, answers.of(metric.name, items), strict=True):
                row.scores[name or metric.name] = None if value is None else round(value, 4)
        self.notes += complaints(answers, metrics, items)


def _drift(rows: Sequence[Row], out: Path, given: Given) -> Metric | None:
    from darkroom.jobs.score.items import Album
    from darkroom.metrics import METRICS

    base = [row for row in rows if row.kind == "class" and row.step == 0]
    return METRICS["drift"](replace(given, base=Album([out / row.file for row in base]), base_prompts=[row.text for row in base])) if base else None


def _beyond(rows: Sequence[Row]) -> None:
    """The copy score less what it gives against held-out pictures. Only its changes count: which set is larger moves all of it."""
    for row in rows:
        near, apart = row.scores.get("copying"), row.scores.get(EXCESS)
        if apart is not None:
            row.scores[EXCESS] = round(near - apart, 4) if near is not None else None


def _copies(rows: Sequence[Row], least: float) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in rows:
        if row.kind == "subject":
            found[row.step] = found.get(row.step, 0) + ((row.scores.get("copying") or 0.0) >= least)
    return found


def _loss_curve(held: Held) -> Curve:
    steps = tuple(sorted(held.losses))
    return Curve(LOSS, steps, np.array([held.losses[step] for step in steps]), higher_is_better=False)


def _curve(rows: Sequence[Row], name: str, higher: bool, notes: list[str]) -> Curve | None:
    """The mean of each prompt at each step; a prompt without a score at some step is left out of all, and said."""
    steps, prompts = sorted({row.step for row in rows}), sorted({row.prompt for row in rows})
    table = np.full((len(steps), len(prompts)), np.nan)
    for i, j, values in _cells(rows, name, steps, prompts):
        if values:
            table[i, j] = sum(values) / len(values)
    whole = np.isfinite(table).all(0)
    if whole.sum() < 2:
        notes.append(f"{name} has no curve: fewer than two prompts were scored at every step.")
        return None
    if not whole.all():
        lost = ", ".join(next(f'"{row.text}"' for row in rows if row.prompt == prompts[j]) for j in np.flatnonzero(~whole))
        notes.append(f"{name} leaves out {lost}: not scored at every step.")
    return Curve(name, tuple(steps), table[:, whole], higher)


def _cells(rows: Sequence[Row], name: str, steps: Sequence[int], prompts: Sequence[int]) -> Iterator[tuple[int, int, list[float]]]:
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        value = row.scores.get(name)
        found.setdefault((row.step, row.prompt), []).extend([] if value is None else [value])
    for (step, prompt), values in found.items():
        yield steps.index(step), prompts.index(prompt), values


def _named(curve: Curve, likeness: str) -> Curve:
    """Whichever metric says it, likeness is likeness."""
    return Curve("likeness", curve.steps, curve.values, curve.higher_is_better) if curve.name == likeness else curve
