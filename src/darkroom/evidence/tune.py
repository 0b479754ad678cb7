"""`darkroom tune-weights`: how strongly is each of several adapters best worn? Searched on a small trial, and proved on prompts and noise that it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from darkroom.device import Precision
from darkroom.errors import AdapterError, RecipeError, did_you_mean
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.compare import scores_of
from darkroom.evidence.trial import run_trial
from darkroom.evidence.weighing import Bench, Outfit, gains, worth
from darkroom.files import atomic, writable_folder, write_json
from darkroom.jobs.generate import parse_adapter
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Worn
from darkroom.spec import Spec, Tree, override, read_toml
from darkroom.statistics import Difference, student
from darkroom.statistics.surface import Box, Looked, Point, search

GIVEN, TUNED, BASE = "as given", "tuned", "base"


class Tune(Spec):
    """What is searched, and what is good. In the trial's file it is the table [tune]."""

    goals: dict[str, float] = {}
    """By metric, how much it counts; a gain is measured in standard deviations of a picture's score. Empty: all metrics of the trial, alike."""
    low: float = Field(0.0, ge=-10, le=10)
    high: float = Field(1.2, ge=-10, le=10)
    points: int = Field(4, ge=2, le=50)
    """Of the first grid, along each weight."""
    budget: int = Field(24, ge=4, le=1000)
    """Points that are looked at in all; each draws every prompt with every seed."""
    per: Literal["adapter", "block"] = "adapter"
    """One weight an adapter; or three: for the U-Net's input blocks, its middle block and its output blocks."""
    fresh_prompts: tuple[str, ...] = ()
    """Prompts for the proof. Empty: every second prompt of the trial is kept for it, and not searched with."""
    fresh_clip_prompts: tuple[str, ...] = ()
    """As the trial's clip_prompts, for fresh_prompts."""
    fresh_seeds: tuple[int, ...] = ()
    """Seeds for the proof. Empty: as many as the trial has, counted on."""

    @model_validator(mode="after")
    def _sensible(self) -> Tune:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g}, high = {self.high:g}: low must be below high")
        for name, share in self.goals.items():
            if not share > 0:
                raise ValueError(f"goals: {name} = {share:g}: a goal counts more than 0; leave it out otherwise")
        return self


@dataclass(frozen=True)
class Plan:
    """A search, whole: what is drawn for it, and for its proof."""

    tune: Tune
    outfit: Outfit
    searched: Trial
    proof: Trial
    """Without its tuned arm, which is not known yet."""
    goals: Mapping[str, float]
    """By metric, shares that add up to 1."""


def read_tune(file: Path, adapters: Sequence[str], settings: Sequence[str] = ()) -> Plan:
    """From a trial's file (without arms; with a table [tune], or not) and adapters, "FILE" or "FILE:WEIGHT". Raises RecipeError and AdapterError."""
    tree = override(read_toml(file), settings)
    tune = Tune.from_tree(tree.pop("tune", {}), f"{file}, [tune]")
    return planned(tree, tune, [parse_adapter(text) for text in adapters], str(file))


def planned(tree: Tree, tune: Tune, adapters: Sequence[Worn], source: str) -> Plan:
    """The trial's prompts and seeds shared out between search and proof. Raises RecipeError."""
    if "arms" in tree or "comparisons" in tree:
        raise RecipeError(f"{source}: tune-weights makes its own arms, of the adapters it is given: leave arms and comparisons out.")
    if not adapters:
        raise RecipeError("tune-weights needs an adapter at least: name each with --adapter FILE, or FILE:WEIGHT for the weight to begin with.")
    outfit = Outfit(tuple(adapters), tune.per == "block")
    arms = [{"name": GIVEN, "adapters": [worn.model_dump() for worn in adapters]}, {"name": BASE}]
    whole = Trial.from_tree({"title": "Which weights?", **tree, "arms": arms}, source).near()
    searched, proof = _shared_out(whole, tune, source)
    goals = tune.goals or dict.fromkeys(whole.metrics, 1.0)
    for name in goals:
        if name not in whole.metrics:
            raise RecipeError(f'{source}: goals: "{name}" is not among the metrics.{did_you_mean(name, whole.metrics)} There are {", ".join(whole.metrics)}.')
    missing = [worn.file for worn in adapters if not Path(worn.file).is_file()]
    if missing:
        raise AdapterError(f"--adapter {missing[0]}: there is no such file.")
    outside = [worn for worn in adapters if not tune.low <= worn.weight <= tune.high]
    if outside:
        raise RecipeError(f"--adapter {outside[0].file}:{outside[0].weight:g}: begins outside of what is searched, {tune.low:g} to {tune.high:g}.")
    Box(outfit.size, tune.low, tune.high, tune.points, tune.budget)  # says what it cannot do before anything is drawn
    return Plan(tune, outfit, searched, proof, {name: share / sum(goals.values()) for name, share in goals.items()})


def _shared_out(whole: Trial, tune: Tune, source: str) -> tuple[Trial, Trial]:
    """The trial for the search, and the one for the proof: no prompt in both, and other seeds."""
    seeds = tune.fresh_seeds or tuple(max(whole.seeds) + 1 + number for number in range(len(whole.seeds)))
    if tune.fresh_prompts:
        if whole.clip_prompts and len(tune.fresh_clip_prompts) != len(tune.fresh_prompts):
            raise RecipeError(f"{source}: the trial has clip_prompts, so that fresh_prompts need fresh_clip_prompts, one for each.")
        old, new = (whole.prompts, whole.clip_prompts), (tune.fresh_prompts, tune.fresh_clip_prompts)
    else:
        old, new = ((whole.prompts[first::2], whole.clip_prompts[first::2]) for first in (0, 1))
    both = [prompt for prompt in new[0] if prompt in old[0]]
    if both:
        raise RecipeError(f'{source}: "{both[0]}" is searched with and proved with: weights that were chosen on a picture cannot be judged on it.')
    if min(len(old[0]), len(new[0])) < 2:
        raise RecipeError(f"{source}: {len(whole.prompts)} prompts: search and proof need two each at least, better six. Give more, or fresh_prompts.")
    if set(seeds) & set(whole.seeds):
        raise RecipeError(f"{source}: fresh_seeds and seeds share {min(set(seeds) & set(whole.seeds))}: give the proof noise of its own.")
    searched, proof = (
        whole.model_copy(update={"prompts": prompts, "clip_prompts": asked, "seeds": chosen}) for (prompts, asked), chosen in ((old, whole.seeds), (new, seeds))
    )
    return searched, proof


def run_tune(plan: Plan, out: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None) -> dict[str, Any]:
    """Search, draw the surface, and prove what was found; write tune.json, surface.png and proof/report.html to `out`. Returns what tune.json holds.

    Every point that was looked at is kept: a stopped search goes on. Raises what drawing and scoring raise.
    """
    from darkroom.evidence.surface import picture

    watcher, tune = watcher or Silent(), plan.tune
    writable_folder(out)
    bench = Bench(plan.searched, plan.outfit, plan.goals, out, device, precision, watcher)
    box = Box(plan.outfit.size, tune.low, tune.high, tune.points, tune.budget)
    looked = search(bench.score, box, plan.outfit.start)
    result = {
        "adapters": [worn.file for worn in plan.outfit.adapters], "names": list(plan.outfit.names), "goals": dict(plan.goals), "per": tune.per,
        "points": [list(point) for point in looked.points], "scores": list(looked.scores), "start": list(plan.outfit.start), "found": list(looked.best),
        "gains": {name: bench.gain(looked.best, name) for name in plan.goals}, "scale": bench.scale,
        "prompts": list(plan.searched.prompts), "fresh_prompts": list(plan.proof.prompts), "seeds": list(plan.searched.seeds),
        "fresh_seeds": list(plan.proof.seeds), "use": use(plan.outfit, looked.best, out),
    }  # fmt: skip
    with atomic(out / "surface.png") as part:
        picture(result, box).save(part, "PNG", optimize=True)
    result |= _proved(plan, looked, bench, out, device, precision, watcher)
    write_json(out / "tune.json", result)
    return result


def use(outfit: Outfit, point: Point, out: Path) -> str:
    """The options that wear the adapters so."""
    if outfit.blocks and point != outfit.start:
        return f"--adapter {out / 'tuned.safetensors'}"
    weights = point if not outfit.blocks else [worn.weight for worn in outfit.adapters]
    return " ".join(f"--adapter {worn.file}:{weight:g}" for worn, weight in zip(outfit.adapters, weights, strict=True))


def _proved(plan: Plan, looked: Looked, bench: Bench, out: Path, device: str, precision: Precision, watcher: Watcher) -> dict[str, Any]:
    """The fresh trial of the found weights, and what is left of the gain that the search saw."""
    seen = max(looked.scores)
    if looked.best == plan.outfit.start:
        sentence = f"The weights as given are the best of {len(looked.points)} that were tried: there is nothing to prove."
        return {"holds": None, "fresh": None, "sentence": sentence}
    worn = plan.outfit.at(looked.best, out / "tuned.safetensors")
    tuned = Arm(name=TUNED, adapters=worn)
    trial = plan.proof.model_copy(update={
        "title": "Do the tuned weights hold up?", "arms": (plan.proof.arms[0], tuned, plan.proof.arms[1]), "comparisons": ((TUNED, GIVEN), (TUNED, BASE)),
        "about": "Weights found by a search on other prompts and other noise, against the weights as given, and against the base.",
    })  # fmt: skip
    proof = run_trial(Trial.from_tree(json.loads(trial.model_dump_json()), "proof"), out / "proof", device, precision, watcher)
    scores = {name: scores_of(proof["pictures"], name) for name in plan.goals}
    fresh = student(worth(gains(trial, scores, TUNED, GIVEN), bench.scale, plan.goals, bench.directions), trial.confidence)
    holds = True if fresh.low > 0 else False if fresh.high < 0 else None
    return {
        "holds": holds, "fresh": vars(fresh), "sentence": said(seen, fresh, holds), "report": str(out / "proof" / "report.html"),
        "comparisons": proof["comparisons"], "faults": proof["faults"],
    }  # fmt: skip


def said(seen: float, fresh: Difference, holds: bool | None) -> str:
    """Whether the found weights hold up, in a sentence."""
    figures = (
        f"the search saw a gain of {seen:+.2f} standard deviations over the weights as given, fresh prompts and noise show {fresh.mean:+.2f} "
        f"({100 * fresh.confidence:.4g}% interval {fresh.low:+.2f} to {fresh.high:+.2f}, {fresh.pairs} pairs over {fresh.clusters} prompts)"
    )
    match holds:
        case True:
            return f"The found weights hold up: {figures}."
        case False:
            return f"The found weights do not hold up, and are worse than those given: {figures}. Keep the weights as given."
    return f"Whether the found weights hold up cannot be told: {figures}. More fresh prompts would tell."
