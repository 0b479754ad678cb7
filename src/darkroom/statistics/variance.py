"""Where the spread of the gains comes from: the prompts, the seeds whatever the prompt, and the single pictures. It decides how sure a mean is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.pairs import ROUNDING, Pairs


@dataclass(frozen=True)
class Components:
    """Variances of random effects: gain = mean + prompt + seed + picture (Searle, Casella & McCulloch 1992, sections 3.6 and 4.3)."""

    between: float
    """Of what prompts truly gain; with one seed a prompt, of everything. Not below 0."""
    seed: float | None
    """Of what seeds gain in all prompts alike, not below 0; None where prompts do not share their seeds, so that it is part of `within`."""
    within: float | None
    """Of what is left in pictures; None where each prompt has one seed, so that it cannot be told apart."""
    total: float
    """Of one pair's gain, unbiased also where `between` was raised to 0."""
    freedom: float
    """Satterthwaite's degrees of freedom of `total`."""
    prompts: int
    seeds: float
    """Pictures of a prompt, on (a weighted) average."""

    def error(self, prompts: int, seeds: float) -> float:
        """The standard error of the mean gain in a design of so many prompts x seeds; seeds that prompts share are not averaged out by more prompts."""
        return math.sqrt((self.between + (self.within or 0.0) / seeds) / prompts + (self.seed or 0.0) / seeds)

    def known(self, prompts: int, seeds: float) -> float:
        """The degrees of freedom with which such a trial knows its own error."""
        if self.seed is None or self.within is None or seeds < 2:
            return prompts - 1
        return _satterthwaite(seeds * self.between + self.within, prompts * self.seed + self.within, self.within, prompts, seeds)

    def upper_error(self, prompts: int, seeds: float, assurance: float) -> float:
        """The upper limit of `error`, at that assurance, the variances being estimates (modified large sample: Graybill & Wang 1980; Ting et al. 1990)."""
        if self.within is None:
            return math.sqrt(self.between * (1 + _reach(self.prompts - 1, 1 - assurance)) / prompts)
        level = max(0.0, self.total - self.within * (1 - 1 / self.seeds)) if self.seed is None else self.between + self.within / self.seeds
        extra = self.within * (1 / seeds - 1 / self.seeds)  # what another number of seeds makes of the pilot's own variance of prompt means
        doubts = [level * _reach(self.prompts - 1, 1 - assurance) / prompts]
        doubts += [extra * _reach(self.prompts * (self.seeds - 1), 1 - assurance if extra > 0 else assurance) / prompts]
        if self.seed:
            doubts += [(self.seed + self.within / self.prompts) * _reach(self.seeds - 1, 1 - assurance) / seeds]
        upper = math.sqrt(max(0.0, level + extra) / prompts + (self.seed or 0.0) / seeds + math.hypot(*doubts))
        return max(upper, self.error(prompts, seeds))  # `between` that was raised to 0 makes `error` larger than what was measured

    def standardise(self, gain: float) -> float:
        """The gain in standard deviations of one pair's gain (Cohen's d_z); infinite where there is no spread."""
        return gain / math.sqrt(self.total) if self.total > 0 else math.copysign(math.inf, gain) if gain else 0.0


@dataclass(frozen=True)
class Squares:
    """The mean squares of a full rectangle of prompts x seeds."""

    prompt: float
    seed: float
    rest: float
    seeds: int


def squares(pairs: Pairs) -> Squares | None:
    """The two-way layout without replication; None where prompts x seeds is not a full rectangle of at least 2 x 2."""
    seeds = sorted(set(pairs.seeds), key=str)
    s = len(seeds)
    if s < 2 or pairs.n != pairs.k * s:
        return None
    place = {seed: i for i, seed in enumerate(seeds)}
    table = np.full((pairs.k, s), np.nan)
    table[pairs.prompt, [place[seed] for seed in pairs.seeds]] = pairs.gains
    if np.isnan(table).any():
        return None
    rows, columns = (table.mean(axis, keepdims=True) - table.mean() for axis in (1, 0))
    rest = table - table.mean() - rows - columns
    tiny = (ROUNDING * pairs.scale) ** 2
    parts = ((rows**2).sum() * s / (pairs.k - 1), (columns**2).sum() * pairs.k / (s - 1), (rest**2).sum() / (pairs.k - 1) / (s - 1))
    prompt, seed, left = (float(part) if part > tiny else 0.0 for part in parts)
    return Squares(prompt, seed, left, s)


def components(pairs: Pairs) -> Components:
    """The variances by the method of moments (ANOVA), prompts of unequal numbers of pictures included. Equals REML where balanced and not at the edge."""
    n, k, counts = pairs.n, pairs.k, pairs.counts
    tiny = (ROUNDING * pairs.scale) ** 2
    between = float((counts * (pairs.means - pairs.gains.mean()) ** 2).sum()) / (k - 1)
    size = (n - float((counts**2).sum()) / n) / (k - 1)  # pictures a prompt
    if n == k:
        total = between if between > tiny else 0.0
        return Components(total, None, None, total, k - 1, k, 1.0)
    within = float(((pairs.gains - pairs.means[pairs.prompt]) ** 2).sum()) / (n - k)
    within, between = (value if value > tiny else 0.0 for value in (within, between))
    parts = (between / size, within * (1 - 1 / size))
    total = sum(parts)
    freedom = total**2 / (parts[0] ** 2 / (k - 1) + parts[1] ** 2 / (n - k)) if total else k - 1
    crossed = squares(pairs)
    if crossed is None:
        return Components(max(0.0, (between - within) / size), None, within, total, freedom, k, size)
    prompt, seed = max(0.0, (crossed.prompt - crossed.rest) / crossed.seeds), max(0.0, (crossed.seed - crossed.rest) / k)
    return Components(prompt, seed, crossed.rest, total, freedom, k, size)


def standard_error(pairs: Pairs) -> tuple[float, float]:
    """(standard error of the mean gain, its degrees of freedom): what all intervals and tests of means go by.

    It is that of the prompts' means, with k - 1 (Matthews et al. 1990). Where all prompts share their seeds, and the seeds spread more than the rest, some
    seeds favour one arm whatever the prompt, and the prompts' means cannot show it: then both are taken for samples (Clark 1973; Satterthwaite 1946).
    """
    error = float(pairs.means.std(ddof=1)) / math.sqrt(pairs.k)
    found = squares(pairs)
    if found is None or found.seed <= found.rest:
        return error, pairs.k - 1
    both = math.sqrt((found.prompt + found.seed - found.rest) / pairs.n)
    return both, _satterthwaite(found.prompt, found.seed, found.rest, pairs.k, found.seeds)


def seed_effect(pairs: Pairs) -> float | None:
    """The p-value of "no seed favours one arm whatever the prompt" (F test of the two-way layout); None where it cannot be asked."""
    from scipy import special

    found = squares(pairs)
    if found is None or found.rest == 0:
        return None
    return float(special.fdtrc(found.seeds - 1, (found.seeds - 1) * (pairs.k - 1), found.seed / found.rest))


def _satterthwaite(prompt: float, seed: float, rest: float, prompts: int, seeds: float) -> float:
    """Degrees of freedom of prompt + seed - rest, not more than the prompts have."""
    doubt = prompt**2 / (prompts - 1) + seed**2 / (seeds - 1) + rest**2 / ((prompts - 1) * (seeds - 1))
    return min(prompts - 1, (prompt + seed - rest) ** 2 / doubt) if doubt else prompts - 1


def _reach(freedom: float, tail: float) -> float:
    """How far, relative to its estimate, a variance's limit lies from it."""
    from scipy import special

    return float(abs(freedom / special.chdtri(freedom, 1 - tail) - 1))
