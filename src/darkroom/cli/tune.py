"""`darkroom tune-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.show import Device, Json, show


def tune_command(
    trial: Annotated[Path, typer.Option(metavar="SMALL.toml", help="Prompts, seeds, metrics and reference as of a trial, without arms; [tune] if wanted.")],
    adapter: Annotated[list[str] | None, typer.Option(metavar="FILE[:WEIGHT]", help="Several times; WEIGHT is where the search begins (1).")] = None,
    per_block: Annotated[bool, typer.Option("--per-block", help="Three weights an adapter: the U-Net's input, middle and output blocks.")] = False,
    budget: Annotated[int | None, typer.Option(metavar="N", help="How many points are looked at. Default: the file's, or 24.")] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes; a stopped search goes on there.")] = Path("tuned"),
    device: Device = "auto",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set any key of the file, such as tune.high=1.5.")] = None,
    as_json: Json = False,
) -> None:
    """Which weights are best for several adapters? A search over a small trial, its surface, and a proof on prompts and noise that it never saw."""
    from darkroom.cli.watch import Terminal
    from darkroom.evidence.tune import read_tune, run_tune

    given = [*(["tune.per=block"] if per_block else []), *([f"tune.budget={budget}"] if budget is not None else []), *(settings or ())]
    plan = read_tune(trial, adapter or [], given)
    with Terminal() as watcher:
        result = run_tune(plan, out, device, watcher=watcher)
    weights = [f"{name} {weight:g}" for name, weight in zip(result["names"], result["found"], strict=True)]
    verdicts = [f"  {row['sentence']}" for row in result.get("comparisons", [])]
    places = [f"surface  {(out / 'surface.png').resolve()}"]
    places += [f"report   {Path(result['report']).resolve()}"] if result.get("report") else []
    show(result, [result["sentence"], *verdicts, f"weights  {', '.join(weights)}", f"use      {result['use']}", *places], as_json)
