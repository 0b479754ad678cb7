"""`darkroom caption`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Device, Json, show


def caption_command(
    dataset: Annotated[Path, typer.Argument(help="A dataset, or a plain folder of pictures, which stays as it is.")],
    by: Annotated[
        str, typer.Option("--with", metavar="NAME", help="template, blip, wd, vlm, server or pocket (offline). Without it: the captions that are there.")
    ] = "",
    config: Annotated[
        Path | None, typer.Option("--from", metavar="FILE.toml", help="A dataset configuration of sd-scripts: its captions and repeats are taken over.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="FOLDER|ID", help="The captioner's weights: a folder or a hub id; of server the model's name.")] = None,
    subject: Annotated[str | None, typer.Option(help='template, pocket: what they show, trigger word first: "TOK cat".')] = None,
    template: Annotated[str | None, typer.Option(help='template: the sentence, with names in braces: "a {genre} poster, {title}".')] = None,
    prompt: Annotated[str | None, typer.Option(help="vlm, server: what is asked. blip: how captions begin.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures at once. Default: the captioner's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of the captioner: beams=5, threshold=0.4; several times.")
    ] = None,
    name: Annotated[str, typer.Option(help="The name that captions are kept under. Default: that of --with.")] = "",
    trigger: Annotated[str, typer.Option(help="A word put in front of captions that do not hold it.")] = "",
    prefix: Annotated[str, typer.Option(help="Put in front of every caption.")] = "",
    suffix: Annotated[str, typer.Option(help="Put behind every caption.")] = "",
    choose: Annotated[bool, typer.Option(help="Learn from these captions from now on. Others are kept either way.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Caption anew what has a caption of this name.")] = False,
    only_missing: Annotated[bool, typer.Option("--only-missing", help="Only pictures that have no other caption.")] = False,
    sidecars: Annotated[bool, typer.Option("--sidecars", help="Also write NAME.txt for other programs, never over one that says something else.")] = False,
    dry_run: Annotated[int, typer.Option("--dry-run", metavar="N", min=0, help="Caption the first N pictures, show them, write nothing.")] = 0,
    device: Device = "auto",
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    as_json: Json = False,
) -> None:
    """Caption pictures: every caption is kept by who wrote it, and what was stopped goes on where it was."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.caption import Captioning, caption, lines
    from darkroom.jobs.engine import open_engine
    from darkroom.spec import override

    given = {"model": model, "subject": subject, "template": template, "prompt": prompt, "batch": batch}
    tree = override({key: value for key, value in given.items() if value is not None}, settings or ())
    rest = {"name": name, "trigger": trigger, "prefix": prefix, "suffix": suffix, "choose": choose, "again": again}
    wanted = Captioning.ask(by, tree, **rest, only_missing=only_missing, sidecars=sidecars) if by else None
    with Terminal() as watcher, open_engine(engine, workers) as crew:
        done = caption(dataset, wanted, config, device, watcher, dry_run, crew)
    show(done, lines(done), as_json)
