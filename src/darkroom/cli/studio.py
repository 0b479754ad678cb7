"""`darkroom studio`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def studio_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The workspace: datasets, runs, pictures and trials are below it.")] = Path(),
    more: Annotated[list[Path] | None, typer.Option("--folder", metavar="FOLDER", help="Another folder that pages may read and write; several times.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on. Any other than this machine's own asks for a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    token: Annotated[str, typer.Option(help="What is asked for before anything is shown. Default: none on this machine, else a new one.")] = "",
    name: Annotated[list[str] | None, typer.Option(metavar="HOSTNAME", help="Another name the studio is called by, as behind a tunnel.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """The same jobs in a web page, and blind rating. Jobs are processes of their own: they go on when the page or this command ends."""
    from darkroom.web.serve import Opening, serve

    def ready(address: str) -> None:
        print(f"Darkroom's studio is open at {address}\nCtrl-C closes it; jobs that run go on.", flush=True)
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(Opening(folder, tuple(more or ()), host, port, token, tuple(name or ())), ready)
