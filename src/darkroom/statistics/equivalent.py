"""Are they as good as equal? Not "no difference was seen", but "any difference is smaller than the margin that you state"."""

from __future__ import annotations

import math
from dataclasses import dataclass

from darkroom.statistics.pairs import ComparisonError, Pairs
from darkroom.statistics.variance import standard_error


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (Schuirmann 1987): `p` is the chance of such scores if the true difference were as large as the margin."""

    margin: float
    p: float
    low: float
    high: float
    confidence: float
    """Of the interval: 90 % where the verdict is asked at 95 %, for each of the two tests uses one tail of 5 %."""

    @property
    def inside(self) -> bool:
        """Whether the interval lies within the margin on both sides."""
        return -self.margin < self.low and self.high < self.margin


def equivalence(pairs: Pairs, margin: float, confidence: float = 0.95) -> Equivalence:
    """Student's two one-sided tests with the error of `standard_error`, against +margin and -margin in the metric's unit.

    Raises ComparisonError for a margin not above 0.
    """
    from scipy import special

    if not (margin > 0 and math.isfinite(margin)):
        raise ComparisonError(f"a margin of {margin:g}: state one above 0, in the metric's unit: the largest difference that you would still call equal")
    ends = 2 * confidence - 1
    if pairs.flat:
        return Equivalence(margin, 0.0 if abs(pairs.mean) < margin else 1.0, pairs.mean, pairs.mean, ends)
    error, freedom = standard_error(pairs)
    p = float(special.stdtr(freedom, (abs(pairs.mean) - margin) / error))  # the larger of the two
    reach = float(special.stdtrit(freedom, confidence)) * error
    return Equivalence(margin, p, pairs.mean - reach, pairs.mean + reach, ends)
