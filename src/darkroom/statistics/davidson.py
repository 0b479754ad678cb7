"""How strongly is each arm preferred? Bradley-Terry strengths with ties, from answers that are not independent of each other.

Davidson's model of ties (1970), with a preference for a side (Davidson & Beaver 1977), each rater with both of his own. Of a pair with log strengths a (left)
and b (right), and with the rater's side preference d and habit of ties h, the answers have the utilities

    left (a - b + d) / 2        right -(a - b + d) / 2        can't tell h

and a softmax makes chances of them. Davidson and not Rao-Kupper (1967): it is linear in its parameters, so that the likelihood is concave and has one top; the
chance among those who can tell, sigmoid(a - b), does not depend on how often raters cannot; without ties it is Bradley-Terry to the letter; and a tie counts as
half a win for either side in the sufficient statistics, which is what people expect of a tie.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.choice import ANSWERS, Choice
from darkroom.statistics.pairs import ComparisonError, Floats

PRIOR = 2.0
"""Standard deviation of the normal prior on every parameter, in log odds. It keeps separable answers finite (10 wins of 10 become a chance of 0.96, as half a
win more on either side would) and moves 35 of 50 by 0.002."""
RATERS = 5  # from so many on, raters are a sample of people and widen the intervals; fewer are taken as they are


@dataclass(frozen=True, eq=False)
class Davidson:
    """The fitted model. Parameters: the arms' log strengths, the raters' side preferences, and the habits of ties of those raters who ever said one."""

    arms: tuple[str, ...]
    raters: tuple[str, ...]
    design: Floats
    """(cells, 3, parameters): the utility of each answer in a cell of (left arm, right arm, rater)."""
    allowed: Floats
    """(cells, 3): 0, or -inf where a rater who never says "can't tell" does not."""
    counts: Floats
    """(cells, 3): how often each was answered."""
    clusters: tuple[Floats, ...]
    """(clusters, cells, 3) the same by prompt; and from RATERS raters on by rater, and by both."""
    top: Floats
    """(parameters,) where the likelihood with its prior is largest."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom of intervals: one less than the prompts (and the raters, where they count as a sample)."""
        return min(len(table) for table in self.clusters) - 1

    def versus(self, arm: str, other: str) -> Floats:
        """The direction of one log strength less another."""
        return self._unit(self.arms.index(arm)) - self._unit(self.arms.index(other))

    def alone(self, arm: str) -> Floats:
        """The direction of an arm's log strength less the arms' mean."""
        direction = self._unit(self.arms.index(arm))
        direction[: len(self.arms)] -= 1 / len(self.arms)
        return direction

    def side(self, rater: str) -> Floats:
        """The direction of a rater's preference for the left."""
        return self._unit(len(self.arms) + self.raters.index(rater))

    def _unit(self, place: int) -> Floats:
        direction = np.zeros(len(self.top))
        direction[place] = 1.0
        return direction

    def estimate(self, direction: Floats) -> float:
        """In log odds."""
        return float(direction @ self.top)

    def interval(self, direction: Floats, confidence: float = 0.95) -> tuple[float, float]:
        """Where the profile likelihood, adjusted for clusters (see `inflation`), stays near its top: not symmetric, and finite for separable answers too."""
        from scipy import optimize, special

        reach = float(special.stdtrit(self.freedom, (1 + confidence) / 2))
        center = self.estimate(direction)
        inflation = self.inflation(direction)
        step = reach * math.sqrt(inflation * self._variance(direction))

        def over(value: float) -> float:
            return math.sqrt(self.deviance(direction, value) / inflation) - reach

        ends = []
        for way in (-1, 1):
            far = next(center + way * step * 2**i for i in range(60) if over(center + way * step * 2**i) > 0)
            ends.append(float(optimize.brentq(over, center, far, xtol=1e-8)))
        return ends[0], ends[1]

    def p(self, direction: Floats, value: float = 0.0) -> float:
        """The two-sided p of that value, by the same profile likelihood."""
        from scipy import special

        return 2 * float(special.stdtr(self.freedom, -math.sqrt(self.deviance(direction, value) / self.inflation(direction))))

    def deviance(self, direction: Floats, value: float) -> float:
        """Twice what is lost in log likelihood where the direction is held at that value and all else does its best; not yet adjusted for clusters."""
        push = np.linalg.solve(_bend(self, self.top), direction)
        start = self.top + (value - self.estimate(direction)) * push / (direction @ push)
        lost = _height(self, self.top) - _height(self, _climb(self, start, direction))
        return max(0.0, 2 * lost)

    def inflation(self, direction: Floats) -> float:
        """How much less than so many independent answers these ones tell: the deviance is divided by it (Chandler & Bate 2007, eq. 8, in one dimension).

        The sandwich variance over the naive one, with whole prompts as units (from 5 raters on, prompts and raters: Cameron, Gelbach & Miller 2011). Never
        below 1: where all answers agree the sandwich is flat, and nobody should believe it.
        """
        push = np.linalg.solve(_bend(self, self.top), direction)
        slopes = _slopes(self, self.top) @ push
        found = [self._robust(table, slopes) for table in self.clusters]
        robust = max(found[0], found[1], found[0] + found[1] - found[2]) if len(found) > 1 else found[0]
        return max(1.0, robust / float(direction @ push))

    def _robust(self, table: Floats, slopes: Floats) -> float:
        sums = np.tensordot(table, slopes, ((1, 2), (0, 1)))
        return float((sums**2).sum()) * len(table) / (len(table) - 1)

    def _variance(self, direction: Floats) -> float:
        return float(direction @ np.linalg.solve(_bend(self, self.top), direction))


def fit(choices: Sequence[Choice]) -> Davidson:
    """Maximum likelihood with the prior. Raises ComparisonError (a ValueError) for no answers, and where they are all to one prompt."""
    if len({choice.prompt for choice in choices}) < 2:
        what = f'{len(choices)} answers to one prompt only, "{choices[0].prompt}"' if choices else "there is no answer yet"
        raise ComparisonError(f"{what}: how much a preference varies from prompt to prompt cannot be known; rate pairs of at least two prompts")
    arms = tuple(sorted({arm for choice in choices for arm in (choice.left, choice.right)}))
    raters = tuple(sorted({choice.rater for choice in choices}))
    cells = sorted({(choice.left, choice.right, choice.rater) for choice in choices})
    undecided = sorted({choice.rater for choice in choices if choice.answer == "tie"})
    design, allowed = np.zeros((len(cells), 3, len(arms) + len(raters) + len(undecided))), np.zeros((len(cells), 3))
    for row, (left, right, rater) in enumerate(cells):
        for way, half in ((0, 0.5), (1, -0.5)):
            design[row, way, [arms.index(left), len(arms) + raters.index(rater)]] = half
            design[row, way, arms.index(right)] = -half
        if rater in undecided:
            design[row, 2, len(arms) + len(raters) + undecided.index(rater)] = 1
        else:
            allowed[row, 2] = -np.inf
    units: list[list[Hashable]] = [[choice.prompt for choice in choices]]
    if len(raters) >= RATERS:
        units += [[choice.rater for choice in choices], [(choice.prompt, choice.rater) for choice in choices]]
    clusters = tuple(_table(choices, cells, of) for of in units)
    start = Davidson(arms, raters, design, allowed, clusters[0].sum(0), clusters, np.zeros(design.shape[2]))
    return Davidson(arms, raters, design, allowed, start.counts, clusters, _climb(start, start.top))


def _table(choices: Sequence[Choice], cells: Sequence[tuple[str, str, str]], units: Sequence[Hashable]) -> Floats:
    """(units, cells, 3) how often each was answered."""
    places, rows = {unit: i for i, unit in enumerate(dict.fromkeys(units))}, {cell: i for i, cell in enumerate(cells)}
    table = np.zeros((len(places), len(cells), 3))
    for choice, unit in zip(choices, units, strict=True):
        table[places[unit], rows[choice.left, choice.right, choice.rater], ANSWERS.index(choice.answer)] += 1
    return table


def _chances(model: Davidson, theta: Floats) -> Floats:
    """(cells, 3) logarithms."""
    utility = model.design @ theta + model.allowed
    peak = utility.max(1, keepdims=True)
    logs: Floats = utility - peak - np.log(np.exp(utility - peak).sum(1, keepdims=True))
    return logs


def _height(model: Davidson, theta: Floats) -> float:
    """The log likelihood with its prior."""
    logs = np.where(model.counts > 0, _chances(model, theta), 0.0)
    return float((model.counts * logs).sum() - (theta**2).sum() / (2 * PRIOR**2))


def _slopes(model: Davidson, theta: Floats) -> Floats:
    """(cells, 3, parameters) the score of one answer of each kind."""
    chance = np.exp(_chances(model, theta))
    slopes: Floats = model.design - np.einsum("ca,cap->cp", chance, model.design)[:, None]
    return slopes


def _bend(model: Davidson, theta: Floats) -> Floats:
    """(parameters, parameters) the information, the prior's included."""
    slopes = _slopes(model, theta)
    weights = np.exp(_chances(model, theta)) * model.counts.sum(1, keepdims=True)
    bend: Floats = np.einsum("ca,cap,caq->pq", weights, slopes, slopes) + np.eye(len(theta)) / PRIOR**2
    return bend


def _climb(model: Davidson, theta: Floats, held: Floats | None = None) -> Floats:
    """Newton's method to the top; with `held`, to the highest point where held @ theta stays what it is. The likelihood is concave: there is one."""
    for _ in range(200):
        slope = np.einsum("ca,cap->p", model.counts, _slopes(model, theta)) - theta / PRIOR**2
        bend = _bend(model, theta)
        step = np.linalg.solve(bend, slope)
        if held is not None:
            push = np.linalg.solve(bend, held)
            step = step - push * (held @ step) / (held @ push)
        if slope @ step < 1e-14:
            return theta
        here = _height(model, theta)
        while _height(model, theta + step) < here - 1e-12 * abs(here):
            step = step / 2
        theta = theta + step
    raise AssertionError("a concave likelihood was not climbed in 200 steps")
