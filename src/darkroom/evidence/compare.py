"""Every comparison of a trial, judged together; what cannot be compared is said in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from darkroom.evidence.arms import Trial
from darkroom.statistics import Case, ComparisonError, Judgement, Measure, Pairs, judge

Row = dict[str, Any]
Scores = Mapping[tuple[str, str, int], float | None]
NOTHING = dict.fromkeys(("baseline_mean", "arm_mean", "mean", "low", "high", "p", "effect"))


def compare_all(trial: Trial, rows: Sequence[Row], metrics: Sequence[Mapping[str, Any]], seconds_per_picture: float | None = None) -> list[dict[str, Any]]:
    """Every comparison of the trial by every metric, judged together (Holm): the more is asked, the more must be shown.

    What cannot be compared (an arm that was not drawn, a metric that gave no numbers) is said in its place, so that the other comparisons are not lost.
    """
    found = list(cases(trial, rows, metrics))
    scores = {metric["name"]: scores_of(rows, metric["name"]) for metric in metrics}
    judged = iter(judge([case for case in found if isinstance(case, Case)], trial.confidence, len(trial.arms), seconds_per_picture))
    told = [_said(next(judged), scores[case.measure.name]) if isinstance(case, Case) else case for case in found]
    pixels = {(row["arm"], row["prompt"], row["seed"]): row.get("pixels") for row in rows}
    return [one | {"notes": [*_identical(one, pixels), *one["notes"]]} for one in told]


def cases(trial: Trial, rows: Sequence[Row], metrics: Sequence[Mapping[str, Any]]) -> Iterator[Case | dict[str, Any]]:
    """One comparison by one metric after the other; or, where there are no pairs, the comparison that says so."""
    for metric in metrics:
        scores = scores_of(rows, metric["name"])
        facts = {key: metric[key] for key in ("question", "unit", "higher_is_better") if key in metric}
        measure = Measure(metric["name"], **facts, margin=trial.margins.get(metric["name"]))
        for arm, other in trial.contrasts:
            try:
                yield Case(other, arm, measure, pairs_of(trial, scores, arm, other))
            except ComparisonError as error:
                sentence = f'{measure.name}: "{arm}" cannot be compared with "{other}": {error}.'
                yield {
                    "arm": arm, "against": other, "metric": measure.name, **NOTHING, "confidence": trial.confidence, "pairs": 0, "clusters": 0,
                    "verdict": "unclear", "sentence": sentence, "notes": [],
                }  # fmt: skip


def scores_of(rows: Sequence[Row], metric: str) -> dict[tuple[str, str, int], float | None]:
    """By (arm, prompt, seed)."""
    return {(row["arm"], row["prompt"], row["seed"]): row["scores"].get(metric) for row in rows}


def pairs_of(trial: Trial, scores: Scores, arm: str, other: str) -> Pairs:
    """What the arm gained over the other, pair by pair. Seeds that are each prompt's own are no longer the same seed for two prompts.

    Raises ComparisonError where fewer than two prompts have pairs.
    """
    keys = [(prompt, seed) for prompt in trial.prompts for seed in trial.seeds]
    control, treated = ({key: scores.get((name, *key)) for key in keys} for name in (other, arm))
    pairs = Pairs.match(control, treated, (other, arm))
    return pairs if trial.seeds_shared else replace(pairs, seeds=tuple(zip(pairs.prompt.tolist(), pairs.seeds, strict=True)))


def _said(one: Judgement, scores: Scores) -> dict[str, Any]:
    """A judgement as trial.json holds it. `wins` is the share of pairs in which the arm is better, whatever direction that is."""
    numbers = {key: float(score) for key, score in scores.items() if score is not None and math.isfinite(score)}
    both = [key[1:] for key in numbers if key[0] == one.treated and (one.control, *key[1:]) in numbers]
    means = {title: sum(numbers[name, *key] for key in both) / len(both) for title, name in (("baseline_mean", one.control), ("arm_mean", one.treated))}
    wins = (one.effect.wins, one.effect.wins_low, one.effect.wins_high)
    if not one.measure.higher_is_better:
        wins = (1 - wins[0], 1 - wins[2], 1 - wins[1])
    return {
        "arm": one.treated, "against": one.control, "metric": one.measure.name, **means, **vars(one.difference), "verdict": one.verdict,
        "sentence": one.sentence, "notes": list(one.notes), "comparisons": one.comparisons, "p_corrected": one.p_corrected,
        "p_permutation": one.sign_flip.p, "p_wilcoxon": one.wilcoxon, "bootstrap": one.bootstrap and [one.bootstrap.low, one.bootstrap.high],
        "g": [one.effect.g, one.effect.g_low, one.effect.g_high], "wins": list(wins), "margin": one.measure.margin, "p_equivalence": one.p_equivalence,
        "plan": one.plan and asdict(one.plan),
    }  # fmt: skip


def _identical(one: Mapping[str, Any], pixels: Mapping[tuple[str, str, int], str | None]) -> list[str]:
    """Pictures that are equal to the last bit, which no score can show for certain."""
    pairs = [(seen, pixels.get((one["against"], *key[1:]))) for key, seen in pixels.items() if key[0] == one["arm"]]
    compared = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
    equal = sum(mine == theirs for mine, theirs in compared)
    if not equal:
        return []
    if equal == len(compared):
        return [
            f'All {equal} pictures of "{one["arm"]}" equal those of "{one["against"]}" to the last bit: what they differ in has no effect. '
            "An adapter that was never trained, whose weight is 0, or that is made for other modules does this; so does a word that the prompt never says."
        ]
    return [f'{equal} of {len(compared)} pictures of "{one["arm"]}" equal those of "{one["against"]}" to the last bit.']
