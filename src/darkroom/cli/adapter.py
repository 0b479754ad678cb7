"""`darkroom adapter show` and `darkroom adapter convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.show import Json, one_of, show

app = typer.Typer(name="adapter", no_args_is_help=True, rich_markup_mode=None, help="Look into adapter files, and bring them into another program's layout.")

File = Annotated[Path, typer.Argument(help="A .safetensors file.")]
Base = Annotated[str, typer.Option(help="The base it was made for. Default: SDXL 1.0, or pocket where the file says so.")]


@app.command("show")
def show_command(
    file: File, base: Base = "", norms: Annotated[bool, typer.Option(help="Compute how large the change is; without it only the header is read.")] = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Family, method, ranks, coverage, trigger words, norms by block, and which programs will load it."""
    from darkroom.jobs.adapter import show_adapter
    from darkroom.sdxl.adapters.show import lines

    facts = show_adapter(file, base, norms)
    show(facts, list(lines(facts)), as_json)


@app.command("convert")
def convert_command(
    file: File,
    to: Annotated[str, typer.Option(help="kohya (A1111, ComfyUI, sd-scripts), diffusers or peft.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: beside the file, with the layout in its name.")] = None,
    base: Base = "",
    as_json: Json = False,
) -> None:
    """The same adapter in another layout: every key matched, or nothing is written."""
    from darkroom.jobs.adapter import convert_adapter

    layout = one_of("--to", to, ("kohya", "diffusers", "peft"))
    done = convert_adapter(file, layout, out or file.with_name(f"{file.stem}-{layout}.safetensors"), base)
    show(done, [f"{done['file']}  {done['from']} -> {done['layout']}, {done['modules']} modules"], as_json)
