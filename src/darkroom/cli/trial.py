"""`darkroom trial` and `darkroom demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.cli.show import Device, Json, show


def trial_command(
    file: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="A TRIAL.toml, or the name of a trial that ships with Darkroom; or give --adapter and --prompt.")
    ] = None,
    fill: Annotated[list[str] | None, typer.Option(metavar="PLACE=FILE", help="Of a shipped trial: an adapter or word that is trained first.")] = None,
    world: Annotated[str, typer.Option(help="Of a shipped trial: pocket or sdxl, the base model and its prompts.")] = "pocket",
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:WEIGHT][@BRANCH]", help="Compared with the base; each one is an arm. A run's folder will do.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="May be given several times; at least two.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A text file with one prompt a line.")] = None,
    seeds: Annotated[int, typer.Option(help="Pictures of each prompt and arm.")] = 4,
    reference: Annotated[str, typer.Option(metavar="FOLDER", help="Held-out pictures of the subject, for likeness.")] = "",
    base: Annotated[str, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")] = "pocket",
    scorer: Annotated[str, typer.Option(help="A CLIP folder or hub id. Default: pocket's own, or ViT-L/14 from the hub.")] = "",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and report go; a stopped trial goes on there.")] = Path("trial"),
    plan: Annotated[bool, typer.Option("--plan", help="Only say how many prompts and seeds it takes. Without --pilot a small pilot is drawn.")] = False,
    pilot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For --plan: a trial that was run. Nothing is drawn.")] = None,
    pilot_prompts: Annotated[int, typer.Option(metavar="N", help="For --plan: how many of the prompts a pilot draws, with two seeds each.")] = 8,
    difference: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=SIZE", help="For --plan: the smallest difference that matters, such as clip=0.5.")
    ] = None,
    power: Annotated[float, typer.Option(help="For --plan: the chance to see that difference, where it is there.")] = 0.8,
    device: Device = "auto",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set any key of the trial; may be given several times.")] = None,
    as_json: Json = False,
) -> None:
    """Is it better? The same prompts, seeds and noise through two or more arms, scored, compared, and shown in report.html."""
    from darkroom.cli.watch import Terminal
    from darkroom.evidence.asking import Given, read_trial
    from darkroom.evidence.planning import Ask, parse_difference, plan_trial
    from darkroom.evidence.planning_text import plan_lines
    from darkroom.evidence.trial import run_trial

    given = Given(
        file or "", tuple(adapter or ()), tuple(prompt or ()), prompts, seeds, base, reference, scorer, world, tuple(fill or ()), tuple(settings or ())
    )
    trial, trying = read_trial(given)
    with Terminal() as watcher:
        if plan or pilot or difference:
            ask = Ask(dict(parse_difference(text) for text in difference or ()), power, pilot, pilot_prompts, trying)
            found = plan_trial(trial, out, ask, device, watcher=watcher)
            show(found, plan_lines(found), as_json)
            return
        result = run_trial(trial, out, device, watcher=watcher)
    _show_trial(result, out / "report.html", as_json)


def demo_command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path("darkroom-demo"),
    pictures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The cats, from another place: train/ and held_out/ in it.")] = None,
    as_json: Json = False,
) -> None:
    """The whole way on bundled pictures: nine cats, an adapter, a trial, report.html."""
    from darkroom.cli.watch import Terminal
    from darkroom.evidence.demo import demo

    with Terminal() as watcher:
        result = demo(out, watcher, pictures)
    _show_trial(result, Path(result["report"]), as_json)


def _show_trial(result: dict[str, Any], report: Path, as_json: bool) -> None:
    from darkroom.evidence.verdicts import trial_lines

    kept = {key: value for key, value in result.items() if key in ("comparisons", "contrasts", "faults", "run", "seconds", "arms", "title")}
    show(kept | {"report": str(report)}, [*trial_lines(result), f"report  {report.resolve()}"], as_json)
