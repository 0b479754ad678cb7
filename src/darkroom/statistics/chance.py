"""Could it be chance? Tests that ask nothing of the shape of the scores, and the price of asking many questions at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.pairs import ComparisonError, Floats, Pairs
from darkroom.values import seed_for

EXACT = 14  # prompts up to which all 2^k sign patterns are walked through
FLIPS = 9999  # random patterns beyond that
BLOCK = 1 << 21  # numbers held at once


@dataclass(frozen=True)
class SignFlip:
    """A permutation test: had each prompt's gain an even chance of the other sign, how often would the mean be as far from 0?"""

    p: float
    exact: bool
    """Every pattern of signs was tried; else a seeded sample of them."""
    smallest: float
    """The least p that so few prompts (or so few random patterns) can give."""


def sign_flip(pairs: Pairs, seed: int = 0) -> SignFlip:
    """The two-sided sign-flip test on the prompts' means: exact to 14 prompts, else 9,999 random patterns with (b + 1) / (m + 1) (Phipson & Smyth 2010)."""
    exact = pairs.k <= EXACT
    return SignFlip(float(sign_flip_p(pairs.means, seed)), exact, 2.0 ** (1 - pairs.k) if exact else 1 / (FLIPS + 1))


def sign_flip_p(values: Floats, seed: int = 0) -> Floats:
    """(..., k) values -> (...) two-sided p of the sign-flip test of their sums."""
    k = values.shape[-1]
    least = np.abs(values.sum(-1)) - 1e-10 * np.abs(values).sum(-1)  # as far from 0, but for rounding
    hits, tried = np.zeros(values.shape[:-1]), 0
    for signs in _signs(k, seed, values.size // k):
        hits += (np.abs(np.tensordot(signs, values, (1, -1))) >= least).sum(0)
        tried += len(signs)
    return np.asarray(hits / tried if k <= EXACT else (hits + 1) / (tried + 1))


def _signs(k: int, seed: int, series: int) -> Iterator[Floats]:
    """(b, k) patterns of +1 and -1 in blocks: all of them with the first sign kept (its mirror gives the same distance), or random ones."""
    step = max(1, BLOCK // (k + series))
    if k <= EXACT:
        for start in range(0, 2 ** (k - 1), step):
            patterns = np.arange(start, min(start + step, 2 ** (k - 1)))
            yield np.where((patterns[:, None] >> np.arange(k)) & 1, -1.0, 1.0)
        return
    random = np.random.default_rng(seed_for(seed, "sign flips", k))
    for start in range(0, FLIPS, step):
        yield np.where(random.random((min(step, FLIPS - start), k)) < 0.5, -1.0, 1.0)


def wilcoxon(pairs: Pairs, seed: int = 0) -> float:
    """Wilcoxon's signed-rank test on the prompts' means, two-sided; means of 0 are dropped, as Wilcoxon did.

    scipy's (exact to 50 prompts); where means are tied, whose ranks scipy's exact table does not cover, the sign-flip test of the midranks.
    """
    from scipy import stats

    tiny = 1e-12 * pairs.scale
    means = np.round(pairs.means / tiny) * tiny if tiny else pairs.means  # equal but for rounding is a tie
    means = means[means != 0]
    if not len(means):
        return 1.0
    ranks = stats.rankdata(np.abs(means))
    if len(set(ranks.tolist())) < len(ranks):
        return float(sign_flip_p(np.sign(means) * ranks, seed))
    return float(stats.wilcoxon(means).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for the whole family (Holm 1979): declaring those below 0.05 errs anywhere in at most 5 % of families. Raises ComparisonError."""
    if not all(0 <= value <= 1 for value in p):
        raise ComparisonError(f"p-values lie between 0 and 1, not {', '.join(f'{value:g}' for value in p)}. Leave comparisons without one out of the family.")
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = worst
    return corrected
