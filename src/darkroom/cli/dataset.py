"""`darkroom dataset show`, `prepare`, `encode`, `shards` and `unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Json, Set, one_of, show

app = typer.Typer(name="dataset", no_args_is_help=True, rich_markup_mode=None, help="Look into a dataset, prepare it, and bring it into shards and back.")

Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="The folder of pictures, with a manifest or without.")]


@app.command("show")
def show_command(
    dataset: Dataset,
    base: Annotated[str, typer.Option(help="pocket, or a diffusers folder whose sizes and words are meant. Default: SDXL 1.0.")] = "",
    resolution: Annotated[int, typer.Option(metavar="PIXELS", help="Side that buckets are made for. Default: the base's own.")] = 0,
    bucket_step: Annotated[int, typer.Option(metavar="PIXELS", help="Bucket sides are multiples of this. Default: 64, or resolution / 4 below 256.")] = 0,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Pictures in one forward pass.")] = 4,
    crop: Annotated[str, typer.Option(help="centre, subject (where `prepare --focus` found it) or random.")] = "centre",
    enlarge: Annotated[bool, typer.Option("--enlarge", help="Enlarge small pictures, as data.enlarge does. Default: they go to a smaller bucket.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with plots, and pictures of every bucket with their crop.")] = None,
    as_json: Json = False,
) -> None:
    """Counts, sizes, captions in tokens, tags, copies, buckets with their real batch sizes, and what crops take away."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.overview import View, overview
    from darkroom.jobs.overview_text import lines

    view = View(base, resolution, bucket_step, batch_size, one_of("--crop", crop, ("centre", "subject", "random")), enlarge)
    with Terminal() as watcher:
        found = overview(dataset, view, watcher)
    told, facts = lines(found.facts), dict(found.facts)
    if html is not None:
        from darkroom.files import write_text
        from darkroom.jobs.dataset_page import render

        write_text(html, render(found))
        facts["html"] = str(html)
        told.append(f"page  {html.resolve()}")
    show(facts, told, as_json)


@app.command("prepare")
def prepare_command(
    dataset: Dataset,
    held_out: Annotated[
        str | None,
        typer.Option(metavar="N", help='How many to hold out: 12, 0.1 or "10%"; 0 undoes it. Default: as before, or 10 % where nothing else is asked for.'),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed, another split. Default: as before, or 0.")] = None,
    masks: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Masks with the names of their pictures: white is learned from, black is not.")] = None,
    alpha: Annotated[bool, typer.Option("--alpha", help="Transparent parts are not learned from.")] = False,
    focus: Annotated[bool, typer.Option("--focus", help="Find where the subject is, for crops: in the mask, at a face, or where colours stand out.")] = False,
    as_json: Json = False,
) -> None:
    """Hold pictures out (copies stay together, and no picture changes sides later), take masks, find subjects."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.dataset import Preparation, lines, prepare

    with Terminal() as watcher:
        found = prepare(dataset, Preparation(held_out, seed, masks, alpha, focus), watcher)
    show(found, list(lines(found)), as_json)


@app.command("encode")
def encode_command(
    dataset: Dataset,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help="What will be trained: a recipe that ships with Darkroom, or your own .toml file.")],
    subject: Annotated[str | None, typer.Option(help='As for `darkroom train`: "TOK cat".')] = None,
    base: Annotated[str | None, typer.Option(help="As for `darkroom train`.")] = None,
    settings: Set = None,
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    as_json: Json = False,
) -> None:
    """Encode pictures and captions for a training ahead of it, with the options that `darkroom train` will get: then it encodes nothing."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.encode import encode, encode_lines
    from darkroom.jobs.engine import open_engine
    from darkroom.train.recipe import load_recipe

    data = {"images": str(dataset)} | ({} if subject is None else {"subject": subject})
    loaded = load_recipe(recipe, tuple(settings or ()), data=data)
    loaded = loaded if base is None else loaded.model_copy(update={"base": base})
    with Terminal() as watcher, open_engine(engine, workers) as crew:
        found = encode(loaded, watcher, crew)
    show(found, encode_lines(found), as_json)


@app.command("shards")
def shards_command(
    dataset: Dataset,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the shards go. A stopped export goes on there.")],
    per_shard: Annotated[int, typer.Option(metavar="N", help="Pictures in one tar file.")] = 1000,
    as_json: Json = False,
) -> None:
    """The dataset as WebDataset shards: tar files of pictures, captions, masks and rows; equal datasets give equal bytes."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.shards import shard_lines, shards

    with Terminal() as watcher:
        index = shards(dataset, to, per_shard, watcher)
    show(index, shard_lines(index), as_json)


@app.command("unpack")
def unpack_command(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="A folder of WebDataset shards, of Darkroom or another program, or one .tar file.")],
    to: Annotated[Path, typer.Option(metavar="DATASET", help="The dataset to make. A stopped call goes on there.")],
    whole: Annotated[bool, typer.Option("--whole", help="Of shards that are cut off or damaged take what is whole. Default: they are refused.")] = False,
    as_json: Json = False,
) -> None:
    """Shards to a dataset: pictures, captions, verdicts and split as they were. Nothing is written outside the folder."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.shards import unpack, unpack_lines

    with Terminal() as watcher:
        found = unpack(shards, to, watcher, whole)
    show(found, unpack_lines(found), as_json)
