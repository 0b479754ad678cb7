"""Where does a training level off, and where does it turn? Curves over checkpoints, prompt by prompt, and the rule that chooses one of them.

`choose` takes what should be reached (likeness, held-out loss) and what must not turn up (copying, drift), and gives the earliest step that has all of it:

1. Guards end the window. A curve *turns* at the knot of the best-fitting broken line where it rises after it; one that may grow all along (drift) *bends* where
   it grows faster after the knot than before. Both are asked of each unit's own broken line (summary measures: Matthews et al. 1990), so that all checkpoints
   tell together, and more of them tell more. The window ends before the first step that is worse than the knot by more than chance.
2. In the window a step is on the plateau of a curve where it falls short of the window's best step by no more than one standard error of that paired shortfall
   (the one-standard-error rule: Breiman et al. 1984, section 3.4.3; paired, for all steps share prompts, seeds and noise), or by a small share of all that was
   gained, and never by more than a large one. A curve that gained nothing decides nothing.
3. The earliest step that is on every plateau is chosen; where there is none, the one that loses least: of the larger of the shares that it falls short by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from darkroom.statistics.pairs import ROUNDING, ComparisonError, Floats

LOOKED_FOR = 3  # what it costs that the knot was looked for: measured on flat curves of 5 to 20 checkpoints and 3 to 12 units (test_plateau.py)


@dataclass(frozen=True)
class Change:
    """A paired change from one step to another, in the curve's unit."""

    mean: float
    error: float
    """Its standard error over units; NaN of one unit."""
    freedom: int

    def reach(self, confidence: float) -> float:
        """How far Student's interval reaches to either side; NaN of one unit."""
        from scipy import special

        return float(special.stdtrit(self.freedom, (1 + confidence) / 2)) * self.error if self.freedom else math.nan

    @property
    def p(self) -> float:
        """The chance of a mean at least as high were there no change (one-sided t test); 1 of one unit."""
        from scipy import special

        if not self.freedom:
            return 1.0
        if not self.error:
            return 0.0 if self.mean > 0 else 1.0
        return float(special.stdtr(self.freedom, -self.mean / self.error))


@dataclass(frozen=True, eq=False)
class Curve:
    """One measure at each step, unit by unit. Units are what is independent: prompts (the mean over their pictures), or held-out pictures."""

    name: str
    steps: tuple[int, ...]
    """Ascending; 0 is the base."""
    values: Floats
    """(steps, units), the same units with the same seeds and noise at each step."""
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if self.values.shape[:1] != (len(self.steps),) or self.values.ndim != 2 or not self.values.size:
            raise ComparisonError(f"{self.name}: {self.values.shape} values for {len(self.steps)} steps: a curve needs a row of units for each step")
        if list(self.steps) != sorted(set(self.steps)):
            raise ComparisonError(f"{self.name}: steps must ascend, each once: {', '.join(map(str, self.steps))}")
        if not np.isfinite(self.values).all():
            raise ComparisonError(f"{self.name}: a value is NaN or infinite. Leave that unit out of all steps.")

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    @cached_property
    def means(self) -> Floats:
        """(steps,) over units."""
        return np.asarray(self.values.mean(1))

    def at(self, step: int) -> int:
        """The row of a step."""
        return self.steps.index(step)

    def change(self, since: int, to: int) -> Change:
        """From one step to another, unit by unit."""
        return self._mean_of(self.values[self.at(to)] - self.values[self.at(since)])

    def worsening(self, since: int, to: int) -> Change:
        """The same, counted so that more is worse."""
        found = self.change(since, to)
        return Change(-self.sign * found.mean, found.error, found.freedom)

    def _mean_of(self, gains: Floats) -> Change:
        tiny = ROUNDING * float(np.abs(self.values).max())
        if np.ptp(gains) <= tiny and len(gains) > 1:
            return Change(float(gains.mean()) if abs(gains.mean()) > tiny else 0.0, 0.0, len(gains) - 1)
        error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        return Change(float(gains.mean()), error, len(gains) - 1)

    def best(self, steps: Sequence[int]) -> int:
        """Which of these steps is best on average; of equals the earliest."""
        return max(steps, key=lambda step: (self.sign * self.means[self.at(step)], -step))

    def broken(self, knot: int, first: int, rising: bool = True) -> Broken:
        """The least-squares broken line of each unit from row `first` on, bent at a step, counted so that up is worse.

        Unless it may be `rising` before the knot, it is flat there where the units rise on average.
        """
        x, rows = np.array(self.steps[first:], float), -self.sign * self.values[first:]
        one, late = np.ones_like(x), np.maximum(0, x - knot)
        design = np.stack([one, x, late] if knot > x[0] else [one, x, 0 * x], 1)
        found = np.linalg.lstsq(design, rows, rcond=None)[0]
        if not rising and knot > x[0] and found[1].mean() > 0:
            design[:, 1] = 0
            found = np.linalg.lstsq(design, rows, rcond=None)[0]
        misfit = float(((rows - design @ found).mean(1) ** 2).sum())
        return Broken(knot, self._mean_of(found[1] + found[2]), self._mean_of(found[2]), misfit)


@dataclass(frozen=True)
class Broken:
    """A broken line fitted to every unit."""

    knot: int
    after: Change
    """How fast it worsens after the knot, a step."""
    bend: Change
    """How much faster than before."""
    misfit: float
    """Squared distances of the mean from the mean line."""


@dataclass(frozen=True)
class Turn:
    """A guard that turns: from `since` on it worsens, or worsens faster than before, and at `step` that is to be seen."""

    curve: str
    since: int
    """The knot."""
    step: int
    """The first step that is worse than the knot by more than chance, taken alone."""
    change: Change
    """From the knot to the last step, counted so that more is worse."""
    p: float
    """That it turns at all; corrected for the knot having been looked for."""


@dataclass(frozen=True)
class Rule:
    """How a step is chosen. The defaults' rates are measured on simulated histories (tests/statistics/test_plateau.py)."""

    errors: float = 1.0
    """A shortfall of so many of its standard errors counts as none."""
    margin: float = 0.05
    """Nor does this share of all that was gained."""
    most: float = 0.25
    """But never more than this share, however unsure it is."""
    alpha: float = 0.05
    """A guard has turned where chance would turn a flat one in at most this share of runs."""


@dataclass(frozen=True)
class Short:
    """How far a step falls short of the best one of the window in a curve. `shortfall` is above 0 where it is worse."""

    curve: str
    best: int
    shortfall: Change
    allowed: float
    gained: float
    """From the base to the best step; 0 where nothing was gained."""

    @property
    def passes(self) -> bool:
        """Whether it is on the plateau."""
        return not self.gained or self.shortfall.mean <= self.allowed

    @property
    def lost(self) -> float:
        """The share of what was gained that the step falls short by."""
        return self.shortfall.mean / self.gained if self.gained else 0.0


@dataclass(frozen=True)
class Choice:
    """The step, and all that led to it."""

    step: int
    window: tuple[int, ...]
    """The checkpoints before any guard had turned, and at least the first one."""
    turns: tuple[Turn, ...]
    shorts: tuple[Short, ...]
    """Of the chosen step, curve by curve."""

    @property
    def together(self) -> bool:
        """Whether the step is on every plateau."""
        return all(short.passes for short in self.shorts)

    @property
    def first_turn(self) -> Turn | None:
        """The guard that ended the window."""
        return min(self.turns, key=lambda turn: turn.step, default=None)


def choose(goals: Sequence[Curve], rises: Sequence[Curve] = (), bends: Sequence[Curve] = (), rule: Rule | None = None) -> Choice:
    """The earliest step on the plateau of all goals before any guard turns. All curves have the same steps, of which 0 is the base and is never chosen.

    `goals` come in the order in which they matter; `rises` are guards that should not rise at all, `bends` those that may grow, but not ever faster.
    Raises ComparisonError without a goal or with fewer than two checkpoints.
    """
    rule = rule or Rule()
    if not goals or any(curve.steps != goals[0].steps for curve in (*goals, *rises, *bends)):
        raise ComparisonError("a choice needs at least one goal, and all curves over the same steps")
    steps = tuple(step for step in goals[0].steps if step)
    if len(steps) < 2:
        raise ComparisonError(f"{len(steps)} checkpoints: there is nothing to choose between; keep more of them with a shorter train.save_every")
    found = [turn for turn in (*(turned(curve, rule.alpha) for curve in rises), *(bent(curve, rule.alpha) for curve in bends)) if turn]
    end = min((turn.step for turn in found), default=math.inf)
    window = tuple(step for step in steps if step < end) or steps[:1]
    told = {step: tuple(_short(curve, step, window, rule) for curve in goals) for step in window}
    whole = next((step for step in window if all(short.passes for short in told[step])), None)
    step = whole if whole is not None else min(window, key=lambda step: max(short.lost for short in told[step]))
    return Choice(step, window, tuple(found), told[step])


def _short(curve: Curve, step: int, window: Sequence[int], rule: Rule) -> Short:
    """The shortfall of a step, and what is allowed: one standard error or the margin, capped."""
    best = curve.best(window)
    shortfall = curve.worsening(best, step)
    gained = max(0.0, curve.sign * float(curve.means[curve.at(best)] - curve.means[0]))
    unsure = 0.0 if math.isnan(shortfall.error) else rule.errors * shortfall.error
    return Short(curve.name, best, shortfall, min(max(unsure, rule.margin * gained), rule.most * gained), gained)


def turned(curve: Curve, alpha: float = 0.05, first: int = 1) -> Turn | None:
    """Where the curve turns to the worse; None where it does not, or too little to be told from chance.

    The knot is that of the broken line, falling or flat before it, that fits the mean best; that the units rise after it is a one-sided t test of their own
    slopes. Rows before `first` are not looked at: with 1 the base, from which learning itself leads away. Fewer than three rows turn nowhere.
    """
    return _turn(curve, alpha, first, False, lambda line: line.after)


def bent(curve: Curve, alpha: float = 0.05, first: int = 0) -> Turn | None:
    """Where the curve begins to worsen faster than before; None where it grows evenly or ever slower."""
    found = _turn(curve, alpha, first, True, lambda line: line.bend)
    return found if found and found.change.mean > 0 else None


def _turn(curve: Curve, alpha: float, first: int, rising: bool, asked: Callable[[Broken], Change]) -> Turn | None:
    steps = curve.steps[first:]
    if len(steps) < 3:
        return None
    line = min((curve.broken(knot, first, rising) for knot in steps[:-1]), key=lambda line: line.misfit)
    p, later = min(1.0, LOOKED_FOR * asked(line).p), steps[steps.index(line.knot) + 1 :]
    if p >= alpha:
        return None
    seen = next((step for step in later if curve.worsening(line.knot, step).p < alpha), later[-1])
    return Turn(curve.name, line.knot, seen, curve.worsening(line.knot, steps[-1]), p)
