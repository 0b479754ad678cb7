"""Do raters agree with each other, and does one agree with himself? Chance-corrected, and the preference for a side that swapped repeats reveal."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.statistics.choice import Choice
from darkroom.statistics.pairs import ComparisonError, Floats
from darkroom.values import seed_for

VALUES = (-1, 0, 1)
RESAMPLES = 999


@dataclass(frozen=True)
class Agreement:
    """Between raters, over the pairs that at least two of them answered."""

    alpha: float | None
    """Krippendorff's alpha with squared distances: 1 is perfect, 0 is chance; "can't tell" lies half-way. None where all answers are the same."""
    low: float | None
    high: float | None
    pairs: int
    raters: int
    equal: float
    """The share of equal answers, chance included."""
    kappas: dict[tuple[str, str], float | None]
    """Cohen's kappa with squared weights of each two raters."""


@dataclass(frozen=True)
class Repeats:
    """One rater's second look at pairs whose sides were swapped."""

    rater: str
    count: int
    same: int
    """How often the same arm (or "can't tell") was chosen again."""
    kappa: float | None
    left_twice: int
    """The left one both times: the side was chosen, not the picture."""
    right_twice: int
    p: float
    """Of an even split of those, an exact binomial test."""


def krippendorff(units: Iterable[Sequence[float]], nominal: bool = False) -> float | None:
    """Krippendorff's alpha (2011) of units that several observers gave values to; nominal, or with squared distances. None where nothing varies."""
    listed = [list(unit) for unit in units]
    values = tuple(sorted({value for unit in listed if len(unit) > 1 for value in unit}))
    return _alpha(sum((_coincidences(unit, values) for unit in listed), np.zeros((len(values), len(values)))), values, nominal)


def cohen(first: Sequence[float], second: Sequence[float], squared: bool = False) -> float | None:
    """Cohen's kappa (1960) of two lists of values, or with squared weights (1968). None where both only ever said one and the same value."""
    if len(first) != len(second):
        raise ComparisonError(f"{len(first)} values and {len(second)}: agreement needs as many of each")
    one, two = np.asarray(first, float), np.asarray(second, float)

    def apart(a: Floats, b: Floats) -> float:
        return float(((a - b) ** 2 if squared else (a != b)).mean()) if len(one) else 0.0

    expected = apart(one[:, None], two[None, :])
    return 1 - apart(one, two) / expected if expected else None


def between(choices: Sequence[Choice], confidence: float = 0.95, seed: int = 0) -> Agreement | None:
    """Agreement between raters on their first looks, with a percentile bootstrap over prompts; None where no two answered the same pair."""
    answers: dict[Hashable, dict[str, Choice]] = defaultdict(dict)
    for choice in choices:
        if not choice.again:
            answers[choice.pair][choice.rater] = choice
    shared = [by_rater for by_rater in answers.values() if len(by_rater) > 1]
    if not shared:
        return None
    tables: dict[Hashable, Floats] = defaultdict(lambda: np.zeros((3, 3)))
    for by_rater in shared:
        tables[next(iter(by_rater.values())).prompt] += _coincidences([choice.value for choice in by_rater.values()], VALUES)
    whole = sum(tables.values(), np.zeros((3, 3)))
    low, high = _spread(np.array(list(tables.values())), confidence, seed)
    raters = sorted({rater for by_rater in shared for rater in by_rater})
    kappas = {two: _kappa_of(shared, two) for two in itertools.combinations(raters, 2) if any(set(two) <= by_rater.keys() for by_rater in shared)}
    return Agreement(_alpha(whole, VALUES), low, high, len(shared), len(raters), float(np.trace(whole) / whole.sum()), kappas)


def within(choices: Sequence[Choice]) -> list[Repeats]:
    """What each rater answered again, rater by rater; those without repeats are left out."""
    from scipy import stats

    found = []
    for rater in sorted({choice.rater for choice in choices}):
        first = {choice.pair: choice for choice in choices if choice.rater == rater and not choice.again}
        twice = [(first[choice.pair], choice) for choice in choices if choice.rater == rater and choice.again and choice.pair in first]
        twice = [(one, two) for one, two in twice if one.left == two.right]
        if not twice:
            continue
        kappa = cohen([one.value for one, _ in twice], [two.value for _, two in twice], squared=True)
        left, right = (sum(one.answer == two.answer == side for one, two in twice) for side in ("left", "right"))
        p = float(stats.binomtest(left, left + right).pvalue) if left + right else 1.0
        found.append(Repeats(rater, len(twice), sum(one.value == two.value for one, two in twice), kappa, left, right, p))
    return found


def _kappa_of(shared: Sequence[dict[str, Choice]], two: tuple[str, str]) -> float | None:
    both = [[by_rater[rater].value for rater in two] for by_rater in shared if set(two) <= by_rater.keys()]
    return cohen([one for one, _ in both], [other for _, other in both], squared=True)


def _coincidences(unit: Sequence[float], values: Sequence[float]) -> Floats:
    """(values, values) how often two observers of a unit said these two, each pair of observers weighing 1 / (observers - 1)."""
    counts = np.array([unit.count(value) for value in values], float)
    if len(unit) < 2:
        return np.zeros((len(values), len(values)))
    table: Floats = (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return table


def _alpha(table: Floats, values: Sequence[float], nominal: bool = False) -> float | None:
    """1 less what was seen of disagreement over what chance would bring."""
    apart = np.subtract.outer(values, values).astype(float) ** 2
    apart = (apart > 0).astype(float) if nominal else apart
    totals = table.sum(0)
    expected = float(totals @ apart @ totals)
    return 1 - (totals.sum() - 1) * float((table * apart).sum()) / expected if expected else None


def _spread(tables: Floats, confidence: float, seed: int) -> tuple[float | None, float | None]:
    """(prompts, 3, 3) -> the percentile interval over resampled prompts; none where prompts are fewer than 4 or too few resamples vary."""
    k = len(tables)
    if k < 4:
        return None, None
    random = np.random.default_rng(seed_for(seed, "agreement", k))
    counts = random.multinomial(k, np.full(k, 1 / k), size=RESAMPLES)
    drawn = [alpha for table in np.tensordot(counts, tables, (1, 0)) if (alpha := _alpha(table, VALUES)) is not None]
    if len(drawn) < RESAMPLES / 2:
        return None, None
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
