"""`darkroom import kohya`, `darkroom import diffusers` and `darkroom export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from darkroom.cli.show import Json, show
from darkroom.errors import OutputError, RecipeError

if TYPE_CHECKING:
    from darkroom.jobs.migrate import Imported

Out = Annotated[Path | None, typer.Option(metavar="RECIPE.toml", help="Where the recipe goes. Default: printed below the report.")]


def import_kohya_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A JSON of the kohya_ss GUI, or a TOML of sd-scripts: config_file or dataset_config.")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Settings of kohya's programs as a recipe. Every setting is accounted for: mapped, implied, or without an equal and why."""
    from darkroom.jobs.migrate import import_kohya

    _show(import_kohya(config), out, as_json)


def import_diffusers_command(
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="'accelerate launch train_dreambooth_lora_sdxl.py --...', a file with it, or - for stdin.")],
    out: Out = None,
    as_json: Json = False,
) -> None:
    """A command line of diffusers' SDXL scripts as a recipe. It is read, never run. Every option is accounted for."""
    from darkroom.jobs.migrate import import_diffusers

    _show(import_diffusers(_text(command)), out, as_json)


def _text(command: str) -> str:
    """The command itself, the file that holds it, or what is piped in."""
    if command == "-":
        return sys.stdin.read()
    short = len(command) < 512 and "\n" not in command and " --" not in command
    if not short or command.endswith(".py") or not Path(command).is_file():
        return command
    try:
        return Path(command).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{command}: cannot be read as text: {error}. Give the file that holds the command line.") from None


def _show(imported: Imported, out: Path | None, as_json: bool) -> None:
    from darkroom.files import write_text
    from darkroom.jobs.migrate import lines

    if out is not None:
        if out.exists():
            raise OutputError(f"{out}: is there already, and is not written over. Choose another name with --out.")
        write_text(out, imported.toml)
    rows = [vars(row) for row in imported.rows]
    result = {
        "program": imported.program,
        "recipe": imported.recipe,
        "toml": imported.toml,
        "rows": rows,
        "todo": list(imported.todo),
        "counts": imported.counts(),
    }
    told = ["", f"recipe  {out}", f"try it  darkroom train {out} --check"] if out is not None else ["", imported.toml.rstrip()]
    show(result | ({"out": str(out)} if out else {}), [*lines(imported), *told], as_json)


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to make; it must not be there, or be empty.")],
    checkpoint: Annotated[int | None, typer.Option(metavar="STEP", help="An earlier checkpoint. Default: the last step.")] = None,
    name: Annotated[str, typer.Option(help="The adapter's file name. Default: the subject, as tok-cat.")] = "",
    weight: Annotated[float, typer.Option(help="The weight that the card and the side-car file recommend.")] = 1.0,
    license: Annotated[
        str, typer.Option(help="As the hub names it: cc-by-4.0, mit, openrail++ ... (of the adapter; SDXL 1.0 itself is openrail++).")
    ] = "other",
    base_model: Annotated[str, typer.Option(metavar="HUB-ID", help="The base on the card. Default: the recipe's, or SDXL 1.0 where that is a file.")] = "",
    trial: Annotated[Path | None, typer.Option(metavar="TRIAL", help="A trial's folder: its verdicts and its grid go on the card.")] = None,
    push: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Make this repository on the hub and upload the folder, with the token of `hf auth login`.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="With --push: for all to see. Default: private.")] = False,
    as_json: Json = False,
) -> None:
    """A folder ready for the hub, A1111 and ComfyUI: the adapter, a card, pictures with their prompts, the recipe and the receipt."""
    from darkroom.jobs.export import Export, export
    from darkroom.jobs.push import check_name
    from darkroom.jobs.push import push as send

    if push:
        check_name(push)
    adapter = export(Export(run, to, checkpoint, name, weight, license, base_model, trial, push))
    told = [f"adapter  {adapter}", f"card     {to / 'README.md'}"]
    result = {"folder": str(to), "adapter": str(adapter), "files": sorted(path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file())}
    if push:
        result["address"] = send(to, push, private=not public)
        told.append(f"hub      {result['address']}")
    show(result, told, as_json)
