"""What every command shares: its options and the way it shows a result."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from darkroom.files import finite, told

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set any key of the recipe; may be given several times.")]


def show(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The result on standard output, as JSON or in words; what lies in a working copy is called by its address."""
    print(told(json.dumps(finite(result), ensure_ascii=False, default=str, allow_nan=False) if as_json else "\n".join(lines)))


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    """The value where it is known. Raises RecipeError."""
    from darkroom.errors import RecipeError, did_you_mean

    if value not in known:
        raise RecipeError(f'{option} "{value}" is not known.{did_you_mean(value, known)} Known: {", ".join(known)}.')
    return value
