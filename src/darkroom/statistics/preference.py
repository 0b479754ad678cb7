"""Which arm do people prefer who do not know which is which? Strengths, chances, one sentence for each comparison, and each rater's side.

The answers are forced choices of two pictures, with "can't tell" allowed; the model is Davidson's (`davidson`). Prompts are the unit: many answers to one
prompt, by one rater or by several, do not pass for many independent ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.statistics.chance import holm
from darkroom.statistics.choice import Choice
from darkroom.statistics.davidson import RATERS, Davidson, fit
from darkroom.statistics.interval import Verdict

WORTH_SEEING = 0.6  # the chance to be preferred for which the answers needed are counted: two pictures of ten change sides
POWER = 0.8
SIDES_MATTER = 0.01  # p of a rater's side preference below which it is told


@dataclass(frozen=True)
class Strength:
    """How strongly an arm is preferred."""

    arm: str
    log_strength: float
    """Log odds against the mean of all arms; its interval is low to high."""
    low: float
    high: float
    chance: float
    """To be preferred to an arm of the mean strength."""


@dataclass(frozen=True)
class Preference:
    """One arm against another, by people's eyes."""

    arm: str
    against: str
    won: int
    lost: int
    ties: int
    probability: float
    """That a rater who can tell prefers the arm, whichever side it is on."""
    low: float
    high: float
    confidence: float
    p: float
    p_corrected: float
    """After Holm's correction over all comparisons rated: the verdict goes by it."""
    inflation: float
    """How many of these answers tell as much as one independent one."""
    prompts: int
    raters: int
    verdict: Verdict
    sentence: str
    notes: tuple[str, ...]

    @property
    def answers(self) -> int:
        """How many times the two were seen side by side."""
        return self.won + self.lost + self.ties


@dataclass(frozen=True)
class Side:
    """One rater's preference for the left side."""

    rater: str
    left: int
    right: int
    ties: int
    probability: float
    """That the left one of two equally good pictures is chosen."""
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Rated:
    """All that the answers say."""

    strengths: tuple[Strength, ...]
    """The strongest first."""
    preferences: tuple[Preference, ...]
    sides: tuple[Side, ...]


def prefer(choices: Sequence[Choice], contrasts: Sequence[tuple[str, str]] = (), confidence: float = 0.95) -> Rated:
    """Judge all answers together. `contrasts` are (arm, against); empty: every two arms that were seen side by side.

    Contrasts that nobody has seen side by side are left out. Raises ComparisonError (a ValueError) where all answers are to one prompt, or none is there.
    """
    model = fit(choices)
    seen = {frozenset((choice.left, choice.right)) for choice in choices}
    asked = [pair for pair in contrasts or [(one, other) for one, other in sorted(map(sorted, seen))] if frozenset(pair) in seen]
    corrected = holm([model.p(model.versus(*pair)) for pair in asked])
    preferences = tuple(_preference(model, choices, pair, p, len(asked), confidence) for pair, p in zip(asked, corrected, strict=True))
    strengths = sorted((_strength(model, arm, confidence) for arm in model.arms), key=lambda one: -one.log_strength)
    return Rated(tuple(strengths), preferences, tuple(_side(model, choices, rater, confidence) for rater in model.raters))


def answers_needed(
    probability: float = WORTH_SEEING, *, ties: float = 0.0, inflation: float = 1.0, confidence: float = 0.95, comparisons: int = 1, power: float = POWER
) -> int:  # fmt: skip
    """How many answers would show such a preference, if it is there, in `power` of cases.

    Wald's test of a log odds (Whitehead 1993); the share of ties tells nothing, dependent answers count for less, and comparisons ask for more (Bonferroni).
    """
    from scipy import special

    alpha = (1 - confidence) / comparisons
    reach = float(special.ndtri(1 - alpha / 2) + special.ndtri(power))
    odds = math.log(probability / (1 - probability))
    return math.ceil(inflation * (reach / odds) ** 2 / (probability * (1 - probability)) / max(1 - ties, 0.05))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _strength(model: Davidson, arm: str, confidence: float) -> Strength:
    direction = model.alone(arm)
    value = model.estimate(direction)
    return Strength(arm, value, *model.interval(direction, confidence), _sigmoid(value))


def _side(model: Davidson, choices: Sequence[Choice], rater: str, confidence: float) -> Side:
    answers = [choice.answer for choice in choices if choice.rater == rater]
    direction = model.side(rater)
    low, high = model.interval(direction, confidence)
    left, right, ties = (answers.count(one) for one in ("left", "right", "tie"))
    return Side(rater, left, right, ties, _sigmoid(model.estimate(direction)), _sigmoid(low), _sigmoid(high), model.p(direction))


def _preference(model: Davidson, choices: Sequence[Choice], pair: tuple[str, str], p: float, comparisons: int, confidence: float) -> Preference:
    arm, against = pair
    mine = [choice for choice in choices if {choice.left, choice.right} == {arm, against}]
    chosen = [choice.left if choice.answer == "left" else choice.right for choice in mine if choice.answer != "tie"]
    won = chosen.count(arm)
    direction = model.versus(arm, against)
    value, (low, high), inflation = model.estimate(direction), model.interval(direction, confidence), model.inflation(direction)
    verdict: Verdict = "unclear" if p >= 1 - confidence else "better" if value > 0 else "worse"
    found = Preference(
        arm, against, won, len(chosen) - won, len(mine) - len(chosen), _sigmoid(value), _sigmoid(low), _sigmoid(high), confidence, model.p(direction), p,
        inflation, len({choice.prompt for choice in mine}), len({choice.rater for choice in mine}), verdict, "", (),
    )  # fmt: skip
    return Preference(**{**vars(found), "sentence": _sentence(found, comparisons), "notes": _notes(found, model.freedom)})


def _sentence(found: Preference, comparisons: int) -> str:
    """What may be concluded, in words, with its figures."""
    interval = f"{100 * found.confidence:.4g}% interval {100 * found.low:.0f}% to {100 * found.high:.0f}%"
    by = f"over {found.prompts} prompt{'s' * (found.prompts > 1)} by {found.raters} rater{'s' * (found.raters > 1)}"
    counts = f'{found.won} to {found.lost}, and {found.ties} "can\'t tell"'
    if found.verdict != "unclear":
        return (
            f'blind rating: "{found.arm}" is {found.verdict} than "{found.against}": a rater who can tell prefers it in {100 * found.probability:.0f}% of '
            f"cases ({interval}; {found.answers} answers {by}: {counts})."
        )
    start = f'blind rating: no preference between "{found.arm}" and "{found.against}" can be seen with {found.answers} answers {by} ({interval}; {counts})'
    if found.p < 1 - found.confidence:
        start += f": taken alone its interval leaves out 50%, but among {comparisons} comparisons chance brings such a one too often"
        start += f" (corrected p = {found.p_corrected:.2g})"
    needed = answers_needed(ties=found.ties / found.answers, inflation=found.inflation, confidence=found.confidence, comparisons=comparisons)
    step = 10 ** max(0, len(str(needed)) - 2)  # "about": two digits, rounded up
    return f"{start}. To see one of {100 * WORTH_SEEING:.0f}% in 8 of 10 cases it would take about {-(-needed // step) * step:,} answers."


def _notes(found: Preference, freedom: int) -> tuple[str, ...]:
    """What the figures alone would hide."""
    notes = []
    if found.verdict != "unclear" and (found.low <= 0.5 <= found.high):
        notes.append("The interval holds 50%: look at it before you believe the verdict.")
    if found.ties > found.answers / 2:
        notes.append(f'{found.ties} of {found.answers} answers are "can\'t tell": most of the time nobody sees which is which.')
    if freedom < 5:
        notes.append(f"The answers are to {found.prompts} prompts: intervals are wide because what holds for so few need not hold for others.")
    if found.raters < RATERS:
        who = "one rater prefers" if found.raters == 1 else f"these {found.raters} raters prefer"
        notes.append(f"This is what {who}; other people may see it otherwise.")
    return tuple(notes)
