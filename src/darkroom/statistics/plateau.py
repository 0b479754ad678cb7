"""Where does a training level off, and where does it turn? Curves over checkpoints, prompt by prompt, and the rule that chooses one of them.

`choose` takes what should be reached (likeness, held-out loss) and what must not turn up (copying, drift), and gives the earliest step that has all of it:

1. Guards end the window. A curve *turns* at the first step that is significantly worse than its best step before; one that grows from the start (drift) *bends*
   at the step after which it grows significantly faster than before.
2. In the window a step is on the plateau of a curve where it falls short of the window's best step by no more than one standard error of that paired shortfall
   (the one-standard-error rule: Breiman et al. 1984, section 3.4.3; paired, for all steps share prompts, seeds and noise), or by a small share of all that was
   gained, and never by more than a large one.
3. The earliest step that is on every plateau is chosen; where there is none, the earliest on the first curve's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from darkroom.statistics.pairs import ROUNDING, ComparisonError, Floats


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
        if np.ptp(gains) <= ROUNDING * float(np.abs(self.values).max()) and len(gains) > 1:
            return Change(float(gains.mean()), 0.0, len(gains) - 1)
        error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        return Change(float(gains.mean()), error, len(gains) - 1)

    def best(self, steps: Sequence[int]) -> int:
        """Which of these steps is best on average; of equals the earliest."""
        return max(steps, key=lambda step: (self.sign * self.means[self.at(step)], -step))

    def faster(self, step: int) -> Change:
        """How much faster it worsens from this step to the next than it did from its first step to this one, a step; unit by unit."""
        here = self.at(step)
        rows, x = -self.sign * self.values, self.steps
        before = (rows[here] - rows[0]) / (x[here] - x[0])
        after = (rows[here + 1] - rows[here]) / (x[here + 1] - x[here])
        return self._mean_of(after - before)


@dataclass(frozen=True)
class Turn:
    """Where a guard turns: it is significantly worse at `step` than at `since`, or worsens faster from `since` to `step` than before."""

    curve: str
    step: int
    since: int
    change: Change
    p: float
    """Corrected for the steps that were tried."""


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
    """A guard has turned where chance would turn one as flat in so many of 100 runs."""


@dataclass(frozen=True)
class Short:
    """How far the chosen step falls short of the best one of the window in a curve. `shortfall` is above 0 where it is worse."""

    curve: str
    best: int
    shortfall: Change
    allowed: float

    @property
    def passes(self) -> bool:
        """Whether it is on the plateau."""
        return self.shortfall.mean <= self.allowed


@dataclass(frozen=True)
class Choice:
    """The step, and all that led to it."""

    step: int
    window: tuple[int, ...]
    """The checkpoints before any guard turned; the first one alone where a guard turned at once."""
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
    step = whole if whole is not None else next(step for step in window if told[step][0].passes)
    return Choice(step, window, tuple(found), told[step])


def _short(curve: Curve, step: int, window: Sequence[int], rule: Rule) -> Short:
    """The shortfall of a step, and what is allowed: one standard error or the margin, capped."""
    best = curve.best(window)
    shortfall = curve.worsening(best, step)
    gained = max(0.0, curve.sign * float(curve.means[curve.at(best)] - curve.means[0]))
    unsure = 0.0 if math.isnan(shortfall.error) else rule.errors * shortfall.error
    return Short(curve.name, best, shortfall, min(max(unsure, rule.margin * gained), rule.most * gained) if gained else unsure)


def turned(curve: Curve, alpha: float = 0.05, start: int = 1) -> Turn | None:
    """The first step at which the curve is significantly worse than at its best step so far, and at no later step is it as good again; None where it never is.

    One-sided paired t tests, Bonferroni over the steps tried. Rows before `start` are not looked at: with 1 the base, from which learning itself leads away.
    """
    steps = curve.steps[start:]
    pairs = len(steps) * (len(steps) - 1) // 2
    for place in range(1, len(steps)):
        best = curve.best(steps[:place])
        p = [min(1.0, curve.worsening(best, step).p * pairs) for step in steps[place:]]
        back = any(curve.worsening(best, step).mean <= 0 for step in steps[place:])
        if p[0] < alpha and not back:
            return Turn(curve.name, steps[place], best, curve.worsening(best, steps[place]), p[0])
    return None


def bent(curve: Curve, alpha: float = 0.05) -> Turn | None:
    """The first step to which the curve worsens significantly faster than it did from its first step on; None where it never does. Bonferroni over steps."""
    inner = curve.steps[1:-1]
    for step, after in zip(inner, curve.steps[2:], strict=True):
        found = curve.faster(step)
        p = min(1.0, found.p * len(inner))
        if p < alpha and curve.worsening(step, after).mean > 0:
            return Turn(curve.name, after, step, found, p)
    return None
