"""The job behind `darkroom rate`: a sheet out, answers in, and what all answers say, into the trial's own report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError, RunError
from darkroom.evidence.answers import ratings_folder
from darkroom.evidence.rated import rated, rated_lines
from darkroom.evidence.rating import PAIRS, open_session, open_trial
from darkroom.evidence.rating_sheet import take_answers, write_sheet
from darkroom.files import write_json, write_text


@dataclass(frozen=True)
class Wish:
    """What is to be done."""

    rater: str = ""
    sheet: Path | None = None
    """Where the page with the rater's open pairs goes."""
    answers: Path | None = None
    """A filled-in sheet's file, to be taken in."""
    pairs: int = PAIRS
    seed: int = 0


def rate(trial_folder: Path, wish: Wish) -> dict[str, Any]:
    """Take answers in, write a sheet, or say what was rated: ratings/summary.json and report.html are written anew whenever there are answers.

    Returns {"taken": ..., "sheet": ..., "rated": ...}, each where it was done. Raises RecipeError for options that do not go together, RunError for a folder
    that is no trial's, a file that is none of a sheet's, or where there is nothing to do.
    """
    if bool(wish.rater) != bool(wish.sheet or wish.answers):
        raise RecipeError(
            f"--rater {wish.rater}: say what to do: --sheet ann.html makes a page to rate with, --answers FILE takes its answers in." if wish.rater else
            "--sheet and --answers are somebody's: name the rater, for example --rater ann."
        )  # fmt: skip
    told: dict[str, Any] = {"trial": str(trial_folder)}
    if wish.answers:
        told["taken"] = take_answers(trial_folder, wish.rater, wish.answers)
    if wish.sheet:
        session = open_session(trial_folder, wish.rater, wish.pairs, wish.seed)
        told["sheet"] = {"file": str(wish.sheet), **write_sheet(session, wish.sheet)}
    if wish.answers or not wish.sheet:
        told["rated"] = _publish(trial_folder)
    return told


def _publish(folder: Path) -> dict[str, Any]:
    """Judge all answers, and write the summary and the report."""
    from darkroom.evidence.report import render

    result = open_trial(folder)
    facts = rated(folder, result)
    if facts is None:
        raise RunError(f"{folder}: nobody has rated it yet. Make a page to rate with: darkroom rate {folder} --rater ann --sheet ann.html")
    write_json(ratings_folder(folder) / "summary.json", facts)
    write_text(folder / "report.html", render(result, folder))
    return facts


def rate_lines(told: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    lines = []
    if taken := told.get("taken"):
        lines += [f"{taken['new']} new answers taken in, {taken['changed']} changed, {taken['known']} were there already."]
        lines += [f"REFUSED: the pictures were changed since they were looked at: {pair}" for pair in taken["refused"]]
    if sheet := told.get("sheet"):
        done = f" ({sheet['answered']} are answered already)" if sheet["answered"] else ""
        lines += [
            f"sheet   {Path(sheet['file']).resolve()}: {sheet['pairs']} pairs{done}, {sheet['bytes'] / 1e6:.1f} MB. Open it in a browser; it needs no network."
        ]
    if facts := told.get("rated"):
        lines += [*rated_lines(facts), f"report  {(Path(told['trial']) / 'report.html').resolve()}"]
    return lines
