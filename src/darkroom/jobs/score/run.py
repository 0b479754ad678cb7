"""Score a folder of pictures: metrics asked, tables and a page written, another folder set beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.files import writable_folder, write_json, write_text
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.score.ask import Answers, Asking, complaints
from darkroom.jobs.score.beside import Move, Way, compare, copies, partners, patterns
from darkroom.jobs.score.items import Item, find_items
from darkroom.jobs.score.page import View, page
from darkroom.jobs.score.panel import Panels, panels
from darkroom.jobs.score.sets import set_scores
from darkroom.jobs.score.setup import Ready, Scoring, check, open_metrics
from darkroom.jobs.score.store import Store, open_store
from darkroom.jobs.watch import Silent, Watcher
from darkroom.statistics import Summary, describe, picture_table, summary_table
from darkroom.statistics.tables import Cell

if TYPE_CHECKING:
    from darkroom.metrics import Metric

FILES = ("scores.csv", "scores.parquet", "summary.csv", "summary.md", "scores.json", "scores.html")


@dataclass(frozen=True)
class Side:
    """One folder, scored."""

    folder: Path
    name: str
    items: Sequence[Item]
    answers: Answers
    summaries: Sequence[Summary]
    sets: dict[str, dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class Scored:
    """What came of it."""

    side: Side
    beside: Side | None
    metrics: tuple[Metric, ...]
    moves: Sequence[Move]
    patterns: Sequence[str]
    copies: Sequence[str]
    """Files that are training pictures again."""
    scorer: str
    out: Path

    @property
    def facts(self) -> dict[str, Any]:
        """For scores.json and --json: no picture's score, which the tables hold."""
        metrics = [{"name": m.name, "question": m.question, "unit": m.unit, "higher_is_better": m.higher_is_better} for m in self.metrics]
        sides = {"folder": _told(self.side)} | ({"beside": _told(self.beside)} if self.beside else {})
        moves = [asdict(move) for move in self.moves]
        found = {"metrics": metrics, "scorer": self.scorer, **sides, "comparison": moves, "patterns": list(self.patterns), "copies": list(self.copies)}
        return {**found, "files": [str(self.out / file) for file in FILES]}


def score(scoring: Scoring, out: Path | None = None, watcher: Watcher = Silent(), store: Store | None = None, engine: Engine | None = None) -> Scored:
    """Ask every metric about every picture and write FILES. What was scored before, here or elsewhere, is not asked again.

    The engine's workers hold the metrics' networks too and do the asking; tables and store are this process's, and are equal whoever asked.

    Raises DatasetError for a folder without pictures and references that are missing, RecipeError for an unknown metric, ModelError for a scorer that cannot be
    loaded, OutputError. A metric that fails half-way, and a picture that cannot be read, are told of in the notes; all else is scored.
    """
    from darkroom.metrics.memory import Notes

    check(scoring)
    out = writable_folder(out or scoring.folder / "scores") if scoring.folder.is_dir() else out or scoring.folder
    items = find_items(scoring.folder, watcher, scoring.prompts, scoring.trigger, out)
    others = find_items(scoring.beside, watcher, trigger=scoring.trigger, skip=scoring.beside / "scores") if scoring.beside else []
    store, engine = store or open_store(watcher), engine or Local()
    notes = Notes(behind=store)
    ready = open_metrics(scoring, [*items, *others], notes, watcher)
    names = _names(scoring)
    desk = _Desk(ready, panels(scoring, ready, notes), engine, store, scoring.batch, watcher)
    side = desk.side(scoring.folder, names[0], items, ready.notes)
    beside = desk.side(scoring.beside, names[1], others) if scoring.beside else None
    moves = compare(names, ready.metrics, (items, side.answers), (others, beside.answers)) if beside else []
    ways: dict[str, Way] = {move.metric: move.way for move in moves if move.mean is not None}
    if beside and 0 < (paired := len(partners(items, others))) < max(len(items), len(others)):
        side.notes.append(f"{paired} pictures of each have a partner with the same prompt and seed; the others count in no comparison.")
    copying = [metric for metric in ready.metrics if metric.name == "copying"]
    again = copies(copying[0], items, side.answers) if copying else []
    scored = Scored(side, beside, ready.metrics, moves, patterns(ways), again, ready.scorer, out)
    _write(scored, ready)
    return scored


@dataclass(frozen=True)
class _Desk:
    """What both folders are scored with."""

    ready: Ready
    work: Panels
    engine: Engine
    store: Store
    batch: int
    watcher: Watcher

    def side(self, folder: Path, name: str, items: Sequence[Item], notes: Sequence[str] = ()) -> Side:
        """One folder, scored. Raises DatasetError where workers do not see it."""
        self.engine.reaches(folder)
        asking = Asking(items, self.store, self.watcher, self.batch, self.work, self.engine)
        answers, metrics = asking.ask(self.ready.metrics), self.ready.metrics
        whole = [item for item in items if item.file not in answers.broken]
        assert self.work.here is not None, "this process has them open"
        sets, remarks = set_scores(self.ready, whole, asking, self.work.here)
        summaries = _summaries(name, items, answers, metrics)
        return Side(folder, name, items, answers, summaries, sets, [*notes, *complaints(answers, metrics, items), *remarks])


def _summaries(name: str, items: Sequence[Item], answers: Answers, metrics: Sequence[Metric]) -> list[Summary]:
    prompts = [item.prompt for item in items]
    clip = answers.of("clip", items) if "clip" in answers.scores else []
    return [row for metric in metrics for row in describe(answers.of(metric.name, items), prompts, clip, name, metric.name)]


def _names(scoring: Scoring) -> tuple[str, str]:
    """Of both folders, short, and unlike each other."""
    one, two = scoring.folder.resolve(), (scoring.beside or scoring.folder).resolve()
    return (one.name, two.name) if one == two or one.name != two.name else (f"{one.parent.name}/{one.name}", f"{two.parent.name}/{two.name}")


def _told(side: Side) -> dict[str, Any]:
    asked = {"remembered": side.answers.remembered, "asked": side.answers.asked}
    summaries = [asdict(row) for row in side.summaries]
    return {"path": str(side.folder), "pictures": len(side.items), **asked, "summary": summaries, "sets": side.sets, "notes": list(side.notes)}


def _write(scored: Scored, ready: Ready) -> None:
    side, out, names = scored.side, scored.out, [metric.name for metric in scored.metrics]
    columns = {name: side.answers.of(name, side.items) for name in names}
    rows: list[dict[str, Cell]] = [{"file": item.file, "prompt": item.prompt, "seed": item.seed} for item in side.items]
    for place, row in enumerate(rows):
        row.update({name: scores[place] for name, scores in columns.items()})
    table, summary = picture_table(rows, names), summary_table([*side.summaries, *(scored.beside.summaries if scored.beside else ())])
    table.write(out / "scores.csv")
    table.write(out / "scores.parquet")
    summary.write(out / "summary.csv")
    write_text(out / "summary.md", _markdown(scored, summary.markdown()))
    write_json(out / "scores.json", scored.facts)
    write_text(out / "scores.html", page(_view(scored, ready)))


def _view(scored: Scored, ready: Ready) -> View:
    side, beside = scored.side, scored.beside
    return View(
        side.name, side.items, side.answers, beside.name if beside else "", beside.items if beside else (), beside.answers if beside else None, scored.metrics,
        [*side.summaries, *(beside.summaries if beside else ())], side.sets, beside.sets if beside else {}, scored.moves, scored.patterns,
        [*side.notes, *([f"{beside.name}: {note}" for note in beside.notes] if beside else [])], scored.scorer, _training(ready),
    )  # fmt: skip


def _training(ready: Ready) -> Sequence[Path]:
    return getattr(ready.given.training, "paths", ())


def _markdown(scored: Scored, table: str) -> str:
    """The summary, with what the figures do not say."""
    lines = [
        f"# Scores of {scored.side.name}",
        "",
        table.rstrip(),
        "",
        "pooled: over all pictures. mean of prompts: each statistic within every prompt, then its mean.",
        "",
    ]
    lines += [f"- {metric.name} ({metric.unit}): {metric.question} {'Higher' if metric.higher_is_better else 'Lower'} is better." for metric in scored.metrics]
    lines += [
        f"- {name}: {found['value']:.4g} ± {found['error']:.2g} ({found['network']}; 0 where both sets are from one source)"
        for name, found in scored.side.sets.items()
    ]
    said = [*scored.patterns, *(move.sentence for move in scored.moves), *scored.side.notes]
    return "\n".join([*lines, *(["", "## In words", ""] if said else []), *(f"- {line}" for line in said)]) + "\n"
