"""`darkroom screen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Json, show


def screen_command(
    dataset: Annotated[Path | None, typer.Argument(metavar="DATASET", help="A folder of pictures, collected or your own. Nothing is moved or deleted.")] = None,
    smallest: Annotated[int | None, typer.Option(metavar="PX", help="Reject shorter sides below. Default: 512; a pocket model wants 64.")] = None,
    largest: Annotated[int | None, typer.Option(metavar="PX", help="Reject longer sides above. Default: none, training reduces them.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="CHECK.LIMIT=VALUE", help="Any limit: sharpness.least=0.3 (see --checks).")] = None,
    also: Annotated[list[str] | None, typer.Option("--with", metavar="CHECK", help="Make this check too: text, faces.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Leave this check out, as in --without dpi.")] = None,
    like: Annotated[list[str] | None, typer.Option(metavar="FILE", help='Reject what looks like this picture, such as a "not found" sign.')] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Forget the checks and limits of the last screening, which hold on otherwise.")] = False,
    keep: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Keep it whatever the checks say, now and later. A name or a pattern.")] = None,
    reject: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Reject it whatever the checks say, now and later.")] = None,
    undo: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Take back --keep or --reject.")] = None,
    sheet: Annotated[bool, typer.Option("--show", help="Write screening.html: what was rejected and why, duplicates side by side; and open it.")] = False,
    checks: Annotated[bool, typer.Option("--checks", help="List the checks, their limits and where those come from, and stop.")] = False,
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    as_json: Json = False,
) -> None:
    """Judge every picture: size, compression, sharpness, duplicates ... A verdict with its reason, never a deletion, and yours to overrule."""
    from darkroom.data.screening import limits

    if checks:
        from darkroom.jobs.screen_text import checks_table

        show({"checks": limits()}, checks_table(), as_json)
        return
    from darkroom.cli.watch import Terminal
    from darkroom.errors import DatasetError
    from darkroom.jobs.contact import contact_sheet, open_page
    from darkroom.jobs.engine import open_engine
    from darkroom.jobs.screen import Overrule, plan, screen
    from darkroom.jobs.screen_text import lines

    if dataset is None:
        raise DatasetError("screen needs the folder of your pictures: darkroom screen FOLDER.")
    screening = plan(dataset, defaults, smallest, largest, settings or (), also or (), without or (), like or ())
    with open_engine(engine, workers) as crew, Terminal() as watcher:
        screened = screen(dataset, screening, Overrule(tuple(keep or ()), tuple(reject or ()), tuple(undo or ())), watcher, crew)
        page = contact_sheet(screened, watcher=watcher, engine=crew) if sheet else None
    told = [*lines(screened), *([f"sheet  {page.resolve()}"] if page else [])]
    show({**screened.facts, "sheet": str(page) if page else None, "checks": screening.tree()}, told, as_json)
    if page is not None and not as_json:
        open_page(page)
