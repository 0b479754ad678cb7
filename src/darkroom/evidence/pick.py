"""`darkroom pick`: which checkpoint of a run is the one to keep? The same prompts, seeds and noise through all of them, and a rule that chooses."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from darkroom import __version__, pocket
from darkroom.data.wording import has_word
from darkroom.device import Precision
from darkroom.errors import RecipeError, RunError
from darkroom.evidence.held import Held, held_losses
from darkroom.evidence.measuring import EXCESS, LOSS, Measured, Row, measure, ready
from darkroom.files import atomic, writable_folder, write_json, write_text
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Silent, Watcher
from darkroom.methods.chosen import ADAPTER
from darkroom.sampling.request import Request, Word, Worn
from darkroom.spec import Spec
from darkroom.statistics.plateau import Choice, Curve, Rule, choose
from darkroom.train.recipe import Recipe
from darkroom.train.run import Checkpoint, Run
from darkroom.values import seed_for

POCKET_PROMPTS = (
    "{} on a red background", "{} on a blue background", "a picture of {}, green background", "{} on a white background",
    "a large {} on a purple background", "a small {} on a pink background", "{} on a black background", "a picture of {}, orange background",
)  # fmt: skip
PROMPTS = (  # of the list of Ruiz et al. 2022: scenes that a subject was not photographed in
    "a {} in the jungle", "a {} in the snow", "a {} on the beach", "a {} on a cobblestone street", "a {} on top of pink fabric",
    "a {} with a city in the background", "a {} with a mountain in the background", "a {} on top of a purple rug in a forest",
)  # fmt: skip
GOALS, RISES, BENDS = ("likeness", LOSS), (LOSS, EXCESS), ("drift",)


class Pick(Spec):
    """What is asked of a run's checkpoints, and how one of them is chosen."""

    prompts: tuple[str, ...] = ()
    """Prompts that were not learned from, with {} in the subject's place; at least three. Empty: eight that come with Darkroom."""
    words: str = ""
    """The class in words, without the trigger, for prompts that do not name the subject; empty: the subject of the recipe without its first word."""
    drift: bool = True
    """False: the class is not drawn, which takes half the time, and its drift is not asked."""
    seeds: int = Field(2, ge=2, le=64)
    """Pictures of each prompt: the same noise at every step, another for each prompt."""
    seed: int = Field(0, ge=0)
    """Where that noise comes from."""
    steps: int = Field(25, ge=1, le=1000)
    guidance: float = Field(5.0, ge=0, le=100)
    checkpoints: int = Field(12, ge=2, le=1000)
    """At most so many of the run's, evenly spread, the last one among them."""
    held_out: str = ""
    """A folder of pictures of the subject that were not learned from; empty: those that the run held out."""
    likeness: Literal["likeness", "dino", "imagenet"] = "likeness"
    """Which metric says how alike pictures and held-out pictures are."""
    scorer: str = ""
    """A CLIPModel folder or hub id; empty: pocket's own for pocket, else openai/clip-vit-large-patch14."""
    models: dict[str, str] = {}
    """By metric, a file, folder or hub id of its own model, where it has one."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    errors: float = Field(1.0, ge=0, le=5)
    """A step is on the plateau where it falls short of the best one by no more than so many standard errors of that paired shortfall,"""
    margin: float = Field(0.05, ge=0, lt=1)
    """or by no more than this share of all that was gained."""

    @field_validator("prompts")
    @classmethod
    def _with_a_place(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in value:
            if "{}" not in prompt:
                raise ValueError(f'"{prompt}" has no {{}}: write {{}} where the subject stands, as in "a {{}} in the snow"')
        if len(set(value)) < len(value):
            raise ValueError("a prompt stands twice: name each once, and raise seeds instead")
        if value and len(value) < 3:
            raise ValueError(f"{len(value)} prompts: how much scores vary from prompt to prompt cannot be known; give at least three, better eight")
        return value

    @model_validator(mode="after")
    def _words_alone(self) -> Pick:
        if "{}" in self.words:
            raise ValueError("words are the class alone, such as cat")
        return self

    def templates(self, base: str) -> tuple[str, ...]:
        """The prompts, or those that come with Darkroom."""
        return self.prompts or (POCKET_PROMPTS if base == "pocket" else PROMPTS)

    def eye(self, base: str) -> str:
        """Where the scorer lies."""
        return self.scorer or (str(pocket.folder("scorer")) if base == "pocket" else "openai/clip-vit-large-patch14")


@dataclass(frozen=True)
class Picked:
    """A run's curves and the choice among its checkpoints."""

    run: Run
    pick: Pick
    steps: tuple[int, ...]
    """0, the base, and the checkpoints that were looked at."""
    words: str
    held: Held
    measured: Measured
    choice: Choice


def run_pick(folder: Path, pick: Pick, out: Path | None = None, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None
             ) -> dict[str, Any]:  # fmt: skip
    """Measure the run's checkpoints and choose one; write pick.json, pick.toml, curves.png and pick.html to `out` (RUN/pick). Returns what pick.json holds.

    What is drawn and measured already is kept. Raises RunError for fewer than two checkpoints, DatasetError where nothing is held out, RecipeError for prompts
    that were learned from, and what drawing and scoring raise.
    """
    from darkroom.evidence.pick_page import page, picture
    from darkroom.evidence.pick_words import told

    watcher, run, out = watcher or Silent(), Run.open(folder), out or folder / "pick"
    pick = pick.near(listener=watcher)
    checkpoints = spread(run.checkpoints(), pick.checkpoints, run.folder)
    _novel(run, pick)
    writable_folder(out)
    held = held_losses(run, checkpoints, pick.held_out, out / "losses.json", device, watcher)
    asked = ready(pick.likeness, pick.eye(run.recipe.base), pick.models, held, device)
    rows = _draw(run, pick, checkpoints, out, device, precision, watcher)
    words = class_words(run.recipe, pick)
    said = [template.replace("{}", words or run.recipe.data.subject) for template in pick.templates(run.recipe.base)]
    measured = measure(rows, out, asked, said, held, watcher)
    picked = Picked(run, pick, (0, *(one.step for one in checkpoints)), words, held, measured, decide(measured.curves, pick))
    result = _result(picked, out) | told(picked)
    write_text(out / "pick.toml", pick.to_toml())
    write_json(out / "pick.json", result)
    with atomic(out / "curves.png") as part:
        picture(result, out).save(part, "PNG", optimize=True)
    write_text(out / "pick.html", page(result, out))
    return result


def decide(curves: Sequence[Curve], pick: Pick) -> Choice:
    """The rule: the earliest step on the plateau of likeness and held-out loss before copying, drift or the loss turn up.

    Losses are compared as ratios, picture by picture: a picture that is hard to predict counts no more than one that is easy.
    """
    named = {curve.name: replace(curve, values=np.log(curve.values)) if curve.name == LOSS else curve for curve in curves}
    goals, rises, bends = ([named[name] for name in names if name in named] for names in (GOALS, RISES, BENDS))
    return choose(goals, rises, bends, Rule(errors=pick.errors, margin=pick.margin))


def spread(found: Sequence[Checkpoint], most: int, folder: Path) -> list[Checkpoint]:
    """At most so many, evenly spread; the last one always. Raises RunError for fewer than two."""
    if len(found) < 2:
        has = f"one checkpoint, of step {found[0].step}" if found else "no checkpoint"
        raise RunError(f"{folder}: has {has}, and to choose takes at least two. Train with a shorter train.save_every, and train.keep = 0.")
    if len(found) <= most:
        return list(found)
    return [found[-1 - round(number * (len(found) - 1) / (most - 1))] for number in reversed(range(most))]


def class_words(recipe: Recipe, pick: Pick) -> str:
    """The class without the trigger: "cat" of "TOK cat"; "" where the subject names none."""
    return pick.words or " ".join(recipe.data.subject.split()[1:])


def _novel(run: Run, pick: Pick) -> None:
    """Raise RecipeError for a prompt that was learned from, or that names the trigger where it must not."""
    learned = {row["caption"].strip().lower() for row in run.facts["pictures"]}
    for template in pick.templates(run.recipe.base):
        if template.replace("{}", run.recipe.data.subject).strip().lower() in learned:
            raise RecipeError(f'prompts: "{template}" is a caption that was learned from, so that it would reward learning by heart. Ask for something new.')
    if pick.words and has_word(pick.words.lower(), run.recipe.trigger.lower()):
        raise RecipeError(f'words = "{pick.words}": holds the trigger word "{run.recipe.trigger}", and must say the class alone.')


def _draw(run: Run, pick: Pick, checkpoints: Sequence[Checkpoint], out: Path, device: str, precision: Precision, watcher: Watcher) -> list[Row]:
    rows, work = [], []
    words = class_words(run.recipe, pick)
    kinds = [("subject", run.recipe.data.subject), *([("class", words)] if words and pick.drift else [])]
    for checkpoint in [None, *checkpoints]:
        drawn = drawn_with(run.recipe, checkpoint)
        for kind, subject in kinds:
            for number, template in enumerate(pick.templates(run.recipe.base)):
                for index in range(pick.seeds):
                    seed = seed_for(pick.seed, "pick", template, index) % (1 << 32)
                    step, file = checkpoint.step if checkpoint else 0, f"{kind}-{number:02d}-{index}.png"
                    request = Request(
                        prompt=template.replace("{}", subject), seed=seed, steps=pick.steps, guidance=pick.guidance, batch=min(pick.seeds, 8), **drawn
                    )
                    rows.append(Row(kind, step, number, template.replace("{}", subject), seed, f"pictures/{step:06d}/{file}"))
                    work.append((request, out / rows[-1].file))
    draw_files(work, device, precision, watcher, len(work), resume=True)
    return rows


def drawn_with(recipe: Recipe, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What a request names to draw with a checkpoint: an adapter, a textual inversion, or a whole model; None is the base."""
    if checkpoint is None:
        return {"base": recipe.base}
    place = checkpoint.folder / recipe.product
    if place.is_dir():
        return {"base": str(place)}
    learned = {"adapters": (Worn(file=str(place)),)} if place.name == ADAPTER else {"embeddings": (Word(file=str(place)),)}
    return {"base": recipe.base, **learned}


def _result(picked: Picked, out: Path) -> dict[str, Any]:
    """What pick.json holds, but for the words."""
    choice, run, pick = picked.choice, picked.run, picked.pick
    product = run.folder / "steps" / f"{choice.step:06d}" / run.recipe.product
    return {
        "run": str(run.folder), "step": choice.step, "file": str(product), "use": f"{run.folder}@{choice.step}", "steps": list(picked.steps),
        "window": list(choice.window), "on_every_plateau": choice.together,
        "turns": [{"curve": turn.curve, "since": turn.since, "step": turn.step, "change": turn.change.mean, "p": turn.p} for turn in choice.turns],
        "shortfalls": [
            {"curve": s.curve, "best": s.best, "short": s.shortfall.mean, "allowed": s.allowed, "lost": s.lost, "passes": s.passes} for s in choice.shorts
        ],
        "curves": [curve_facts(curve, picked.measured, pick.confidence) for curve in picked.measured.curves],
        "log": [[row["step"], row["validation"]] for row in run.read_log() if "validation" in row],
        "learned_loss": [[step, sum(losses) / len(losses)] for step, losses in sorted(picked.held.learned_losses.items())],
        "held_out": [str(path) for path in picked.held.held_out], "notes": list(picked.measured.notes),
        "pictures": [vars(row) for row in picked.measured.rows],
        "receipt": {
            "darkroom": __version__, "recipe": run.recipe.about, "base": run.recipe.base, "base_sha256": run.facts["base_sha256"],
            "scorer": pick.eye(run.recipe.base), "hardware": run.facts["hardware"], "pick": json.loads(pick.model_dump_json()),
        },
    }  # fmt: skip


def curve_facts(curve: Curve, measured: Measured, confidence: float) -> dict[str, Any]:
    """Means, and around each the interval of its paired change since the base (since the first checkpoint for what the base cannot have)."""
    first = curve.steps[0]
    reach = [0.0 if step == first else curve.change(first, step).reach(confidence) for step in curve.steps]
    means = curve.means.tolist()
    ends = [(None, None) if math.isnan(r) else (mean - r, mean + r) for mean, r in zip(means, reach, strict=True)]
    return {
        "name": curve.name, "steps": list(curve.steps), "means": means, "low": [low for low, _ in ends], "high": [high for _, high in ends],
        "higher_is_better": curve.higher_is_better, "units": curve.values.shape[1], **measured.facts[curve.name],
    }  # fmt: skip
