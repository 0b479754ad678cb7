"""What the blind ratings of a trial say: who is preferred, how sure that is, whether raters agree, and whether the automatic metrics saw the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkroom.evidence.answers import answers_file, raters, read_answers
from darkroom.evidence.rating import contrasts_of, open_trial, seal
from darkroom.files import sha256_file
from darkroom.statistics import ComparisonError
from darkroom.statistics.agreement import Agreement, Repeats, between, within
from darkroom.statistics.choice import Choice
from darkroom.statistics.preference import SIDES_MATTER, Preference, Rated, Side, prefer

OPPOSITE = {("better", "worse"), ("worse", "better")}
SHAKY = (5, 0.6)  # repeats from which on, and the share of equal answers below which, a rater's answers are called shaky


def rated(trial_folder: Path, result: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """All of it as plain facts; None where nobody has rated. `result` is what trial.json holds, where it is read already.

    Answers to pictures that were changed since are left out, and "notes" say so. What keeps the answers from being judged is said under "faults". Raises
    RunError where the folder is no trial's or a rater's file cannot be read.
    """
    result = result if result is not None else open_trial(trial_folder)
    choices, notes = _choices(trial_folder, result)
    if not choices and not notes:
        return None
    told: dict[str, Any] = {
        "answers": len(choices),
        "prompts": len({choice.prompt for choice in choices}),
        "comparisons": [],
        "strengths": [],
        "faults": [],
        "notes": [],
    }
    confidence = next((row["confidence"] for row in result["comparisons"] if row.get("confidence")), 0.95)
    sides: tuple[Side, ...] = ()
    try:
        found = prefer(choices, contrasts_of(result), confidence)
        told |= _judged(found, result)
        sides = found.sides
    except ComparisonError as error:
        told["faults"] = [f"The blind ratings cannot be judged: {error}."]
    agreement, repeats = between(choices, confidence), within(choices)
    return told | {
        "agreement": agreement and {**asdict(agreement), "kappas": [{"raters": list(two), "kappa": kappa} for two, kappa in agreement.kappas.items()]},
        "agreement_sentence": agreed(agreement),
        "raters": [_rater(name, choices, sides, repeats) for name in sorted({choice.rater for choice in choices})],
        "notes": [*told["notes"], *notes, *_notes(sides, repeats)],
    }


def _choices(folder: Path, result: Mapping[str, Any]) -> tuple[list[Choice], list[str]]:
    """Every answer that stands and whose pictures are still those that were looked at; and what is left out, in words."""
    files = {(row["arm"], row["prompt"], row["seed"]): row["file"] for row in result["pictures"]}
    hashes: dict[str, str] = {}
    choices, notes = [], []
    for rater in raters(folder):
        found, changed = read_answers(answers_file(folder, rater)), 0
        for said in found.standing.values():
            two = [files.get((said[side], said["prompt"], said["seed"])) for side in ("left", "right")]
            if None in two or seal(*(_hash(folder / str(file), hashes) for file in two)) != said["seal"]:
                changed += 1
                continue
            choices.append(Choice(said["left"], said["right"], said["answer"], said["prompt"], rater, said["seed"], said["again"]))
        if changed:
            notes.append(f"{changed} answer{'s' * (changed > 1)} of {rater} {'are' if changed > 1 else 'is'} left out: the pictures were changed since.")
        if found.broken:
            notes.append(f"{found.broken} line{'s' * (found.broken > 1)} in {rater}.jsonl {'are' if found.broken > 1 else 'is'} no answer and left out.")
    return choices, notes


def _hash(file: Path, hashes: dict[str, str]) -> str:
    key = str(file)
    if key not in hashes:
        hashes[key] = sha256_file(file) if file.is_file() else ""
    return hashes[key]


def _judged(found: Rated, result: Mapping[str, Any]) -> dict[str, Any]:
    """Notes that are every comparison's are told once."""
    several = len(found.preferences) > 1
    shared = [note for note in found.preferences[0].notes if several and all(note in one.notes for one in found.preferences)] if found.preferences else []
    return {
        "notes": shared,
        "strengths": [asdict(one) for one in found.strengths],
        "comparisons": [
            {
                **asdict(one),
                "notes": [note for note in one.notes if note not in shared],
                "answers": one.answers,
                **_beside(one, result["comparisons"], result["baseline"]),
            }
            for one in found.preferences
        ],
    }


def _beside(one: Preference, comparisons: Sequence[Mapping[str, Any]], baseline: str) -> dict[str, Any]:
    """What the automatic metrics say of the same two arms, and whether that is what people see."""
    mine = [row for row in comparisons if (row["arm"], row.get("against", baseline)) == (one.arm, one.against)]
    metrics = [{"metric": row["metric"], "verdict": row["verdict"], "agrees": _agrees(one.verdict, row["verdict"])} for row in mine]
    said = [f"{row['metric']} {_word(one.verdict, row['verdict'])}" for row in mine]
    sentence = f"Beside it, of the same pictures: {', '.join(said)}." if said else ""
    return {"metrics": metrics, "metrics_sentence": sentence}


def _agrees(eyes: str, metric: str) -> bool | None:
    """None where one of the two sees nothing."""
    return True if eyes == metric and eyes in ("better", "worse") else False if (eyes, metric) in OPPOSITE else None


def _word(eyes: str, metric: str) -> str:
    match _agrees(eyes, metric):
        case True:
            return f"says the same ({metric})"
        case False:
            return f"says the opposite ({metric})"
    return {"unclear": "sees no difference", "equivalent": "calls them equivalent"}.get(metric, f"says {metric}")


def agreed(agreement: Agreement | None) -> str:
    """Agreement between raters in a sentence; empty where there was nobody to agree with."""
    if agreement is None:
        return ""
    who = f"{agreement.raters} raters gave equal answers to {100 * agreement.equal:.0f}% of the {agreement.pairs} pairs that more than one of them saw"
    if agreement.alpha is None:
        return f"{who}; they all said one and the same, so that agreement beyond chance cannot be known."
    spread = "" if agreement.low is None else f", {agreement.low:.2f} to {agreement.high:.2f}"
    return f"{who} (Krippendorff's alpha {agreement.alpha:.2f}{spread}; 0 is chance, 1 is perfect)."


def _rater(name: str, choices: Sequence[Choice], sides: Sequence[Side], repeats: Sequence[Repeats]) -> dict[str, Any]:
    mine = [choice for choice in choices if choice.rater == name]
    return {
        "rater": name,
        "answers": len(mine),
        "ties": sum(choice.answer == "tie" for choice in mine),
        "side": next((asdict(side) for side in sides if side.rater == name), None),
        "repeats": next((asdict(one) for one in repeats if one.rater == name), None),
    }


def _notes(sides: Sequence[Side], repeats: Sequence[Repeats]) -> list[str]:
    """What raters did that a reader must know."""
    notes = []
    for side in sides:
        if side.p < SIDES_MATTER:
            which, chance = ("left", side.probability) if side.probability > 0.5 else ("right", 1 - side.probability)
            notes.append(
                f"{side.rater} takes the {which} one of two equally good pictures in {100 * chance:.0f}% of cases (p = {side.p:.2g}). Arms are on both sides "
                "equally often, so that none gains by it; but such answers tell less."
            )
    for one in repeats:
        if one.count >= SHAKY[0] and one.same < SHAKY[1] * one.count:
            notes.append(f"{one.rater} answered only {one.same} of {one.count} repeated pairs as the first time: these answers are shaky.")
    return notes


def rated_lines(facts: Mapping[str, Any]) -> list[str]:
    """The same for a terminal."""
    lines = [*facts["faults"]]
    for one in facts["comparisons"]:
        lines += [one["sentence"], *(f"  {note}" for note in (one["metrics_sentence"], *one["notes"]) if note)]
    if len(facts["strengths"]) > 2:
        lines += ["strongest first: " + ", ".join(f'"{one["arm"]}" {one["log_strength"]:+.2f}' for one in facts["strengths"]) + " (log odds)"]
    lines += [facts["agreement_sentence"]] if facts["agreement_sentence"] else []
    lines += [_rater_line(one) for one in facts["raters"]]
    return [*lines, *(f"note: {note}" for note in facts["notes"])]


def _rater_line(one: Mapping[str, Any]) -> str:
    text = f'{one["rater"]}: {one["answers"]} answers, {one["ties"]} of them "can\'t tell"'
    again = one["repeats"]
    return text + (f"; {again['same']} of {again['count']} repeated pairs answered alike" if again else "")
