"""`darkroom adapter show` and `convert`; `merge`, `extract`, `resize` and `diff` are in `combine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli import combine
from darkroom.cli.show import Json, one_of, show

app = typer.Typer(
    name="adapter",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Adapter files: look into them, convert, merge, extract, resize, compare.",
)

File = Annotated[Path, typer.Argument(help="A .safetensors file; of a textual inversion also the folder of diffusers' two.")]
Base = Annotated[str, typer.Option(help="The base it was made for. Default: SDXL 1.0, or pocket where the file says so.")]


@app.command("show")
def show_command(
    file: File,
    base: Base = "",
    norms: Annotated[bool | None, typer.Option("--norms/--no-norms", help="Compute how large the change is. Default: of files up to 500 MB.")] = None,
    as_json: Json = False,
) -> None:
    """Family, method, ranks, coverage, trigger words, norms by block, what is odd, and which programs will load it."""
    from darkroom.jobs.adapter import show_adapter
    from darkroom.sdxl.adapters.show import lines

    facts = show_adapter(file, base, norms)
    show(facts, list(lines(facts)), as_json)


@app.command("convert")
def convert_command(
    file: File,
    to: Annotated[str, typer.Option(help="kohya (A1111, ComfyUI, sd-scripts), diffusers or peft.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: beside the file, the layout in its name. Several files want a folder.")] = None,
    base: Base = "",
    word: Annotated[str, typer.Option(help="Call a textual inversion by this word.")] = "",
    bundle: Annotated[Path | None, typer.Option(metavar="LORA", help="Put the textual inversion into a copy of this LoRA, as OneTrainer does.")] = None,
    unbundle: Annotated[bool, typer.Option("--unbundle", help="Take the textual inversions out of a LoRA, into files of their own.")] = False,
    sidecar: Annotated[float | None, typer.Option(metavar="WEIGHT", help="Write A1111's side-car (.json): trigger words and this preferred weight.")] = None,
    as_json: Json = False,
) -> None:
    """The same adapter or textual inversion in another layout: every key matched, or nothing is written."""
    from darkroom.jobs.adapter import Conversion, convert_adapter, converted

    layout = one_of("--to", to, ("kohya", "diffusers", "peft"))
    done = convert_adapter(Conversion(file, layout, out, base, word, bundle, unbundle, sidecar))
    show(done, converted(done), as_json)


app.command("merge")(combine.merge_command)
app.command("extract")(combine.extract_command)
app.command("resize")(combine.resize_command)
app.command("diff")(combine.diff_command)
