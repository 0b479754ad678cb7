"""Two folders side by side: by how much each metric differs, how sure that is, and what the pattern of differences says in words. There is no total."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darkroom.jobs.score.ask import Answers
from darkroom.jobs.score.items import Item
from darkroom.statistics import ComparisonError, Pairs, holm, student
from darkroom.statistics.verdict import decimals

if TYPE_CHECKING:
    from darkroom.metrics import Metric

Way = Literal["up", "down", "level"]
Key = tuple[str, int]  # prompt and seed
Scores = tuple[Sequence[Item], Answers]
CONFIDENCE = 0.95
LIKENESS = ("likeness", "dino", "imagenet")
PATTERNS: tuple[tuple[dict[str, tuple[Way, ...]], str], ...] = (
    (
        {"likeness": ("up",), "copying": ("up",)},
        "Likeness up and copying up: memorising. It draws training pictures again rather than the subject. Train for fewer steps, or on more pictures.",
    ),
    (
        {"likeness": ("up",), "diversity": ("down",), "clip": ("down",)},
        "Likeness up, diversity and prompt fidelity down: overfitted, or the trigger took over. Take an earlier checkpoint, or wear it at a lower weight.",
    ),
    (
        {"likeness": ("up",), "copying": ("level", "down"), "clip": ("level", "up")},
        "Likeness up, with neither copying up nor prompt fidelity down: as far as can be seen it learned the subject and still listens.",
    ),
    (
        {"drift": ("up",)},
        "Drift up: the class has moved where nobody named the subject. Pictures of the class beside the subject's (a prior) hold it.",
    ),
    (
        {"aesthetic": ("down",), "sharpness": ("down",)},
        "Looks and sharpness down: the pictures themselves got worse, as they do where it was trained too long or at too high a rate.",
    ),
    (
        {"diversity": ("down",), "likeness": ("level", "down")},
        "Diversity down without a gain in likeness: the pictures of one prompt have become more alike, and not more like the subject.",
    ),
    (
        {"likeness": ("down",), "clip": ("up",)},
        "Prompt fidelity up and likeness down: it listens better and knows the subject less, as a weaker or shorter training does.",
    ),
)
"""What is measured to move so, all of it, says this. `likeness` stands for whichever of LIKENESS moved."""


@dataclass(frozen=True)
class Move:
    """How one metric of the folder differs from that of the other."""

    metric: str
    way: Way
    """By its own interval: "level" where that holds 0."""
    sentence: str
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    pairs: int
    """0 where pictures could not be paired by prompt and seed."""


@dataclass(frozen=True)
class _Found:
    """A difference, before it is put in words; one that could not be measured has a `basis` alone."""

    basis: str
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = 1.0
    pairs: int = 0


def compare(names: tuple[str, str], metrics: Sequence[Metric], mine: Scores, other: Scores) -> list[Move]:
    """`mine` against `other`: pair by pair where prompts and seeds are the same (Student's interval over prompts), else means over prompts (Welch's interval).

    Each has its own 95 % interval; which of them many questions may have brought by chance is said (Holm 1979).
    """
    keys = partners(mine[0], other[0])
    found = [_paired(metric.name, keys, mine, other) if keys else _unpaired(metric.name, mine, other) for metric in metrics]
    surer = holm([one.p for one in found])
    return [_told(metric, names, one, p, len(metrics)) for metric, one, p in zip(metrics, found, surer, strict=True)]


def _told(metric: Metric, names: tuple[str, str], found: _Found, corrected: float, asked: int) -> Move:
    if math.isnan(found.mean):
        return Move(metric.name, "level", f"{metric.name}: cannot be compared: {found.basis}.", None, None, None, None, 0)
    way: Way = "up" if found.low > 0 else "down" if found.high < 0 else "level"
    places = decimals(found.high - found.low)
    interval = f"{found.mean:+.{places}f} {metric.unit}, {CONFIDENCE:.0%} interval {found.low:+.{places}f} to {found.high:+.{places}f}; {found.basis}"
    said = {"up": f'"{names[0]}" is higher than "{names[1]}"', "down": f'"{names[0]}" is lower than "{names[1]}"', "level": "no difference can be seen"}[way]
    doubt = f" Among {asked} questions chance may bring such a one." if way != "level" and corrected >= 1 - CONFIDENCE else ""
    sentence = f"{metric.name}: {said} ({interval}; {'higher' if metric.higher_is_better else 'lower'} is better).{doubt}"
    return Move(metric.name, way, sentence, found.mean, found.low, found.high, found.p, found.pairs)


def patterns(ways: Mapping[str, Way]) -> list[str]:
    """The known patterns among what was measured, in words; none is a verdict by itself."""
    moved = dict(ways)
    seen = [ways[name] for name in LIKENESS if name in ways]
    if seen:
        moved["likeness"] = next((way for way in seen if way != "level"), "level")
        if {"up", "down"} <= set(seen):
            moved["likeness"] = "level"  # they contradict each other
    return [words for wanted, words in PATTERNS if all(moved.get(name) in allowed for name, allowed in wanted.items())]


def copies(metric: Any, items: Sequence[Item], answers: Answers) -> list[str]:
    """Files whose copy score says that they are training pictures again, the surest first."""
    scores = answers.scores.get("copying", {})
    return sorted((item.file for item in items if scores.get(item.file, 0.0) >= metric.copy_from), key=lambda file: -scores[file])


def partners(mine: Sequence[Item], other: Sequence[Item]) -> set[Key]:
    """Prompts and seeds that both folders have once. Empty where they are fewer than two prompts or less than half of either folder: then nothing is paired."""
    one, two = (Counter((item.prompt, item.seed) for item in items if item.prompt and item.seed is not None) for items in (mine, other))
    both = {key for key in one if one[key] == two[key] == 1}
    enough = len({prompt for prompt, _ in both}) >= 2 and 2 * len(both) >= max(len(mine), len(other))
    return {(prompt, seed) for prompt, seed in both if seed is not None} if enough else set()


def _keyed(metric: str, keys: set[Key], items: Sequence[Item], answers: Answers) -> dict[Key, float | None]:
    return {(item.prompt, item.seed): answers.scores[metric].get(item.file) for item in items if item.seed is not None and (item.prompt, item.seed) in keys}


def _paired(metric: str, keys: set[Key], mine: Scores, other: Scores) -> _Found:
    try:
        pairs = Pairs.match(_keyed(metric, keys, *other), _keyed(metric, keys, *mine))
    except ComparisonError as error:
        return _Found(str(error).rstrip("."))
    found = student(pairs, CONFIDENCE)
    return _Found(f"{found.pairs} pairs over {found.clusters} prompts", found.mean, found.low, found.high, found.p, found.pairs)


def _unpaired(metric: str, mine: Scores, other: Scores) -> _Found:
    """Over prompts' means, or over pictures where there are not two prompts on both sides."""
    from scipy.stats import ttest_ind

    one, two = _units(metric, *mine), _units(metric, *other)
    if len(one) < 2 or len(two) < 2:
        return _Found("there are too few scores")
    mean = float(np.mean(one) - np.mean(two))
    basis = f"not paired, {len(one)} against {len(two)}"
    if np.ptp(one) == np.ptp(two) == 0:
        return _Found(f"{basis}, without any spread")
    welch = ttest_ind(one, two, equal_var=False)
    low, high = (float(edge) for edge in welch.confidence_interval(CONFIDENCE))
    return _Found(basis, mean, low, high, float(welch.pvalue))


def _units(metric: str, items: Sequence[Item], answers: Answers) -> list[float]:
    groups: dict[str, list[float]] = {}
    for item in items:
        if (score := answers.scores[metric].get(item.file)) is not None:
            groups.setdefault(item.prompt, []).append(score)
    if len(groups) < 2:
        return [score for scores in groups.values() for score in scores]
    return [float(np.mean(scores)) for scores in groups.values()]
