"""How many pictures would it take? From a pilot's variances to prompts x seeds, with what each choice costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from darkroom.statistics.pairs import ComparisonError, Pairs
from darkroom.statistics.variance import Components, components

POWER = 0.8  # Cohen 1988, section 2.4
MOST = 10_000  # prompts; nobody writes more
SEEDS = (1, 2, 4, 8, 16)
ASSURANCE = 0.8  # Browne 1995: the upper 80 % limit of a pilot's variance plans a trial that suffices in 8 of 10 cases


@dataclass(frozen=True)
class Alternative:
    """One design that would see the difference."""

    prompts: int
    seeds: int
    pairs: int
    pictures: int
    """Drawn in all arms together."""
    power: float
    """The chance to see the difference, the pilot's variances taken as true."""
    safe_prompts: int | None
    """Prompts that suffice in 8 of 10 cases though the pilot's variances are estimates (Browne 1995); None: more than 10,000."""
    seconds: float | None
    """Time to draw and score it all, where the time of a picture is known."""


@dataclass(frozen=True)
class Plan:
    """What it takes to see a difference, and what the pilot's own design could see."""

    difference: float
    power: float
    confidence: float
    comparisons: int
    """The family that the verdict must stand among: planned for its strictest step (confidence / comparisons)."""
    alternatives: tuple[Alternative, ...]
    """The fewest prompts for each number of seeds; empty where even 10,000 prompts would not do."""
    prompts: int
    seeds: float
    """The pilot's design."""
    had: float
    """The power that the pilot's design had for `difference`."""
    visible: float
    """The smallest difference that the pilot's design sees with `power`."""

    @property
    def here(self) -> Alternative | None:
        """The design with the pilot's own number of seeds."""
        return next((one for one in self.alternatives if one.seeds == round(self.seeds)), None)

    @property
    def fewest(self) -> Alternative | None:
        """The design with the fewest pictures; of two that draw as many, the one with fewer prompts to write."""
        return min(self.alternatives, key=lambda one: (one.pictures, one.prompts), default=None)


def plan(
    pairs: Pairs, difference: float, power_wanted: float = POWER, confidence: float = 0.95, comparisons: int = 1, arms: int = 2,
    seeds: Sequence[int] = SEEDS, seconds_per_picture: float | None = None,
) -> Plan:  # fmt: skip
    """Designs that see a true mean gain of `difference` (in the metric's unit) with `power_wanted`, from a pilot's pairs.

    A pilot with one seed a prompt cannot tell prompts' spread from pictures', so that only designs with one seed can be planned from it. Where the
    pilot's prompts shared their seeds, and these spread, the designs share theirs too; seeds of their own for each prompt would take fewer pictures.
    The stated power holds within 5 points (tests/statistics/test_plan.py) from 4 shared seeds on. Raises ComparisonError for a difference of 0 and for a power
    or confidence outside of (0, 1).
    """
    _sensible(difference, power_wanted, confidence)
    spread, alpha = components(pairs), (1 - confidence) / comparisons
    goal = _Goal(abs(difference), power_wanted, alpha, arms, seconds_per_picture)
    found = tuple(one for s in _seeds(spread, seeds) if (one := goal.design(spread, s)))
    error, known = spread.error(spread.prompts, spread.seeds), spread.known(spread.prompts, spread.seeds)
    had, visible = power(difference, error, known, alpha), smallest_visible(error, known, alpha, power_wanted)
    return Plan(abs(difference), power_wanted, confidence, comparisons, found, spread.prompts, spread.seeds, had, visible)


def _seeds(spread: Components, seeds: Sequence[int]) -> list[int]:
    """The numbers of seeds to plan for: the pilot's own, and those that the pilot can speak of."""
    own = max(1, round(spread.seeds))
    if spread.within is None:
        return [1]
    if spread.seed is None:
        return sorted({*seeds, own})
    least = 4 if spread.seed else 1  # of seeds that all prompts share, one cannot show what it favours, and two or three not how much seeds matter
    return sorted({own, *(s for s in seeds if s >= 4 or s == least)})


@dataclass(frozen=True)
class _Goal:
    """What a design must reach, and what a picture costs."""

    difference: float
    power: float
    alpha: float
    arms: int
    seconds: float | None

    def design(self, spread: Components, seeds: int) -> Alternative | None:
        """The fewest prompts with so many seeds; None where 10,000 are too few."""

        def chance(prompts: int) -> float:
            return power(self.difference, spread.error(prompts, seeds), spread.known(prompts, seeds), self.alpha)

        def safely(prompts: int) -> float:
            return power(self.difference, spread.upper_error(prompts, seeds, ASSURANCE), spread.known(prompts, seeds), self.alpha)

        prompts = self.fewest(chance)
        if prompts is None:
            return None
        pictures = prompts * seeds * self.arms
        seconds = None if self.seconds is None else pictures * self.seconds
        return Alternative(prompts, seeds, prompts * seeds, pictures, chance(prompts), self.fewest(safely), seconds)

    def fewest(self, chance: Callable[[int], float]) -> int | None:
        """The least number of prompts with enough power, by doubling and halving."""
        low, high = 1, 2
        while chance(high) < self.power:
            low, high = high, high * 2
            if low >= MOST:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if chance(middle) >= self.power else (middle, high)
        return high if high <= MOST else None


def power(difference: float, error: float, freedom: float, alpha: float = 0.05) -> float:
    """The chance that a two-sided t test sees the difference, where the mean has that standard error and degrees of freedom (noncentral t; Cohen 1988)."""
    from scipy import special

    if error == 0:
        return 1.0 if difference else alpha
    critical, shift = float(special.stdtrit(freedom, 1 - alpha / 2)), abs(difference) / error
    above = 1 - float(special.nctdtr(freedom, shift, critical))
    below = 1 - float(special.nctdtr(freedom, -shift, critical)) if shift < 5 else 0.0  # below 3e-7; and nctdtr gives NaN there
    return min(1.0, above + below)


def smallest_visible(error: float, freedom: float, alpha: float = 0.05, power_wanted: float = POWER) -> float:
    """The difference that a design with that standard error sees with `power_wanted`."""
    from scipy import optimize

    if error == 0:
        return 0.0
    highest = 1.0
    while power(highest, 1.0, freedom, alpha) < power_wanted:
        highest *= 2
    return error * float(optimize.brentq(lambda shift: power(shift, 1.0, freedom, alpha) - power_wanted, 0.0, highest))


def _sensible(difference: float, wanted: float, confidence: float) -> None:
    if not (math.isfinite(difference) and difference):
        raise ComparisonError(f"a difference of {difference:g} cannot be planned for: name the smallest one that would matter to you, in the metric's unit")
    for name, value in (("power", wanted), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ComparisonError(f"a {name} of {value:g}: it lies between 0 and 1, for example 0.8")
