"""The trial: the same prompts, seeds and noise through two or more arms, scored and compared pair by pair."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from darkroom import __version__, pocket
from darkroom.data.dataset import list_pictures
from darkroom.data.picture import read_picture
from darkroom.device import Precision
from darkroom.errors import DatasetError, RecipeError, did_you_mean
from darkroom.files import atomic, sha256_file, writable_folder, write_json, write_text
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Silent, Watcher
from darkroom.prompt import read
from darkroom.sampling.request import Request, Worn, read_request
from darkroom.spec import Spec
from darkroom.statistics import Case, ComparisonError, Judgement, Measure, Pairs, judge


class Arm(Spec):
    """One way of drawing: what differs from the other arms, and nothing else."""

    name: str
    """Short, and unlike the others': it names files and columns."""
    base: str = ""
    """Another base model; empty: the trial's."""
    adapters: tuple[Worn, ...] = ()
    """Adapters worn."""
    negative: str | None = None
    """None: zeroed embeddings; "": the encoded empty text; else the text."""
    guidance: float | None = None
    """Another guidance; None: the trial's."""
    steps: int | None = None
    """Another number of steps; None: the trial's."""

    def what(self, trial: Trial) -> str:
        """The arm in words, every difference from the trial's own settings named."""
        parts = [self.base or trial.base]
        parts += [f"wearing {Path(w.file).name} at {w.weight:g}" for w in self.adapters] or ["as it is"]
        if self.negative is not None:
            parts.append("negative encoded empty" if self.negative == "" else f'negative "{self.negative}"')
        parts += [f"{name} {value:g}" for name, value in (("guidance", self.guidance), ("steps", self.steps)) if value is not None]
        return ", ".join(parts)


class Trial(Spec):
    """A comparison, whole: what is drawn, through which arms, and what is asked of the pictures."""

    title: str = "Trial"
    about: str = ""
    base: str = "pocket"
    """The base model of every arm that names no other."""
    arms: tuple[Arm, ...] = Field(min_length=2)
    """The first is the one that the others are compared with."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Every arm draws every prompt with every seed."""
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    steps: int = Field(25, ge=1, le=1000)
    guidance: float = Field(5.0, ge=0, le=100)
    metrics: tuple[str, ...] = ("likeness", "clip", "aesthetic")
    """Named in the order in which the report shows them."""
    scorer: str = ""
    """A CLIPModel folder or hub id; empty: pocket's own for pocket, else openai/clip-vit-large-patch14."""
    reference: str = ""
    """A folder of held-out pictures of the subject, for likeness."""
    clip_prompts: tuple[str, ...] = ()
    """What the clip metric is asked instead of each prompt, in the same order (for example without the trigger word); empty: the prompts' bare words."""
    training: str = ""
    """The folder it was trained on, to be shown in the report."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    margins: dict[str, float] = {}
    """By metric, the largest difference that still counts as equal, in its unit; an arm is called equivalent only where one is stated."""

    @model_validator(mode="after")
    def _sensible(self) -> Trial:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms need names of their own: {', '.join(names)}")
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError("a prompt stands twice: name each once, and add seeds instead")
        if self.clip_prompts and len(self.clip_prompts) != len(self.prompts):
            raise ValueError(f"clip_prompts: {len(self.clip_prompts)} for {len(self.prompts)} prompts")
        if len(self.prompts) < 2:
            raise ValueError("one prompt only: how much the difference varies from prompt to prompt cannot be known; give at least two")
        for name, margin in self.margins.items():
            if name not in self.metrics:
                raise ValueError(f'margins: "{name}" is not among the metrics: {", ".join(self.metrics)}')
            if not (margin > 0 and math.isfinite(margin)):
                raise ValueError(f"margins: {name} = {margin:g}: a margin is above 0, in the metric's unit")
        same = [(a.name, b.name) for i, a in enumerate(self.arms) for b in self.arms[i + 1 :] if a.model_copy(update={"name": b.name}) == b]
        if same:
            raise ValueError(f'the arms "{same[0][0]}" and "{same[0][1]}" are the same: give them a difference')
        return self

    def request(self, arm: Arm, prompt: str, seed: int) -> Request:
        """What one picture is asked to be."""
        return Request(
            prompt=prompt, seed=seed, base=arm.base or self.base, adapters=arm.adapters, negative=arm.negative,
            steps=arm.steps or self.steps, guidance=self.guidance if arm.guidance is None else arm.guidance,
        )  # fmt: skip

    @property
    def eye(self) -> str:
        """Where the scorer lies."""
        if self.scorer:
            return self.scorer
        return str(pocket.folder("scorer")) if self.base == "pocket" else "openai/clip-vit-large-patch14"


Row = dict[str, Any]


def run_trial(trial: Trial, out: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None) -> dict[str, Any]:
    """Draw what is not drawn yet, score, compare, and write trial.json, trial.toml and report.html to `out`. Returns what trial.json holds."""
    from darkroom.evidence.grid import grid
    from darkroom.evidence.report import render

    watcher = watcher or Silent()
    _check(trial)
    writable_folder(out)
    rows = _draw(trial, out, device, precision, watcher)
    _score(trial, rows, out, device, watcher)
    metrics = _metric_facts(trial)
    result: dict[str, Any] = {
        "title": trial.title, "about": trial.about, "baseline": trial.arms[0].name,
        "arms": [{"name": arm.name, "what": arm.what(trial)} for arm in trial.arms],
        "prompts": list(trial.prompts), "seeds": list(trial.seeds), "metrics": metrics,
        "references": _shown(trial.reference, out, "reference"), "training": _shown(trial.training, out, "training"),
        "pictures": rows, "comparisons": compare_all(trial, rows, trial.arms[1:], metrics),
        "receipt": _receipt(trial, rows, out, device),
    }  # fmt: skip
    write_text(out / "trial.toml", trial.to_toml())
    write_json(out / "trial.json", result)
    write_text(out / "report.html", render(result, out))
    with atomic(out / "grid.png") as part:
        grid(result, out, trial.prompts[:12], trial.seeds[:4]).save(part, "PNG", optimize=True)
    return result


def _check(trial: Trial) -> None:
    from darkroom.metrics import METRICS

    for name in trial.metrics:
        if name not in METRICS:
            raise RecipeError(f'metrics: "{name}" is not known.{did_you_mean(name, METRICS)} Known: {", ".join(METRICS)}.')
    if "likeness" in trial.metrics and not trial.reference:
        raise DatasetError("likeness needs held-out pictures of the subject: name their folder with --reference, or leave likeness out of the metrics.")
    for folder in (trial.reference, trial.training):
        if folder:
            list_pictures(Path(folder))
    if trial.reference and trial.training:
        known = {sha256_file(path): path for path in list_pictures(Path(trial.training))}
        leaked = [known[digest] for path in list_pictures(Path(trial.reference)) if (digest := sha256_file(path)) in known]
        if leaked:
            raise DatasetError(f"{leaked[0]}: is among the held-out pictures too, so that likeness would reward copying. Take it out of one folder.")


def _draw(trial: Trial, out: Path, device: str, precision: Precision, watcher: Watcher) -> list[Row]:
    """All pictures; those that are there already, from an equal request, the same base and the same adapters, are kept."""
    rows, work = [], []
    for arm in trial.arms:
        for p, prompt in enumerate(trial.prompts):
            for seed in trial.seeds:
                file = f"pictures/{_slug(arm.name)}/{p:03d}-seed{seed}.png"
                rows.append({"arm": arm.name, "prompt": prompt, "seed": seed, "file": file, "scores": {}})
                work.append((trial.request(arm, prompt, seed), out / file))
    draw_files(work, device, precision, watcher, len(work), resume=True)
    return rows


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _score(trial: Trial, rows: list[Row], out: Path, device: str, watcher: Watcher) -> None:
    from darkroom.device import pick_device
    from darkroom.metrics import METRICS
    from darkroom.metrics.eye import Eye

    eye = Eye.load(trial.eye, pick_device(device))
    pictures = [read_picture(out / row["file"]) for row in rows]
    references = [read_picture(path) for path in list_pictures(Path(trial.reference))] if trial.reference else []
    asked = dict(zip(trial.prompts, trial.clip_prompts or [read(prompt).words for prompt in trial.prompts], strict=True))
    for done, name in enumerate(trial.metrics, 1):
        scores = METRICS[name](eye, references)(pictures, [asked[row["prompt"]] for row in rows])
        for row, score in zip(rows, scores, strict=True):
            row["scores"][name] = round(score, 4)
        watcher.move("scoring", done, len(trial.metrics))


def _metric_facts(trial: Trial) -> list[dict[str, Any]]:
    from darkroom.metrics import METRICS

    chosen = [METRICS[name] for name in trial.metrics]
    return [{"name": m.name, "question": m.question, "unit": m.unit, "higher_is_better": m.higher_is_better} for m in chosen]


def compare(trial: Trial, rows: Sequence[Row], arm: Arm, metric: dict[str, Any]) -> dict[str, Any]:
    """The arm against the first one, by one metric, pair by pair, as if nothing else had been asked."""
    return compare_all(trial, rows, [arm], [metric])[0]


def compare_all(trial: Trial, rows: Sequence[Row], arms: Sequence[Arm], metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every arm against the first one by every metric, judged together: the more is asked, the more must be shown.

    What cannot be compared (a metric that gave no numbers) is said in its place, so that the other comparisons are not lost.
    """
    scores = {metric["name"]: {(row["arm"], row["prompt"], row["seed"]): row["scores"].get(metric["name"]) for row in rows} for metric in metrics}
    found: list[Case | dict[str, Any]] = [_case(trial, scores[metric["name"]], arm, metric) for metric in metrics for arm in arms]
    judged = iter(judge([case for case in found if isinstance(case, Case)], trial.confidence, len(trial.arms)))
    return [_said(next(judged), scores[case.measure.name]) if isinstance(case, Case) else case for case in found]


def _case(trial: Trial, scores: dict[tuple[str, str, int], float | None], arm: Arm, metric: dict[str, Any]) -> Case | dict[str, Any]:
    """The pairs of one comparison; or, where there are none, the comparison that says so."""
    names, keys = (trial.arms[0].name, arm.name), [(prompt, seed) for prompt in trial.prompts for seed in trial.seeds]
    facts = {key: metric[key] for key in ("question", "unit", "higher_is_better") if key in metric}
    measure = Measure(metric["name"], **facts, margin=trial.margins.get(metric["name"]))
    try:
        control, treated = ({key: scores.get((name, *key)) for key in keys} for name in names)
        return Case(*names, measure, Pairs.match(control, treated, names))
    except ComparisonError as error:
        nothing = dict.fromkeys(("baseline_mean", "arm_mean", "mean", "low", "high", "p", "effect"))
        sentence = f'{measure.name}: "{names[1]}" cannot be compared with "{names[0]}": {error}.'
        return {
            "arm": arm.name, "metric": measure.name, **nothing, "confidence": trial.confidence, "pairs": 0, "clusters": 0, "verdict": "unclear",
            "sentence": sentence,
        }  # fmt: skip


def _said(one: Judgement, scores: dict[tuple[str, str, int], float | None]) -> dict[str, Any]:
    """A judgement as trial.json holds it. `wins` is the share of pairs in which the arm is better, whatever direction that is."""
    numbers = {key: float(score) for key, score in scores.items() if score is not None and math.isfinite(score)}
    both = [key[1:] for key in numbers if key[0] == one.treated and (one.control, *key[1:]) in numbers]
    means = {title: sum(numbers[name, *key] for key in both) / len(both) for title, name in (("baseline_mean", one.control), ("arm_mean", one.treated))}
    wins = (one.effect.wins, one.effect.wins_low, one.effect.wins_high)
    if not one.measure.higher_is_better:
        wins = (1 - wins[0], 1 - wins[2], 1 - wins[1])
    return {
        "arm": one.treated, "metric": one.measure.name, **means, **vars(one.difference), "verdict": one.verdict, "sentence": one.sentence,
        "notes": list(one.notes), "comparisons": one.comparisons, "p_corrected": one.p_corrected, "p_permutation": one.sign_flip.p, "p_wilcoxon": one.wilcoxon,
        "bootstrap": one.bootstrap and [one.bootstrap.low, one.bootstrap.high], "g": [one.effect.g, one.effect.g_low, one.effect.g_high], "wins": list(wins),
        "margin": one.measure.margin, "p_equivalence": one.p_equivalence, "plan": one.plan and asdict(one.plan),
    }  # fmt: skip


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
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        files.append(target.relative_to(out).as_posix())
    return files


def _receipt(trial: Trial, rows: list[Row], out: Path, device: str) -> dict[str, Any]:
    from darkroom.device import hardware

    request = read_request(out / rows[-1]["file"])
    size = f"{request.width} x {request.height}"
    worn = {w.file: w.sha256 for row in rows for w in read_request(out / row["file"]).adapters}
    return {
        "darkroom": __version__, "base": trial.base, "base_sha256": request.base_sha256, "adapters": worn, "scorer": trial.eye,
        "size": size, "steps": trial.steps, "guidance": trial.guidance, "sampler": request.sampler, "precision": request.precision,
        "device": device, "hardware": hardware(), "trial": json.loads(trial.model_dump_json()),
    }  # fmt: skip
