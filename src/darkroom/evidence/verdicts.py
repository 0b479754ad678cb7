"""What a trial found, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def trial_lines(result: Mapping[str, Any]) -> list[str]:
    """Every comparison's sentences; where its arms differ in more than one thing, that too; and what went wrong."""
    lines = []
    for contrast in result["contrasts"]:
        lines += [contrast["difference"]] if len(contrast["differs"]) > 1 else []
        mine = [row for row in result["comparisons"] if (row["arm"], row["against"]) == (contrast["arm"], contrast["against"])]
        for row in mine:
            lines += [row["sentence"], *(f"  {note}" for note in row["notes"])]
    lines += [f"FAULT: {fault}" for fault in result["faults"]]
    return lines + ([f"{result['seconds']:.0f} seconds in all"] if "seconds" in result else [])
