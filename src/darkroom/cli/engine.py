"""The options that say where work is done."""

from __future__ import annotations

from typing import Annotated

import typer

EngineOption = Annotated[str, typer.Option("--engine", metavar="ENGINE", help="Who does the work: local, ray, or the address of a Ray cluster.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, metavar="N", help="So many processes or actors. 0: as many as there is room for.")]
