"""One point of `tune-weights`: adapters worn at these weights, drawn and scored, and what that is worth against the weights as given."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darkroom.device import Precision
from darkroom.errors import RunError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.compare import Scores, pairs_of, scores_of
from darkroom.evidence.scoring import score, scorers
from darkroom.files import sha256_bytes, sha256_file, told, write_json
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Worn
from darkroom.statistics import ComparisonError, Pairs
from darkroom.statistics.surface import Point

if TYPE_CHECKING:
    from darkroom.metrics.given import Metric

BLOCKS = ("input_blocks", "middle_block", "output_blocks")  # of the U-Net, in the words of `adapter merge --block`
TEXT = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Outfit:
    """Adapters whose weights are searched: one each, or one for each of the U-Net's three parts; the rest is then worn as given."""

    adapters: tuple[Worn, ...]
    blocks: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What each weight belongs to."""
        stems = [Path(worn.file).stem if Path(worn.file).stem != "adapter" else Path(worn.file).parent.name for worn in self.adapters]
        alike = [f"{stem} ({number})" if stems.count(stem) > 1 else stem for number, stem in enumerate(stems, 1)]
        return tuple(f"{stem} {block}".strip() for stem in alike for block in (BLOCKS if self.blocks else ("",)))

    @property
    def size(self) -> int:
        """How many weights."""
        return len(self.adapters) * (len(BLOCKS) if self.blocks else 1)

    @property
    def start(self) -> Point:
        """The weights as given."""
        return tuple(round(worn.weight, 2) for worn in self.adapters for _ in (BLOCKS if self.blocks else ("",)))

    def at(self, point: Point, merged: Path) -> tuple[Worn, ...]:
        """What is worn at a point; with blocks the adapters in one file, which is written to `merged` anew. Raises AdapterError where they cannot be joined."""
        if not self.blocks:
            return tuple(worn.model_copy(update={"weight": weight}) for worn, weight in zip(self.adapters, point, strict=True))
        from darkroom.jobs.combine import Merge, merge

        merged.unlink(missing_ok=True)
        merged.parent.mkdir(parents=True, exist_ok=True)
        factors = [f"{place // len(BLOCKS) + 1}:{BLOCKS[place % len(BLOCKS)]}={weight}" for place, weight in enumerate(point)]
        for number, worn in enumerate(self.adapters, 1):
            text = worn.weight if worn.text_weight is None else worn.text_weight
            factors += [f"{number}:unet={worn.weight}", *(f"{number}:{part}={text}" for part in TEXT)]
        merge(Merge(tuple(f"{worn.file}:1" for worn in self.adapters), merged, blocks=tuple(factors), dtype="fp32"))
        return (Worn(file=str(merged)),)


class Bench:
    """Where points are looked at: each is drawn and scored once, and its scores are kept in OUT/search.json."""

    def __init__(self, trial: Trial, outfit: Outfit, goals: Mapping[str, float], out: Path, device: str, precision: Precision, watcher: Watcher) -> None:
        self.trial, self.outfit, self.goals, self.out = trial, outfit, goals, out
        self.device, self.precision, self.watcher = device, precision, watcher
        self.metrics: Mapping[str, Metric] = scorers(trial, device)
        self.directions = {name: 1 if metric.higher_is_better else -1 for name, metric in self.metrics.items()}
        self.looked: dict[Point, dict[str, Scores]] = {}
        self.kept = self._kept()

    def score(self, point: Point) -> float:
        """How much better than the weights as given, in standard deviations of a picture's score, the goals weighed; 0 at these themselves."""
        self._look(self.outfit.start)
        self._look(point)
        value = worth(self._gains(point), self.scale, self.goals, self.directions).mean
        self.watcher.move("weights", len(self.looked), max(len(self.looked), 1), f"{' '.join(f'{weight:g}' for weight in point)}: {value:+.3f}")
        return value

    def gain(self, point: Point, metric: str) -> float:
        """In the metric's own unit; above 0 is higher."""
        return self._gains(point)[metric].mean

    @cached_property
    def scale(self) -> dict[str, float]:
        """By metric, the standard deviation of the scores of single pictures, drawn with the weights as given; 1 where they are all the same."""
        found = {}
        for name in self.goals:
            scores = [value for value in self.looked[self.outfit.start][name].values() if value is not None and math.isfinite(value)]
            found[name] = float(np.std(scores, ddof=1)) if len(scores) > 1 and np.ptp(scores) > 0 else 1.0
        return found

    def _gains(self, point: Point) -> dict[str, Pairs]:
        both = {name: {**_of("point", self.looked[point][name]), **_of("start", self.looked[self.outfit.start][name])} for name in self.goals}
        return gains(self.trial, both, "point", "start")

    def _look(self, point: Point) -> None:
        if point in self.looked:
            return
        key = " ".join(f"{weight:g}" for weight in point)
        rows = self.kept.get(key) or self._drawn(point, key)
        self.looked[point] = {name: scores_of(rows, name) for name in self.goals}

    def _drawn(self, point: Point, key: str) -> list[dict[str, Any]]:
        """Draw and score a point."""
        name, trial = key.replace(" ", "_"), self.trial
        merged = self.out / "search" / f"{name}.safetensors"
        arm = Arm(name=name, adapters=self.outfit.at(point, merged))
        rows: list[dict[str, Any]] = [
            {"arm": name, "prompt": prompt, "seed": seed, "file": f"search/{name}/{number:03d}-seed{seed}.png", "scores": {}}
            for number, prompt in enumerate(trial.prompts)
            for seed in trial.seeds
        ]
        work = [(trial.request(arm, row["prompt"], row["seed"]), self.out / row["file"]) for row in rows]
        draw_files(work, self.device, self.precision, self.watcher, len(work), resume=True)
        faults, _ = score(trial, rows, self.out, self.metrics, Silent())
        if self.outfit.blocks:
            merged.unlink()
        if any(row["scores"].get(goal) is None for row in rows for goal in self.goals):
            raise RunError(
                f"{key}: not every picture could be scored, so that points cannot be compared: {' '.join(faults)} What was looked at before is kept."
            )
        self.kept[key] = rows
        write_json(self.out / "search.json", {"about": self.about, "points": self.kept})
        return rows

    @cached_property
    def about(self) -> str:
        """A hash of everything that scores depend on but the weights."""
        worn = [(worn.file, sha256_file(Path(worn.file)), worn.branch, worn.text_weight) for worn in self.outfit.adapters]
        trial = json.loads(self.trial.model_dump_json(exclude={"title", "about", "arms"}))
        return sha256_bytes(told(json.dumps([worn, trial, self.outfit.blocks, {name: metric.key for name, metric in self.metrics.items()}])).encode())

    def _kept(self) -> dict[str, list[dict[str, Any]]]:
        try:
            found = json.loads((self.out / "search.json").read_text(encoding="utf-8"))
            return dict(found["points"]) if found["about"] == self.about else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def gains(trial: Trial, scores: Mapping[str, Scores], arm: str, other: str) -> dict[str, Pairs]:
    """By metric, what an arm gained over another, pair by pair. Raises ComparisonError where there are no pairs."""
    return {name: pairs_of(trial, found, arm, other) for name, found in scores.items()}


def worth(found: Mapping[str, Pairs], scale: Mapping[str, float], goals: Mapping[str, float], directions: Mapping[str, int]) -> Pairs:
    """The gains of several metrics as one, pair by pair: each in its own standard deviations, counted as the goals say, above 0 where it is better."""
    several = [found[name] for name in goals]
    if len({(one.n, one.prompts, one.seeds) for one in several}) > 1:
        raise ComparisonError("not every picture has a score in every goal, so that the goals cannot be weighed pair by pair. Score the missing ones")
    parts = [goals[name] * directions[name] / scale[name] * found[name].gains for name in goals]
    return replace(several[0], gains=np.sum(parts, axis=0), scale=max(goals[name] / scale[name] * found[name].scale for name in goals))


def _of(arm: str, scores: Scores) -> dict[tuple[str, str, int], float | None]:
    return {(arm, prompt, seed): value for (_, prompt, seed), value in scores.items()}
