"""`darkroom rate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.show import Json, show


def rate_command(
    trial: Annotated[Path, typer.Argument(metavar="TRIAL", help="The folder of a trial that was run.")],
    rater: Annotated[str, typer.Option(metavar="NAME", help="Who looks, in small letters; with --sheet or --answers.")] = "",
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write one page with the rater's open pairs; it works without a network.")] = None,
    answers: Annotated[Path | None, typer.Option(metavar="FILE", help="Take in the file that the page saved.")] = None,
    pairs: Annotated[int, typer.Option(metavar="N", help="For --sheet: pairs to be shown; a tenth of them again with sides swapped.")] = 60,
    seed: Annotated[int, typer.Option(help="For --sheet: which pairs are chosen. Give every rater the same.")] = 0,
    as_json: Json = False,
) -> None:
    """Which arm do people prefer who cannot know which is which? Blind pairs to rate, and what the raters' answers say."""
    from darkroom.evidence.rate import Wish, rate, rate_lines

    told = rate(trial, Wish(rater, sheet, answers, pairs, seed))
    show(told, rate_lines(told), as_json)
