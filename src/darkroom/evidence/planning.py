"""How many pictures would this trial take? From a pilot, before anything large is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darkroom.device import Precision
from darkroom.errors import RecipeError, RunError, did_you_mean
from darkroom.evidence.arms import Trial
from darkroom.evidence.compare import pairs_of, scores_of
from darkroom.evidence.trial import run_trial
from darkroom.jobs.watch import Watcher
from darkroom.statistics import ComparisonError, Pairs, Plan, plan

PROMPTS, SEEDS = 8, 2  # of a pilot that is drawn for the plan: two seeds tell what prompts spread from what pictures do


@dataclass(frozen=True)
class Ask:
    """What the plan is asked for."""

    differences: Mapping[str, float]
    """By metric, the smallest difference that would matter, in its unit; others are planned for their margin, or for what the pilot measured."""
    power: float = 0.8
    pilot: Path | None = None
    """The folder of a trial that was run; None: a small one is drawn."""
    prompts: int = PROMPTS
    """How many prompts a pilot draws that has to be drawn."""
    trying: Trial | None = None
    """What such a pilot draws; None: the trial with its own first prompts."""


def parse_difference(text: str) -> tuple[str, float]:
    """ "clip=0.5". Raises RecipeError."""
    metric, equals, size = text.partition("=")
    try:
        value = float(size)
    except ValueError:
        value = math.nan
    if not equals or not metric.strip() or not (math.isfinite(value) and value > 0):
        raise RecipeError(f"--difference {text}: write it as METRIC=SIZE, the smallest difference that would matter to you, for example clip=0.5.")
    return metric.strip(), value


def plan_trial(
    trial: Trial, out: Path, ask: Ask, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None
) -> dict[str, Any]:  # fmt: skip
    """By comparison and metric, prompts x seeds that see a difference with the power asked for, and what they cost. Nothing is drawn where a pilot is given.

    Planned for the strictest step of Holm's correction over all of the trial's comparisons. Raises RecipeError for a metric that the trial does not ask, and
    RunError for a folder that is no trial's.
    """
    trial = trial.near(listener=watcher)
    for name in ask.differences:
        if name not in trial.metrics:
            raise RecipeError(f"--difference {name}: the trial does not ask this.{did_you_mean(name, trial.metrics)} It asks {', '.join(trial.metrics)}.")
    if not 0 < ask.power < 1:
        raise RecipeError(f"--power {ask.power:g}: lies between 0 and 1, for example 0.8.")
    folder = ask.pilot or out / "pilot"
    if ask.pilot is None:
        run_trial(_small(ask.trying or trial, ask.prompts), folder, device, precision, watcher)
    result, pilot = _pilot(folder)
    found = list(_plans(trial, pilot, result, ask))
    seconds = _seconds(result)
    return {
        "pilot": str(folder), "pilot_prompts": len(pilot.prompts), "pilot_seeds": len(pilot.seeds), "seconds_per_picture": seconds, "power": ask.power,
        "confidence": trial.confidence, "comparisons": len(trial.contrasts) * len(trial.metrics), "arms": len(trial.arms),
        "prompts": len(trial.prompts), "seeds": len(trial.seeds), "remarks": list(_remarks(trial, pilot, ask)),
        "plans": found, "together": together(found, len(trial.arms), seconds),
    }  # fmt: skip


def _small(trial: Trial, prompts: int) -> Trial:
    """The trial with its first prompts and two seeds; noise depends on prompt and seed alone, so that these pictures are some of the trial's own."""
    kept = max(2, prompts)
    seeds = trial.seeds[:SEEDS] if len(trial.seeds) >= SEEDS else (*trial.seeds, max(trial.seeds) + 1)
    return trial.model_copy(update={"prompts": trial.prompts[:kept], "clip_prompts": trial.clip_prompts[:kept], "seeds": seeds})


def _pilot(folder: Path) -> tuple[dict[str, Any], Trial]:
    try:
        result = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        tree = result["receipt"]["trial"]
        return result, Trial.from_tree({"seeds_shared": True, **tree}, f"{folder}/trial.json")  # trials of before that field shared their seeds
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{folder}: is no trial's folder (its trial.json is missing or damaged). `darkroom trial` makes one; --plan alone draws one.") from None


def _seconds(result: Mapping[str, Any]) -> float | None:
    """For a picture, drawn and scored."""
    found = [result["receipt"].get(key) for key in ("seconds_drawing", "seconds_scoring")]
    return None if found[0] is None else sum(filter(None, found))


def _plans(trial: Trial, pilot: Trial, result: Mapping[str, Any], ask: Ask) -> Iterator[dict[str, Any]]:
    """A plan for each comparison by each metric, or why there is none."""
    units = {metric["name"]: metric["unit"] for metric in result["metrics"]}
    for metric in trial.metrics:
        scores = scores_of(result["pictures"], metric)
        for arm, against in trial.contrasts:
            facts = {"arm": arm, "against": against, "metric": metric, "unit": units.get(metric, "")}
            try:
                yield facts | _planned(pairs_of(pilot, scores, arm, against), trial, metric, ask, _seconds(result))
            except ComparisonError as error:
                yield facts | {"problem": f"{_absent(pilot, metric, arm, against)}{error}"}


def _absent(pilot: Trial, metric: str, arm: str, against: str) -> str:
    known = {one.name for one in pilot.arms}
    missing = [f'arm "{name}"' for name in (arm, against) if name not in known] + ([metric] if metric not in pilot.metrics else [])
    return f"the pilot had no {' and no '.join(missing)}: " if missing else ""


def _planned(pairs: Pairs, trial: Trial, metric: str, ask: Ask, seconds: float | None) -> dict[str, Any]:
    """Raises ComparisonError where there is nothing to plan for."""
    asked, margin = ask.differences.get(metric), trial.margins.get(metric)
    wanted, why = (asked, "asked for") if asked else (margin, "the margin") if margin else (abs(pairs.mean), "as measured")
    if pairs.flat:
        raise ComparisonError("all prompts of the pilot gained the same, so that nothing is known of how much they vary: draw a larger pilot")
    assert wanted is not None
    family = len(trial.contrasts) * len(trial.metrics)
    found = plan(pairs, wanted, ask.power, trial.confidence, family, len(trial.arms), seconds_per_picture=seconds)
    return {"difference": wanted, "why": why, "measured": pairs.mean, "visible": found.visible, "had": found.had, "designs": _designs(found)}


def _designs(found: Plan) -> list[dict[str, Any]]:
    return [asdict(one) for one in found.alternatives]


def together(plans: Sequence[Mapping[str, Any]], arms: int, seconds: float | None) -> list[dict[str, Any]]:
    """Designs that see every difference that can be seen at all: for each number of seeds, the most prompts that any comparison takes."""
    able = [{design["seeds"]: design for design in one["designs"]} for one in plans if one.get("designs")]
    shared = sorted(set.intersection(*(set(designs) for designs in able))) if able else []
    found = []
    for seeds in shared:
        prompts = max(designs[seeds]["prompts"] for designs in able)
        safe = [designs[seeds]["safe_prompts"] for designs in able]
        pictures = prompts * seeds * arms
        cost = None if seconds is None else pictures * seconds
        found.append({"seeds": seeds, "prompts": prompts, "safe_prompts": None if None in safe else max(safe), "pictures": pictures, "seconds": cost})
    return found


def _remarks(trial: Trial, pilot: Trial, ask: Ask) -> Iterator[str]:
    """What a reader of the plan must know."""
    measured = [metric for metric in trial.metrics if metric not in ask.differences and metric not in trial.margins]
    if measured:
        yield (
            f"{', '.join(measured)}: planned for the difference that the pilot measured, part of which is chance. Better name the smallest one "
            f"that would matter to you: --difference {measured[0]}=SIZE."
        )
    if len(pilot.seeds) == 1:
        yield "The pilot had one seed a prompt, which cannot tell what prompts spread from what pictures do: only designs with one seed can be planned from it."
    if pilot.seeds_shared and not trial.seeds_shared:
        yield "The pilot's prompts shared their seeds, and this trial's do not: it will take fewer pictures than is said here."
    if trial.seeds_shared and not pilot.seeds_shared:
        yield "This trial's prompts share their seeds, and the pilot's did not: it may take more pictures than is said here, where seeds favour one arm."
    before = {arm.name: arm.model_copy(update={"differs": None}) for arm in pilot.arms}
    other = [arm.name for arm in trial.arms if arm.name in before and arm.model_copy(update={"differs": None}) != before[arm.name]]
    if other:
        yield f"Drawn otherwise in the pilot: {', '.join(other)}. The plan holds as far as their scores vary alike."
    settings = ("base", "steps", "guidance", "guidance_rescale", "sampler", "refiner", "width", "height", "scorer", "reference")
    changed = [name for name in settings if getattr(trial, name) != getattr(pilot, name)]
    if changed:
        yield f"The pilot had another {', another '.join(changed)}. The plan holds as far as scores vary alike."
