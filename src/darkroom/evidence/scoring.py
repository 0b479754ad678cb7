"""Score the pictures of a trial: a picture that cannot be read, or a metric that fails half-way, costs its own scores and nothing else, and is said."""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from darkroom.data.dataset import list_pictures
from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, RecipeError, did_you_mean
from darkroom.evidence.arms import Trial
from darkroom.evidence.drawing import Onward, Row
from darkroom.files import sha256_file
from darkroom.jobs.watch import Watcher
from darkroom.prompt import read

if TYPE_CHECKING:
    from darkroom.jobs.score.ask import Answers
    from darkroom.metrics import Metric


def scorers(trial: Trial, device: str) -> dict[str, Metric]:
    """The trial's metrics, ready to be asked: before anything is drawn, so that what is missing is said in time. Raises a DarkroomError."""
    from darkroom.device import pick_device
    from darkroom.metrics import METRICS, Given
    from darkroom.metrics.eye import Eye

    for name in trial.metrics:
        if name not in METRICS:
            raise RecipeError(f'metrics: "{name}" is not known.{did_you_mean(name, METRICS)} Known: {", ".join(METRICS)}.')
    if "likeness" in trial.metrics and not trial.reference:
        raise DatasetError("likeness needs held-out pictures of the subject: name their folder with --reference, or leave likeness out of the metrics.")
    _apart(trial)
    chosen = pick_device(device)
    given = Given(Eye.load(trial.eye, chosen), references=_pictures(trial.reference), training=_pictures(trial.training), models=trial.models, device=chosen)
    return {name: METRICS[name](given) for name in trial.metrics}


def metric_facts(found: Mapping[str, Metric]) -> list[dict[str, Any]]:
    """What the report says of each metric."""
    return [{"name": name, "question": one.question, "unit": one.unit, "higher_is_better": one.higher_is_better} for name, one in found.items()]


def score(trial: Trial, rows: Sequence[Row], out: Path, found: Mapping[str, Metric], watcher: Watcher) -> tuple[list[str], float | None]:
    """Fill in the rows' scores, faults, and `pixels` (a hash of what is drawn). Returns what went wrong, in words, and the seconds for one picture.

    Scores are remembered by what is in the file: only what is new is asked for.
    """
    from darkroom.jobs.score.ask import Asking, complaints
    from darkroom.jobs.score.items import Item
    from darkroom.jobs.score.store import open_store

    asked = dict(zip(trial.prompts, trial.clip_prompts or [read(prompt).words for prompt in trial.prompts], strict=True))
    store, faults, began, done, new = open_store(watcher), [], time.perf_counter(), 0, 0
    for arm, group in itertools.groupby(rows, key=lambda row: row["arm"]):
        mine = list(group)
        items = [Item(out / row["file"], row["file"], sha256_file(out / row["file"]), asked[row["prompt"]]) for row in mine if _there(row, out)]
        answers = Asking(items, store, Onward(watcher, done, len(rows))).ask(list(found.values()))
        done, new = done + len(items), new + answers.asked
        faults += [f'arm "{arm}": {complaint}' for complaint in (*_absent(mine), *complaints(answers, list(found.values()), items))]
        _take(mine, out, found, answers)
    return faults, (time.perf_counter() - began) / done if new >= done * len(found) > 0 else None


def _there(row: Row, out: Path) -> bool:
    if "fault" not in row and not (out / row["file"]).is_file():
        row["fault"] = f"{row['file']}: there is no such file. The same command draws it again."
    return "fault" not in row


def _absent(rows: Sequence[Row]) -> Iterator[str]:
    absent = [row["fault"] for row in rows if "fault" in row]
    if absent:
        yield f"{len(absent)} of {len(rows)} pictures are missing: {absent[0]}"


def _take(rows: Sequence[Row], out: Path, found: Mapping[str, Metric], answers: Answers) -> None:
    """Every row's scores, None where there is none."""
    for row in rows:
        if "fault" in row:
            continue
        if row["file"] in answers.broken:
            row["fault"] = answers.broken[row["file"]]
        scores = {name: answers.scores[name].get(row["file"]) for name in found}
        row["scores"] = {name: None if value is None else round(value, 4) for name, value in scores.items()}
        row["pixels"] = drawn_bytes(out / row["file"])


def drawn_bytes(path: Path) -> str:
    """A hash of a PNG's picture data alone, without the request that it carries: equal pictures that were drawn for different requests have an equal one."""
    digest = hashlib.sha256()
    data = path.read_bytes()
    at = 8  # behind the signature
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] in (b"IHDR", b"PLTE", b"IDAT"):
            digest.update(data[at + 8 : at + 8 + length])
        at += 12 + length
    return digest.hexdigest()[:16]


def _pictures(folder: str) -> list[Image.Image]:
    return [read_picture(path) for path in list_pictures(Path(folder))] if folder else []


def _apart(trial: Trial) -> None:
    """Raise DatasetError where a held-out picture was learned from too."""
    if trial.reference and trial.training:
        known = {sha256_file(path): path for path in list_pictures(Path(trial.training))}
        leaked = [known[digest] for path in list_pictures(Path(trial.reference)) if (digest := sha256_file(path)) in known]
        if leaked:
            raise DatasetError(f"{leaked[0]}: is among the held-out pictures too, so that likeness would reward copying. Take it out of one folder.")
