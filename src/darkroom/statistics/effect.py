"""How large is it? The gain in standard deviations, and how often the second arm wins a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.pairs import Floats, Pairs
from darkroom.statistics.variance import Components, components, standard_error


@dataclass(frozen=True)
class Effect:
    """Sizes that do not depend on the metric's unit. The interval of g is None where there is no spread to make it from."""

    d: float
    """Cohen's d_z: the mean gain over the standard deviation of one pair's gain."""
    g: float
    """Hedges' g: d without its bias in small samples (Hedges 1981, eq. 6e)."""
    g_low: float | None
    g_high: float | None
    wins: float
    """The chance that a picture of the second arm scores higher than its partner of the first, ties counted half (Grissom & Kim 2012, PS_dep)."""
    wins_low: float
    wins_high: float
    confidence: float


def effect_size(pairs: Pairs, confidence: float = 0.95) -> Effect:
    """Both sizes over prompts x seeds, with intervals that know that pictures of one prompt belong together.

    g's interval inverts the noncentral t of the mean gain (Steiger & Fouladi 1997), brought to the spread of single pairs; with one seed a prompt it is
    the exact one of d_z. That of `wins` is Wilson's, for as many independent pairs as the pairs are worth (Korn & Graubard 1998; Dean & Pagano 2015).
    """
    spread = components(pairs)
    d, shrink = spread.standardise(pairs.mean), _hedges(spread.freedom)
    low, high = _noncentral(pairs, spread, confidence)
    won = np.where(np.abs(pairs.gains) <= 1e-12 * pairs.scale, 0.5, pairs.gains > 0)
    wins = float((np.bincount(pairs.prompt, won, pairs.k) / pairs.counts).mean())
    wins_low, wins_high = _wilson(wins, won, pairs, confidence)
    return Effect(
        d, shrink * d, None if low is None else shrink * low, None if high is None else shrink * high, wins, wins_low, wins_high, confidence
    )  # fmt: skip


def _hedges(freedom: float) -> float:
    """The exact factor of Hedges 1981, gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)); 1 degree of freedom has none, and gets the approximation's 0."""
    if freedom <= 1:
        return max(0.0, 1 - 3 / (4 * freedom - 1))
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def _noncentral(pairs: Pairs, spread: Components, confidence: float) -> tuple[float | None, float | None]:
    """The ends of d's interval."""
    from scipy import special

    if pairs.flat or not spread.total:
        return None, None
    error, freedom = standard_error(pairs)
    t = pairs.mean / error
    scale = max(1.0, abs(t) / 1000)  # beyond it the ends grow in proportion to t, and scipy's search may not end
    tails = ((1 + confidence) / 2, (1 - confidence) / 2)
    low, high = (scale * float(special.nctdtrinc(freedom, tail, t / scale)) * error / math.sqrt(spread.total) for tail in tails)
    return low, high


def _wilson(wins: float, won: Floats, pairs: Pairs, confidence: float) -> tuple[float, float]:
    """Wilson's interval for the effective number of pairs, with Student's quantile. That number lies between the prompts' and the pairs'."""
    from scipy import stats

    rates = np.bincount(pairs.prompt, won, pairs.k) / pairs.counts
    error = float(rates.var(ddof=1)) / pairs.k
    worth = pairs.k if error == 0 else min(pairs.n, max(pairs.k, wins * (1 - wins) / error))
    z = float(stats.t.ppf((1 + confidence) / 2, pairs.k - 1))
    center = (wins + z * z / (2 * worth)) / (1 + z * z / worth)
    reach = z / (1 + z * z / worth) * math.sqrt(wins * (1 - wins) / worth + z * z / (4 * worth * worth))
    return max(0.0, center - reach), min(1.0, center + reach)
