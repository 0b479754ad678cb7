"""`darkroom base show`, `darkroom base convert` and `darkroom base merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.combine import Config, Dtype, number_of
from darkroom.cli.show import Json, one_of, show

app = typer.Typer(name="base", no_args_is_help=True, rich_markup_mode=None, help="Look into base models, bring them into another form, blend them.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="pocket, a diffusers folder, a .safetensors checkpoint or a hub id.")]


@app.command("show")
def show_command(model: Model, as_json: Json = False) -> None:
    """Family, parameters by part beside SDXL's own, dtypes, prediction and metadata; no weight is read."""
    from darkroom.jobs.checkpoint import show_base
    from darkroom.sdxl.survey import lines

    facts = show_base(model)
    show(facts, lines(facts), as_json)


@app.command("convert")
def convert_command(
    model: Model,
    to: Annotated[str, typer.Option(help="single (A1111, ComfyUI, sd-scripts, diffusers) or folder (diffusers).")],
    out: Annotated[Path, typer.Option(metavar="PLACE", help="The .safetensors, or the folder, to write.")],
    dtype: Dtype = "",
    vae: Annotated[str, typer.Option(metavar="VAE", help="A VAE to go in instead: a file or a folder, as the one that is fixed for fp16.")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The same model as a single file or a folder, in another dtype, with another VAE."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.checkpoint import Conversion, convert_base
    from darkroom.jobs.combine_text import convert_lines

    asked = Conversion(model, out, one_of("--to", to, ("single", "folder")), number_of(dtype), vae, config)
    with Terminal() as watcher:
        done = convert_base(asked, watcher)
    show(done, convert_lines(done), as_json)


@app.command("merge")
def merge_command(
    models: Annotated[list[str], typer.Argument(metavar="A B [C]", help="Two models for a sum, three for a difference; the result is of A's kind.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors to write.")],
    how: Annotated[str, typer.Option(help="sum is (1 - w) A + w B; difference is A + w (B - C).")] = "sum",
    weight: Annotated[float, typer.Option(metavar="W", help="Of B, or of the difference. The VAE stays A's unless --block vae=W.")] = 0.5,
    block: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE=W", help="Another weight by place: input_blocks.4, middle_block, output_blocks, unet, text_encoder, text_encoder_2, vae."),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="fp32, fp16 or bf16.")] = "fp16",
    as_json: Json = False,
) -> None:
    """Two or three checkpoints blended, by place where wanted; and how far the result lies from each."""
    from darkroom.jobs.checkpoint import BlendOf, merge_bases
    from darkroom.jobs.combine_text import blend_lines

    done = merge_bases(BlendOf(tuple(models), out, one_of("--how", how, ("sum", "difference")), weight, tuple(block or ()), number_of(dtype)))
    show(done, blend_lines(done), as_json)
