"""What pictures scored, summed up in the poster guide's columns (../shared/seeds, 004), pooled and by prompt: published tables mix the two up."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from darkroom.statistics.pairs import ComparisonError, Floats

Aggregation = Literal["pooled", "mean of prompts"]


@dataclass(frozen=True)
class Summary:
    """One row of the summary table. A statistic that is not defined (the deviation of one picture, the skewness of equal scores) is None, never 0."""

    name: str
    """The arm, model or folder."""
    metric: str
    aggregation: Aggregation
    """pooled: over all pictures at once. mean of prompts: each statistic within every prompt, then its mean over the prompts; None where a prompt has none."""
    prompts: int
    count: int
    """Pictures with a score, under both aggregations."""
    missing: int
    """Pictures without one (none, NaN or infinite): they are in no figure of this row."""
    mean: float | None
    std: float | None
    """Divides by n - 1, as pandas' describe does."""
    min: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    """Quartiles by linear interpolation."""
    max: float | None
    skew: float | None
    """Fisher-Pearson, biased (scipy's bias=True)."""
    kurtosis: float | None
    """Fisher's (a normal distribution has 0), biased."""
    clip_mean: float | None
    """Of the CLIP scores of the same pictures; None where none were given."""
    clip_std: float | None
    """Divides by n, as the guide's does (numpy's default), unlike `std`."""


COLUMNS = 11  # from mean to clip_std


def describe(
    scores: Sequence[float | None], prompts: Sequence[Hashable], clip: Sequence[float | None] = (), name: str = "", metric: str = ""
) -> tuple[Summary, Summary]:  # fmt: skip
    """The pooled row and the mean of the prompts' own rows; `prompts[i]` is the prompt of picture i. Raises ComparisonError where the lengths differ."""
    if len(prompts) != len(scores) or len(clip) not in (0, len(scores)):
        raise ComparisonError(f"{len(scores)} scores, {len(prompts)} prompts and {len(clip)} CLIP scores: a picture has one of each, or no CLIP score at all")
    values = np.array([math.nan if score is None else score for score in scores], float)
    seen = np.array([math.nan if score is None else score for score in clip], float) if clip else np.full(len(values), math.nan)
    kept = np.isfinite(values)
    place = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    index = np.array([place[prompt] for prompt in prompts], int)
    order = np.argsort(index[kept], kind="stable")
    groups = [group for group in np.split(np.flatnonzero(kept)[order], np.cumsum(np.bincount(index[kept], minlength=len(place)))[:-1]) if len(group)]
    each = [_statistics(values[group], seen[group]) for group in groups]
    pooled = _statistics(values[kept], seen[kept])
    averaged = [_mean(column) for column in zip(*each, strict=True)] or pooled
    facts = (len(groups), int(kept.sum()), int((~kept).sum()))
    return (
        Summary(name, metric, "pooled", *facts, *pooled),
        Summary(name, metric, "mean of prompts", *facts, *averaged),
    )


def _statistics(values: Floats, clip: Floats) -> list[float | None]:
    """The columns from mean to clip_std for one set of pictures; None where undefined."""
    if not len(values):
        return [None] * COLUMNS
    quartiles = [float(at) for at in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))]
    mean, spread = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    second, third, fourth = (float(((values - mean) ** power).mean()) for power in (2, 3, 4))
    shaped = second > (np.finfo(float).eps * mean) ** 2  # scipy's own rule for "all equal"
    shape = [third / second**1.5, fourth / second**2 - 3] if shaped else [None, None]
    seen = [float(clip.mean()), float(clip.std())] if np.isfinite(clip).all() else [None, None]
    return [mean, spread, *quartiles, *shape, *seen]


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if len(numbers) == len(values) else None
