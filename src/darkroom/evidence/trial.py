"""The trial: the same prompts, seeds and noise through two or more arms, scored and compared pair by pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from darkroom.statistics import paired


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
        "pictures": rows, "comparisons": [compare(trial, rows, arm, metric) for metric in metrics for arm in trial.arms[1:]],
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
    """The arm against the first one, by one metric, pair by pair."""
    name = metric["name"]
    scores = {(row["arm"], row["prompt"], row["seed"]): row["scores"][name] for row in rows}
    keys = [(prompt, seed) for prompt in trial.prompts for seed in trial.seeds]
    control = [scores[trial.arms[0].name, *key] for key in keys]
    treated = [scores[arm.name, *key] for key in keys]
    found = paired(control, treated, [prompt for prompt, _ in keys], trial.confidence)
    verdict = found.verdict(metric["higher_is_better"])
    word = {"better": "higher" if found.mean > 0 else "lower", "worse": "lower" if found.mean < 0 else "higher"}.get(verdict)
    size = f"{abs(found.mean):.2f} {metric['unit']}"
    interval = f"{trial.confidence:.0%} interval {found.low:+.2f} to {found.high:+.2f}, {found.pairs} pairs over {found.clusters} prompts"
    if word:
        sentence = f'{name}: "{arm.name}" is {verdict} than "{trial.arms[0].name}": {word} by {size} ({interval}).'
    else:
        sentence = f'{name}: no difference between "{arm.name}" and "{trial.arms[0].name}" can be seen ({interval}).'
    means = {"baseline_mean": sum(control) / len(control), "arm_mean": sum(treated) / len(treated)}
    return {"arm": arm.name, "metric": name, **means, **vars(found), "verdict": verdict, "sentence": sentence}


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
