"""The verdict: one sentence that says better, worse, equivalent, or that no difference can be seen, and what it would take to see one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom.statistics.chance import SignFlip, holm, sign_flip, wilcoxon
from darkroom.statistics.effect import Effect, effect_size
from darkroom.statistics.equivalent import Equivalence, equivalence
from darkroom.statistics.interval import Difference, Interval, Verdict, bootstrap, student
from darkroom.statistics.pairs import Pairs
from darkroom.statistics.plan import Plan, plan
from darkroom.statistics.variance import seed_effect

SEEDS_MATTER = 0.01  # p of the seeds' own effect below which it is told


@dataclass(frozen=True)
class Measure:
    """What was asked of the pictures."""

    name: str
    question: str = ""
    unit: str = ""
    higher_is_better: bool = True
    margin: float | None = None
    """The largest difference that still counts as equal, in the unit; None: nothing is ever called equivalent."""


@dataclass(frozen=True, eq=False)
class Case:
    """One comparison to be judged: an arm against another in one measure."""

    control: str
    treated: str
    measure: Measure
    pairs: Pairs


@dataclass(frozen=True)
class Judgement:
    """All that is known of one comparison."""

    control: str
    treated: str
    measure: Measure
    difference: Difference
    bootstrap: Interval | None
    """A second interval; None where prompts are too few for it."""
    p_corrected: float
    """Student's p after Holm's correction over the whole family: the verdict goes by it."""
    sign_flip: SignFlip
    wilcoxon: float
    effect: Effect
    equivalence: Equivalence | None
    p_equivalence: float | None
    """Of the equivalence, after Holm's correction over all comparisons with a margin."""
    comparisons: int
    """How many were judged together."""
    plan: Plan | None
    """What it would take; None where nothing was measured that could be planned for."""
    verdict: Verdict
    sentence: str
    notes: tuple[str, ...]
    """What a reader must know beside the sentence."""


def judge(cases: Sequence[Case], confidence: float = 0.95, arms: int = 2, seconds_per_picture: float | None = None) -> list[Judgement]:
    """Judge all comparisons of a trial together: the more is asked, the more must be shown (Holm 1979).

    An arm is better or worse where the corrected p of Student's test over prompts is below 1 - confidence; equivalent where a margin is stated and both
    one-sided tests say that the true difference is smaller. Else no difference can be seen, and the sentence says how many pairs it would take to see the
    margin, or where none is stated the difference measured. `arms` and `seconds_per_picture` are for the plan's costs.
    """
    found = [student(case.pairs, confidence) for case in cases]
    corrected = holm([difference.p for difference in found])
    equal = [None if case.measure.margin is None else equivalence(case.pairs, case.measure.margin, confidence) for case in cases]
    equal_p = iter(holm([one.p for one in equal if one]))
    judged = []
    for case, difference, p, same in zip(cases, found, corrected, equal, strict=True):
        planned = _planned(case, difference, confidence, len(cases), arms, seconds_per_picture)
        judged.append(_judgement(case, difference, p, same, next(equal_p) if same else None, planned, len(cases)))
    return judged


def _planned(case: Case, found: Difference, confidence: float, comparisons: int, arms: int, seconds: float | None) -> Plan | None:
    wanted = case.measure.margin or abs(found.mean)
    if case.pairs.flat or not wanted:
        return None
    return plan(case.pairs, wanted, confidence=confidence, comparisons=comparisons, arms=arms, seconds_per_picture=seconds)


def _judgement(
    case: Case, found: Difference, p: float, same: Equivalence | None, p_same: float | None, planned: Plan | None, comparisons: int
) -> Judgement:  # fmt: skip
    alpha = 1 - found.confidence
    verdict = _verdict(found, p < alpha, p_same is not None and p_same < alpha, case.measure.higher_is_better)
    second, flips = bootstrap(case.pairs, found.confidence), sign_flip(case.pairs)
    return Judgement(
        case.control, case.treated, case.measure, found, second, p, flips, wilcoxon(case.pairs), effect_size(case.pairs, found.confidence), same, p_same,
        comparisons, planned, verdict, _sentence(case, verdict, found, p, same, comparisons, planned), _notes(case, verdict, second, flips, alpha),
    )  # fmt: skip


def _verdict(difference: Difference, seen: bool, equal: bool, higher_is_better: bool) -> Verdict:
    if equal:
        return "equivalent"
    if not seen:
        return "unclear"
    return "better" if (difference.mean > 0) == higher_is_better else "worse"


def _sentence(case: Case, verdict: Verdict, found: Difference, p: float, same: Equivalence | None, comparisons: int, planned: Plan | None) -> str:
    """The metric and its question, then the verdict with its figures."""
    measure, places = case.measure, decimals(found.high - found.low, found.mean)
    asked = f"{measure.name} ({measure.question})" if measure.question else measure.name
    basis = f"{found.pairs} pairs over {found.clusters} prompts"
    interval = f"{100 * found.confidence:.4g}% interval {found.low:+.{places}f} to {found.high:+.{places}f}"
    match verdict:
        case "better" | "worse":
            way, wish = ("higher" if found.mean > 0 else "lower"), ("higher" if measure.higher_is_better else "lower")
            size = f"{abs(found.mean):.{places}f} {measure.unit}".strip()
            return f'{asked}: "{case.treated}" is {verdict} than "{case.control}": {way} by {size} ({interval}; {basis}; {wish} is better).'
        case "equivalent":
            assert same is not None
            margin = f"{same.margin:g} {measure.unit}".strip()
            narrow = f"{100 * same.confidence:.4g}% interval {same.low:+.{places}f} to {same.high:+.{places}f}"
            seen = f"a difference of {found.mean:+.{places}f} can be seen, and it" if p < 1 - found.confidence else "any difference"
            return f'{asked}: "{case.treated}" and "{case.control}" are equivalent: {seen} is smaller than {margin} ({narrow}; {basis}).'
        case "unclear":
            return f"{asked}: {_unseen(case, found, p, comparisons, interval, basis)} {_wanted(case, planned, places)}".rstrip()


def _unseen(case: Case, found: Difference, p: float, comparisons: int, interval: str, basis: str) -> str:
    if case.pairs.same:
        return f'"{case.treated}" and "{case.control}" scored exactly the same in all {basis}: no difference can be seen, and none was measured.'
    start = f'no difference between "{case.treated}" and "{case.control}" can be seen with {basis} ({interval} {case.measure.unit}'.rstrip() + ")"
    if found.p < 1 - found.confidence:
        return (
            f"{start}: taken alone its interval leaves out 0, but among {comparisons} comparisons chance brings such a one too often (corrected p = {p:.2g})."
        )
    return f"{start}."


def _wanted(case: Case, planned: Plan | None, places: int) -> str:
    """What it would take to see one, in words."""
    if planned is None:
        return ""
    unit, here = case.measure.unit, planned.here or planned.fewest
    what = "the margin" if case.measure.margin else "the one measured"
    size = f"{planned.difference:.{max(places, decimals(planned.difference))}f} {unit}".strip()
    seen = f"This trial would have shown a true difference of {planned.visible:.{decimals(planned.visible)}f} {unit}".strip() + " in 8 of 10 cases."
    if here is None:
        return f"{seen} One as small as {what} ({size}) would not be seen with 10,000 prompts either."
    step = 10 ** max(0, len(str(here.prompts)) - 2)  # "about": two digits, rounded up
    prompts = -(-here.prompts // step) * step
    design = f"{prompts * here.seeds:,} pairs ({prompts:,} prompts x {here.seeds} seed{'s' * (here.seeds > 1)})"
    return f"{seen} To see one as small as {what} ({size}) it would take about {design}."


def _notes(case: Case, verdict: Verdict, second: Interval | None, flips: SignFlip, alpha: float) -> tuple[str, ...]:
    """What the figures alone would hide."""
    pairs, notes = case.pairs, list(case.pairs.left_out)
    if pairs.left_out:
        notes[0] += ". Where a picture is missing because of what an arm drew, the comparison flatters that arm."
    if pairs.same:
        notes.append(
            "Every pair scored exactly the same: the arms drew the same pictures (an adapter that changes nothing?), or this metric cannot tell them apart."
        )
    elif pairs.flat:
        notes.append("Every prompt gained exactly the same, so that there is no spread to judge by: look whether the scorer answers with a constant.")
    if verdict in ("better", "worse") and second and second.low <= 0 <= second.high:
        notes.append("The bootstrap interval holds 0: the verdict rests on few prompts or on skewed scores.")
    if verdict in ("better", "worse") and flips.smallest >= alpha:
        notes.append(f"With {pairs.k} prompts a permutation test cannot give less than p = {flips.smallest:.2g}: it can neither confirm nor deny the verdict.")
    elif verdict in ("better", "worse") and flips.p >= alpha:
        notes.append(f"The permutation test does not confirm it (p = {flips.p:.2g}).")
    seeds = seed_effect(pairs)
    if seeds is not None and seeds < SEEDS_MATTER:
        count = len(set(pairs.seeds))
        allowed = "The verdict allows for it" if count >= 4 else f"The verdict allows for it as far as {count} seeds can tell"
        notes.append(f"Some seeds favour one arm whatever the prompt (p = {seeds:.2g}). {allowed}; more than {count} would make it surer.")
    return tuple(notes)


def decimals(*sizes: float) -> int:
    """Decimals that show the first size that is not 0 with two digits; 2 where there is none."""
    size = next((abs(size) for size in sizes if size and math.isfinite(size)), 0.0)
    return min(8, max(0, 1 - math.floor(math.log10(size)))) if size else 2
