"""`darkroom adapter merge`, `extract`, `resize` and `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.cli.show import Json, one_of, show

NUMBERS = ("fp32", "fp16", "bf16")
Out = Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors to write.")]
Ranks = Annotated[int, typer.Option(metavar="N", help="Keep this many ranks; with one of the measures below, at most so many.")]
Energy = Annotated[float, typer.Option(metavar="SHARE", help="Keep the fewest ranks that hold this share of the squared norm, as 0.99 (sv_fro, squared).")]
Cumulative = Annotated[float, typer.Option(metavar="SHARE", help="Keep the fewest whose singular values sum to this share of all (sv_cumulative).")]
Ratio = Annotated[float, typer.Option(metavar="TIMES", help="Keep singular values above the largest divided by this (sv_ratio).")]
Config = Annotated[Path | None, typer.Option(metavar="FOLDER", help="A diffusers folder whose configuration single files follow. Default: SDXL 1.0's.")]
BaseFor = Annotated[str, typer.Option(metavar="BASE", help="For DoRA, OFT, (IA)^3 and GLoRA, whose change depends on it: pocket, a path or a hub id.")]
Dtype = Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16. Default: as the files are.")]


def merge_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE[:WEIGHT]...", help="Adapters of any method, or run folders. A weight may be negative.")],
    out: Annotated[Path, typer.Option(metavar="PLACE", help="With --into: a .safetensors for a single file, any other name for a diffusers folder.")],
    into: Annotated[str, typer.Option(metavar="BASE", help="Merge into this base: pocket, a folder, a single file or a hub id.")] = "",
    how: Annotated[str, typer.Option(help="Several into one: concat (exact, ranks add up), svd (to a rank) or sum (exact, a full difference).")] = "concat",
    rank: Ranks = 0,
    energy: Energy = 0.0,
    cumulative: Cumulative = 0.0,
    ratio: Ratio = 0.0,
    block: Annotated[
        list[str] | None, typer.Option(metavar="[N:]PLACE=W", help="A factor by place: middle_block=0.5, 2:text_encoder=0 (of the second). See base merge.")
    ] = None,
    dtype: Dtype = "",
    base: BaseFor = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Adapters into a base, or several into one; and how far the result lies from the exact one."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.combine import Merge, Rank, merge
    from darkroom.jobs.combine_text import merge_lines

    way, number = one_of("--how", how, ("concat", "svd", "sum")), number_of(dtype)
    asked = Merge(tuple(files), out, into, way, Rank(rank, energy, cumulative, ratio), tuple(block or ()), number, base, config)
    with Terminal() as watcher:
        done = merge(asked, watcher)
    show(done, merge_lines(done), as_json)


def extract_command(
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The checkpoint that was trained or merged: a folder or a single file.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="What it was made from.")],
    out: Out,
    rank: Ranks = 0,
    energy: Energy = 0.0,
    cumulative: Cumulative = 0.0,
    ratio: Ratio = 0.0,
    conv_rank: Annotated[int | None, typer.Option(metavar="N", help="For convolutions larger than 1 x 1. Default: as --rank; 0 leaves them out.")] = None,
    text_encoders: Annotated[bool, typer.Option(help="Take the text encoders too, where they differ.")] = True,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16.")] = "fp16",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What a tuned checkpoint has beyond its base, as a LoRA; what it misses and what no LoRA can hold is said."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.combine import Extract, Rank, extract
    from darkroom.jobs.combine_text import extract_lines

    asked = Extract(tuned, base, out, Rank(rank, energy, cumulative, ratio), conv_rank, text_encoders, number_of(dtype), config)
    with Terminal() as watcher:
        done = extract(asked, watcher)
    show(done, extract_lines(done), as_json)


def resize_command(
    file: Annotated[Path, typer.Argument(help="A LoRA, LoHa or LoKr; other methods with --base.")],
    rank: Ranks = 0,
    energy: Energy = 0.0,
    cumulative: Cumulative = 0.0,
    ratio: Ratio = 0.0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: beside the file, with -resized in its name.")] = None,
    dtype: Dtype = "",
    base: BaseFor = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The nearest LoRA of fewer ranks, and how near it is."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.combine import Rank, resize
    from darkroom.jobs.combine_text import resize_lines

    target = out or file.with_name(f"{file.stem}-resized.safetensors")
    with Terminal() as watcher:
        done = resize(file, Rank(rank, energy, cumulative, ratio), target, number_of(dtype), base, config, watcher)
    show(done, resize_lines(done), as_json)


def diff_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="An adapter file of any method and layout.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    base: BaseFor = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Whether two adapters do the same: norms, distance and angle by place, modules and training facts that differ."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.combine import diff
    from darkroom.jobs.combine_text import diff_lines

    with Terminal() as watcher:
        found = diff(a, b, base, config, watcher)
    show(found, diff_lines(found), as_json)


def number_of(dtype: str) -> Any:
    """A dtype by name, or empty. Raises RecipeError."""
    return one_of("--dtype", dtype, NUMBERS) if dtype else ""
