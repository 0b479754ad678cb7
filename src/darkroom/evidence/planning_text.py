"""A plan in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darkroom.evidence.figures import decimals_of, number
from darkroom.jobs.readings import spoken


def plan_lines(found: Mapping[str, Any]) -> list[str]:
    """What was planned from, a table for each metric, what all of it takes together, and what a reader must know."""
    pace = "" if found["seconds_per_picture"] is None else f", {found['seconds_per_picture']:.2f} s a picture"
    lines = [
        f"From the pilot {found['pilot']}: {found['pilot_prompts']} prompts x {found['pilot_seeds']} seeds{pace}.",
        f"Prompts that see the difference with a chance of {100 * found['power']:.0f} %, at {100 * found['confidence']:.4g} % confidence after the correction "
        f"for {_counted(found['comparisons'], 'comparison')}; in brackets those that suffice in 8 of 10 cases though the pilot only estimates how scores vary.",
    ]
    for metric in dict.fromkeys(one["metric"] for one in found["plans"]):
        lines += ["", *_metric([one for one in found["plans"] if one["metric"] == metric])]
    lines += ["", *_together(found)]
    return [*lines, *(f"note: {remark}" for remark in found["remarks"])]


def _metric(plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table: a row a comparison, a column for each number of seeds."""
    seeds = sorted({design["seeds"] for one in plans for design in one.get("designs", ())})
    head = [f"{plans[0]['metric']}, {plans[0]['unit']}".strip(", "), "difference", "measured", "pilot sees", *(_counted(s, "seed") for s in seeds)]
    rows, problems = [head], []
    for one in plans:
        name = f"{one['arm']} against {one['against']}"
        if "problem" in one:
            problems.append(f"  {name}: cannot be planned: {one['problem']}.")
            continue
        places = decimals_of([one["difference"]])
        by_seeds = {design["seeds"]: design for design in one["designs"]}
        sizes = [f"{one['difference']:.{places}f} ({one['why']})", number(one["measured"], places, True), number(one["visible"], decimals_of([one["visible"]]))]
        rows.append([name, *sizes, *(_prompts(by_seeds.get(s)) for s in seeds)])
    return [*(_aligned(rows) if len(rows) > 1 else [head[0]]), *problems]


def _prompts(design: Mapping[str, Any] | None) -> str:
    if design is None:
        return "> 10,000"
    safe = design["safe_prompts"]
    return f"{design['prompts']:,} ({'> 10,000' if safe is None else f'{safe:,}'})"


def _together(found: Mapping[str, Any]) -> list[str]:
    """What sees all of it."""
    if not found["together"]:
        return ["No design sees all of these differences: name larger ones with --difference, or ask fewer comparisons."]
    rows = [["all together", "prompts", "to be safe", "pictures", "time"]]
    for one in found["together"]:
        safe = "> 10,000" if one["safe_prompts"] is None else f"{one['safe_prompts']:,}"
        cost = "not known" if one["seconds"] is None else spoken(one["seconds"])
        rows.append([_counted(one["seeds"], "seed") + " a prompt", f"{one['prompts']:,}", safe, f"{one['pictures']:,}", cost])
    here = f"This trial has {_counted(found['prompts'], 'prompt')} x {_counted(found['seeds'], 'seed')} x {_counted(found['arms'], 'arm')}"
    return [*_aligned(rows), f"{here} = {found['prompts'] * found['seeds'] * found['arms']:,} pictures."]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows]
