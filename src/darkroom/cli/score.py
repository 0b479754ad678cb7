"""`darkroom score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Device, Json, show


def score_command(
    folder: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Pictures; where it holds none itself, those of its subfolders.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSV with file and prompt, or one prompt a line. Default: what the PNGs carry, or .txt beside them.")
    ] = None,
    trigger: Annotated[str, typer.Option(metavar="WORD", help="Leave this word out of every prompt: scorers do not know it.")] = "",
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="Separated by commas, as in clip,likeness. Default: all that can be asked without a hub. See --list.")
    ] = "",
    reference: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Held-out pictures of the subject: likeness, dino, imagenet, kid, cmmd.")] = None,
    training: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The pictures that were learned from: copying.")] = None,
    base_pictures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="What the bare base draws of the class, without the trigger: drift.")] = None,
    beside: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Compare with another folder, and say in words what the differences mean.")] = None,
    scorer: Annotated[str, typer.Option(help="pocket, a CLIP folder or hub id. Default: pocket's for its own pictures, or ViT-L/14 from the hub.")] = "",
    model: Annotated[list[str] | None, typer.Option(metavar="METRIC=FILE", help="A metric's own model: dino=FOLDER, aesthetic=FILE, copying=FILE ...")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where tables and scores.html go. Default: FOLDER/scores.")] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures seen at once.")] = 32,
    device: Device = "auto",
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    catalogue: Annotated[bool, typer.Option("--list", help="List the metrics and what each asks, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """How good are these pictures? A score for each question, tables, and a page to look at. What was scored before is not asked again."""
    from darkroom.jobs.score import Scoring, catalogue_lines, lines, parse_models, score

    if catalogue:
        found, told = catalogue_lines()
        show(found, told, as_json)
        return
    from darkroom.cli.watch import Terminal
    from darkroom.errors import DatasetError
    from darkroom.jobs.engine import open_engine

    if folder is None:
        raise DatasetError("score needs the folder of your pictures: darkroom score FOLDER.")

    wanted = Scoring(
        folder, tuple(name.strip() for name in metrics.split(",") if name.strip()), prompts, trigger, reference, training, base_pictures, beside, scorer,
        parse_models(model or ()), device, batch,
    )  # fmt: skip
    with Terminal() as watcher, open_engine(engine, workers) as crew:
        scored = score(wanted, out, watcher, engine=crew)
    show(scored.facts, lines(scored), as_json)
