"""`darkroom runs` and `darkroom runs show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from darkroom.cli.show import Json, show


class _Listing(TyperGroup):
    """`darkroom runs FOLDER` is `darkroom runs list FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args.insert(0, "list")
        return super().parse_args(ctx, args)


app = typer.Typer(name="runs", cls=_Listing, rich_markup_mode=None, help="Trainings below a folder, with their results; and one of them in pictures.")


@app.command("list")
def list_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where they are looked for.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Every run below a folder, the newest first: what was learned, how far it came, its losses. `list` may be left out."""
    from darkroom.jobs.runs import lines, list_runs

    found = list_runs(folder)
    show({"folder": str(folder), "runs": [run.told() for run in found]}, lines(found, folder), as_json)


@app.command("show")
def show_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the pictures go. Default: RUN/shown.")] = None,
    as_json: Json = False,
) -> None:
    """One run: its losses as a curve, its previews as a film strip."""
    from darkroom.jobs.curve import lines, show_run

    told, made = show_run(run, out)
    show(told.told() | {"pictures_made": {name: str(path) for name, path in made.items()}}, lines(told, made), as_json)
