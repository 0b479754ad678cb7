"""The trial: the same prompts, seeds and noise through two or more arms, scored and compared pair by pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkroom import __version__
from darkroom.data.dataset import list_pictures
from darkroom.data.picture import read_picture
from darkroom.device import Precision
from darkroom.errors import DarkroomError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.compare import compare_all
from darkroom.evidence.drawing import Contrast, Drawn, contrasts, draw
from darkroom.evidence.scoring import metric_facts, score, scorers
from darkroom.files import atomic, writable_folder, write_json, write_text
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import read_request
from darkroom.statistics import Summary, Table, describe, picture_table, summary_table

__all__ = ["Arm", "Trial", "run_trial"]


def run_trial(trial: Trial, out: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None) -> dict[str, Any]:
    """Draw what is not drawn yet, score, compare, and write trial.json, trial.toml, scores.csv, summary.csv and report.html to `out`.

    Returns what trial.json holds. Raises a DarkroomError before anything is drawn for a trial that could show nothing; what fails later (an arm, a picture, a
    metric) is said under "faults", and the other comparisons are judged.
    """
    watcher = watcher or Silent()
    trial = trial.near(listener=watcher)
    differences, metrics = contrasts(trial), scorers(trial, device)
    writable_folder(out)
    drawn = draw(trial, out, device, precision, watcher)
    faults, scoring = score(trial, drawn.rows, out, metrics, watcher)
    seconds = _seconds(out, drawn.seconds, scoring)
    result = {
        "title": trial.title, "about": trial.about, "baseline": trial.arms[0].name, "arms": _arms(trial, drawn, differences),
        "contrasts": [_contrast(differences[pair]) for pair in trial.contrasts],
        "prompts": list(trial.prompts), "seeds": list(trial.seeds), "metrics": metric_facts(metrics),
        "references": _shown(trial.reference, out, "reference"), "training": _shown(trial.training, out, "training"),
        "pictures": drawn.rows, "comparisons": compare_all(trial, drawn.rows, metric_facts(metrics), sum(seconds.values()) if seconds else None),
        "faults": faults, "receipt": _receipt(trial, drawn, out, device) | seconds,
    }  # fmt: skip
    _write(result, trial, out)
    return result


def _write(result: dict[str, Any], trial: Trial, out: Path) -> None:
    from darkroom.evidence.grid import grid
    from darkroom.evidence.report import render

    write_text(out / "trial.toml", trial.to_toml())
    write_json(out / "trial.json", result)
    flat = [{**row, **row["scores"]} for row in result["pictures"]]
    picture_table(flat, trial.metrics).write(out / "scores.csv")
    summaries(result).write(out / "summary.csv")
    write_text(out / "report.html", render(result, out))
    with atomic(out / "grid.png") as part:
        grid(result, out, trial.prompts[:12], trial.seeds[:4]).save(part, "PNG", optimize=True)


def summaries(result: Mapping[str, Any]) -> Table:
    """Each arm by each metric in the guide's columns, pooled and as the mean of its prompts' own statistics."""
    rows: list[Summary] = []
    for metric in result["metrics"]:
        for arm in result["arms"]:
            mine = [row for row in result["pictures"] if row["arm"] == arm["name"]]
            scores, prompts = [row["scores"].get(metric["name"]) for row in mine], [row["prompt"] for row in mine]
            clip = [row["scores"].get("clip") for row in mine] if any("clip" in row["scores"] for row in mine) else []
            rows += describe(scores, prompts, clip, arm["name"], metric["name"])
    return summary_table(rows)


def _arms(trial: Trial, drawn: Drawn, differences: Mapping[tuple[str, str], Contrast]) -> list[dict[str, Any]]:
    """What the report says of each arm."""
    first, found = trial.arms[0].name, []
    for arm in trial.arms:
        told: dict[str, Any] = {"name": arm.name, "what": arm.what(trial), "differs": [], "difference": ""}
        if arm.name != first:
            told |= _difference(differences[arm.name, first])
        if arm.name in drawn.faults:
            told["fault"] = str(drawn.faults[arm.name])
        found.append(told)
    return found


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {"arm": contrast.arm, "against": contrast.other, **_difference(contrast)}


def _difference(contrast: Contrast) -> dict[str, Any]:
    return {"differs": [thing.name for thing in contrast.things], "difference": contrast.sentence}


def _shown(folder: str, out: Path, name: str) -> list[str]:
    """Small copies of a folder's pictures inside the trial, for the report."""
    if not folder:
        return []
    from PIL import Image

    files = []
    for index, path in enumerate(list_pictures(Path(folder))[:24]):
        picture = read_picture(path)
        picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
        target = out / "shown" / f"{name}-{index:02d}.png"
        with atomic(target) as part:
            picture.save(part, "PNG")
        files.append(target.relative_to(out).as_posix())
    return files


def _seconds(out: Path, drawing: float | None, scoring: float | None) -> dict[str, float]:
    """Measured seconds for one picture; where nothing was drawn anew, those of the last time."""
    if drawing is None:
        try:
            then = json.loads((out / "trial.json").read_text(encoding="utf-8"))["receipt"]
            return {key: then[key] for key in ("seconds_drawing", "seconds_scoring") if key in then}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
    return {"seconds_drawing": round(drawing, 4), "seconds_scoring": round(scoring or 0.0, 4)}


def _receipt(trial: Trial, drawn: Drawn, out: Path, device: str) -> dict[str, Any]:
    from darkroom.device import hardware

    requests = []
    for row in drawn.rows:
        try:
            requests.append(read_request(out / row["file"]))
        except DarkroomError:  # said under "faults"
            continue
    first = requests[0] if requests else trial.request(trial.arms[0], trial.prompts[0], trial.seeds[0])
    return {
        "darkroom": __version__, "base": trial.base, "base_sha256": first.base_sha256, "adapters": {w.file: w.sha256 for r in requests for w in r.adapters},
        "embeddings": {w.file: w.sha256 for r in requests for w in r.embeddings}, "scorer": trial.eye, "size": f"{first.width} x {first.height}",
        "steps": trial.steps, "guidance": trial.guidance, "sampler": first.sampler, "precision": first.precision, "device": device,
        "hardware": hardware(), "trial": json.loads(trial.model_dump_json()),
    }  # fmt: skip
