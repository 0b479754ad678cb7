"""`darkroom screen`: every picture of a dataset looked at once, judged, and its duplicates found. A verdict with its reasons, never a deletion."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.data.adopt import Changes
from darkroom.data.duplicates import find_duplicates, gathered
from darkroom.data.likeness import CODE as LIKENESS
from darkroom.data.look import Look, look_at
from darkroom.data.manifest import Manifest, Row, Verdict, is_dataset
from darkroom.data.near import ROWS
from darkroom.data.prints import PRINTS, THUMB_BYTES
from darkroom.data.screening import DUPLICATE, Judgement, Screening
from darkroom.errors import DatasetError, RecipeError, did_you_mean
from darkroom.files import told
from darkroom.jobs.adopted import adopted
from darkroom.jobs.duplicates import PART, spread_duplicates
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.looks import Memory, Task, reports
from darkroom.jobs.watch import Silent, Watcher
from darkroom.places import at_hand

NOTE = "screen"
Ints = npt.NDArray[np.int64]
EMPTY = 0.99  # of one colour
CROWD = 10  # copies of one picture from which the summary asks whether it is a placeholder


@dataclass(frozen=True)
class Overrule:
    """A person's word: patterns of file names."""

    keep: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


@dataclass(frozen=True)
class Screened:
    """What came of it."""

    manifest: Manifest
    screening: Screening
    changes: Changes
    read: int
    """Pictures that were read; of the others it was remembered what they are."""
    judgements: tuple[Judgement, ...]
    """One a row, in the rows' order."""
    facts: dict[str, Any]


def plan(
    folder: Path, defaults: bool = False, smallest: int | None = None, largest: int | None = None,
    settings: Sequence[str] = (), also: Sequence[str] = (), without: Sequence[str] = (), like: Sequence[str] = (),
) -> Screening:  # fmt: skip
    """The checks and limits of the dataset's last screening, or the defaults, with these changes. Raises RecipeError, DatasetError."""
    note = Manifest.open(folder).notes.get(NOTE) if is_dataset(folder) and not defaults else None
    start = Screening.of(note["checks"]) if note else Screening()
    sides = [] if smallest is None else [f"side.smallest={smallest}"]
    sides += [] if largest is None else [f"side.largest={largest}", "side.larger=reject"]
    files = json.dumps([told(str(Path(file).resolve())) for file in like])
    return start.but([*sides, *settings, *([f"unwanted.files={files}"] if like else [])], also, without)


def screen(folder: Path, screening: Screening, overrule: Overrule = Overrule(), watcher: Watcher = Silent(), engine: Engine | None = None) -> Screened:
    """Judge every picture of the folder and write the manifest beside them.

    Raises DatasetError where there is no picture or a pattern of `overrule` names none, RecipeError for an unreadable --like, OutputError.
    """
    manifest, changes = adopted(folder, watcher)
    rows = overruled(manifest.rows, overrule)
    eyes = _Eyes(len(rows))
    engine = engine or Local()
    engine.reaches(folder)
    read = _look(manifest, rows, screening, eyes, engine, watcher)
    _find_unwanted(screening, eyes)
    judgements = tuple(screening.judge(look) for look in eyes.looks)
    best = _find_duplicates(manifest, rows, judgements, screening, eyes, engine, watcher)
    judged = [_judged(row, judgement, rows, best.get(number)) for number, (row, judgement) in enumerate(zip(rows, judgements, strict=True))]
    facts = summary(judged, judgements)
    saved = manifest.but(judged, **{NOTE: {"checks": screening.tree(), **facts}}).save()
    return Screened(saved, screening, changes, read, judgements, facts)


def overruled(rows: Sequence[Row], overrule: Overrule) -> list[Row]:
    """The rows with the person's word. A later word wins: --undo, then --keep, then --reject."""
    words: list[tuple[str, tuple[str, ...], Verdict]] = [
        ("--undo", overrule.undo, ""),
        ("--keep", overrule.keep, "keep"),
        ("--reject", overrule.reject, "reject"),
    ]
    said: dict[str, Verdict] = {}
    for option, patterns, verdict in words:
        for pattern in patterns:
            said |= dict.fromkeys(_named(rows, pattern, option), verdict)
    return [row.but(overruled=said[row.file]) if row.file in said else row for row in rows]


def _named(rows: Sequence[Row], pattern: str, option: str) -> list[str]:
    """Files that the pattern names: whole names below the folder, or the last part of one."""
    found = [row.file for row in rows if fnmatch.fnmatchcase(row.file, pattern) or fnmatch.fnmatchcase(row.file.rpartition("/")[2], pattern)]
    if not found:
        hint = did_you_mean(pattern, (row.file for row in rows))
        raise DatasetError(f'{option} {pattern}: names none of {len(rows)} pictures.{hint} Write names as in the list, or a pattern such as "sub/*.png".')
    return found


@dataclass
class _Eyes:
    """What was seen of each row, by number; prints and thumbnails in two arrays, since there may be a hundred thousand."""

    count: int
    looks: list[Look] = field(default_factory=list)
    prints: npt.NDArray[np.uint64] = field(init=False)
    thumbs: npt.NDArray[np.uint8] = field(init=False)
    known: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.looks = [Look()] * self.count
        self.prints = _room((self.count, PRINTS), np.uint64)
        self.thumbs = _room((self.count, THUMB_BYTES), np.uint8)
        self.known = np.zeros(self.count, bool)

    def comparable(self, number: int) -> bool:
        """Whether there is a picture, and something in it: empty ones are alike in nothing else."""
        return bool(self.known[number]) and self.looks[number].one_colour <= EMPTY

    def see(self, number: int, look: Look, prints: npt.NDArray[np.uint64] | None, thumb: bytes | None, measured: dict[str, float]) -> None:
        self.looks[number] = Look.from_dict(look.as_dict() | {"measured": measured}) if measured else look
        if prints is not None and thumb is not None:
            self.prints[number], self.thumbs[number], self.known[number] = prints, np.frombuffer(thumb, np.uint8), True


def _room(shape: tuple[int, int], kind: type[np.generic]) -> npt.NDArray[Any]:
    """Zeros, in memory where they are few, else in a file without a name, which the system keeps in memory as long as it can."""
    if shape[0] <= PART:
        return np.zeros(shape, kind)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, kind, "w+", shape=shape)


def _look(manifest: Manifest, rows: Sequence[Row], screening: Screening, eyes: _Eyes, engine: Engine, watcher: Watcher) -> int:
    """Fill the eyes: from memory what was seen before, from the files the rest. Returns how many were read."""
    measures = tuple(name for name in screening.measures if name != "unwanted")
    tasks: dict[str, tuple[Task, list[int]]] = {}
    done = 0
    with Memory() as memory:
        if memory.lost:
            watcher.say(memory.lost)
        for number, row in enumerate(rows):
            seen, known = memory.find(row.sha256), memory.measured(row.sha256) if measures else {}
            missing = tuple(name for name in measures if name not in known)
            if seen is None or missing:
                task = Task(manifest.path(row), row.sha256, seen is None, missing)
                tasks.setdefault(row.sha256, (task, []))[1].append(number)
            else:
                eyes.see(number, seen.look, seen.prints, seen.thumb, known)
                done += 1
        watcher.move("screening", done, len(rows))
        for report in reports([task for task, _ in tasks.values()], engine):
            memory.keep(report)
            seen, known = report.seen or memory.find(report.task.sha256), memory.measured(report.task.sha256) if measures else {}
            assert seen is not None
            for number in tasks[report.task.sha256][1]:
                eyes.see(number, seen.look, seen.prints, seen.thumb, known)
                done += 1
            watcher.move("screening", done, len(rows))
    return len(tasks)


def _find_unwanted(screening: Screening, eyes: _Eyes) -> None:
    """Mark what looks like one of the files that nobody wants."""
    files = next((check.files for check in screening.checks if check.kind == "unwanted"), ())
    for which, file in enumerate(files):
        like = look_at(Path(at_hand(file)))
        if like.prints is None or like.thumb is None:
            raise RecipeError(f"--like {file}: {like.look.told} Name a picture that can be read.")
        there = np.flatnonzero(eyes.known)
        pairs = find_duplicates(
            np.concatenate([eyes.prints[there], like.prints[None]]),
            np.concatenate([eyes.thumbs[there], np.frombuffer(like.thumb, np.uint8)[None]]),
            among=False,
        )
        for number in there[pairs[:, 0]]:
            look = eyes.looks[number]
            eyes.looks[number] = Look.from_dict(look.as_dict() | {"measured": {**look.measured, "unwanted": float(which)}})


def _find_duplicates(
    manifest: Manifest, rows: Sequence[Row], judgements: Sequence[Judgement], screening: Screening, eyes: _Eyes, engine: Engine, watcher: Watcher
) -> dict[int, int]:
    """For each picture that is another one's duplicate, and for that other one, the number of the best."""
    if screening.duplicates is None:
        return {}
    order = sorted(range(len(rows)), key=lambda number: worth(rows[number], bool(judgements[number].reasons), eyes.looks[number]))
    exact: dict[str, int] = {}
    owner = {number: exact.setdefault(rows[number].sha256, number) for number in order}
    firsts = sorted((number for number in order if owner[number] == number and eyes.comparable(number)), key=lambda number: rows[number].sha256)
    place = {number: index for index, number in enumerate(order)}
    ranks = np.argsort(np.argsort([place[number] for number in firsts]))
    numbers = np.array(firsts, np.int64)
    with Memory() as memory:

        def equal(places: Ints, same: float) -> Ints:
            """Pairs among these places. They are found once: another limit of another check asks for the same."""

            def find() -> Ints:
                move = partial(watcher.move, "comparing")
                return spread_duplicates(eyes.prints, eyes.thumbs, numbers[places], same, manifest.folder, engine, move)

            return places[memory.pairs(_key(eyes, numbers[places], same), find)].reshape(-1, 2)

        groups = gathered(ranks, equal, screening.duplicates.same)
    best = {firsts[one]: firsts[other] for one, other in groups.items()}
    found = {number: best.get(first, first) for number, first in owner.items()}
    counts = Counter(found.values())
    return {number: first for number, first in found.items() if counts[first] > 1}


def _key(eyes: _Eyes, rows: Ints, same: float) -> str:
    """Of all that the pairs among these rows depend on."""
    digest = hashlib.sha256()
    for seen in (eyes.prints, eyes.thumbs):
        for start in range(0, len(rows), ROWS):
            digest.update(seen[rows[start : start + ROWS]].tobytes())
    digest.update(f"{same} {LIKENESS}".encode())
    return digest.hexdigest()


def worth(row: Row, faulty: bool, look: Look) -> tuple[Any, ...]:
    """What duplicates are ordered by, the best first: a person's word, then without a fault, most pixels, most bytes a pixel, sharpest, and by name."""
    word = {"keep": 0, "": 1, "reject": 2}[row.overruled]
    pixels = look.width * look.height
    return word, faulty, -pixels, -look.bytes / max(pixels, 1), -look.sharpness, row.file


def _judged(row: Row, judgement: Judgement, rows: Sequence[Row], best: int | None) -> Row:
    """The row with its verdict, reasons and figures; the reasons begin with the check's name."""
    reasons = [f"{kind}: {reason}" for kind, reason in judgement.reasons]
    cluster = rows[best].file if best is not None else ""
    if best is not None and cluster != row.file:
        reasons.append(duplicate_of(row, rows[best]))
    return row.but(verdict="reject" if reasons else "keep", reasons=tuple(reasons), cluster=cluster, figures=judgement.figures)


def duplicate_of(row: Row, best: Row) -> str:
    """The reason why a duplicate is rejected."""
    if row.sha256 == best.sha256:
        return f"{DUPLICATE}: the same bytes as {best.file}. One of them is enough."
    sizes = f"{row.width} x {row.height} here, {best.width} x {best.height} there"
    return f"{DUPLICATE}: the same picture as {best.file} ({sizes}), which is the best of them. If they are two, --keep {row.file}"


def kinds(row: Row) -> tuple[str, ...]:
    """The checks that rejected it."""
    return tuple(reason.partition(": ")[0] for reason in row.reasons)


def summary(rows: Sequence[Row], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Counts: in all, by reason, by reason alone, of what is unknown, of duplicates and of the person's own words."""
    rejected = Counter(kind for row in rows for kind in kinds(row))
    alone = Counter(kinds(row)[0] for row in rows if len(row.reasons) == 1)
    clusters = Counter(row.cluster for row in rows if row.cluster)
    return {
        "pictures": len(rows),
        "kept": sum(row.kept for row in rows),
        "rejected": sum(not row.kept for row in rows),
        "overruled": {word: sum(row.overruled == word for row in rows) for word in ("keep", "reject")},
        "reasons": dict(rejected.most_common()),
        "alone": dict(alone),
        "unknown": dict(Counter(kind for one in judgements for kind in one.unknown).most_common()),
        "notes": dict(Counter(kind for one in judgements for kind in one.notes).most_common()),
        "clusters": len(clusters),
        "crowd": next(([file, count] for file, count in clusters.most_common(1) if count >= CROWD), None),
    }
