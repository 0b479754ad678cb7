"""Is the difference real? Paired differences with an interval that knows that pictures of one prompt belong together. No torch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Difference:
    """A paired comparison: the mean of (treated - control), its interval, and how sure that is."""

    mean: float
    low: float
    high: float
    confidence: float
    pairs: int
    clusters: int
    p: float
    effect: float  # mean over the standard deviation of the paired differences (Cohen's d_z)

    def verdict(self, higher_is_better: bool = True) -> Verdict:
        """ "better" or "worse" only where the interval excludes 0."""
        if not (self.low > 0 or self.high < 0):
            return "unclear"
        return "better" if (self.mean > 0) == higher_is_better else "worse"


def paired(control: Sequence[float], treated: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95) -> Difference:
    """Compare pairs that share prompt, seed and noise; `clusters[i]` is the prompt of pair i.

    The interval is Student's over the means of the clusters (a summary-measures analysis: Matthews et al. 1990), so that many seeds of few
    prompts do not pass for many independent pairs; with one pair a cluster it is the paired t interval. Raises ValueError for unequal
    lengths, for fewer than two clusters (no spread can be known), and for NaN.
    """
    import numpy as np
    from scipy import stats

    if not len(control) == len(treated) == len(clusters):
        raise ValueError(f"{len(control)} control scores, {len(treated)} treated ones and {len(clusters)} clusters: pairs need as many of each")
    differences = np.asarray(treated, float) - np.asarray(control, float)
    if not np.isfinite(differences).all():
        raise ValueError("a score is NaN or infinite: that pair cannot be compared")
    names = sorted(set(clusters), key=str)
    if len(names) < 2:
        raise ValueError("one prompt only: how much the difference varies from prompt to prompt cannot be known; give at least two")
    means = np.array([differences[[c == name for c in clusters]].mean() for name in names])
    center = float(means.mean())
    if float(np.ptp(means)) == 0.0:
        low = high = center
        p = 1.0 if center == 0 else 0.0
    else:
        result = stats.ttest_1samp(means, 0.0)
        interval = result.confidence_interval(confidence)
        low, high, p = float(interval.low), float(interval.high), float(result.pvalue)
    spread = float(differences.std(ddof=1))
    effect = center / spread if spread > 0 else math.copysign(math.inf, center) if center else 0.0
    return Difference(center, low, high, confidence, len(differences), len(names), p, effect)
