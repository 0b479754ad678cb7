"""`darkroom wrong`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.show import Device, Json, one_of, show


def wrong_command(
    to: Annotated[Path, typer.Option(metavar="DATASET", help="The folder of the album: made if it is not there. A stopped album goes on there.")],
    base: Annotated[str, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")] = "pocket",
    words: Annotated[
        str | None, typer.Option(metavar="LIST|FILE", help='"blurry, bad hands:1.6": the words, with a weight of their own or without. Default: the base\'s.')
    ] = None,
    good: Annotated[bool, typer.Option("--good", help="The placebo: drawn the same way with good words.")] = False,
    boost: Annotated[float | None, typer.Option(metavar="WEIGHT", help='Of the emphasised word. Default: 1.4641, which is "++++".')] = None,
    guidance: Annotated[tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="From the first to the last of a word. Default: 8 13.")] = None,
    per_word: Annotated[int | None, typer.Option(metavar="N", help="Pictures of each word. Default: as many as make 78 in all.")] = None,
    scenes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is spoiled, one a line, before the words. Default: nothing; pocket's own for pocket.")
    ] = None,
    refiner: Annotated[str | None, typer.Option(metavar="MODEL|none", help="After the base, from 0.8 on. Default: the base's; none for none.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: 50; 25 for pocket.")] = None,
    seed: Annotated[int, typer.Option(help="Every picture's noise follows from it.")] = 0,
    caption: Annotated[str, typer.Option(metavar="WORD", help="What all of them are called.")] = "wrong",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    as_json: Json = False,
) -> None:
    """An album of bad pictures to learn from, each called "wrong": what the recipe `negative` makes a negative adapter of."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.wrong import album_for, album_lines, draw_album, parse_words, read_lines

    listed, weights = parse_words(words) if words is not None else (None, {})
    album = album_for(
        base, good, words=listed, weights=weights, boost=boost, guidance=guidance, per_word=per_word, steps=steps, seed=seed, caption=caption,
        scenes=None if scenes is None else tuple(read_lines("--scenes", scenes)), refiner="" if refiner == "none" else refiner,
    )  # fmt: skip
    with Terminal() as watcher:
        drawn = draw_album(album, to, device, one_of("--precision", precision, ("auto", "fp32", "bf16", "fp16")), watcher)
    show(drawn.facts, album_lines(drawn), as_json)
