"""`darkroom collect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.engine import EngineOption, WorkersOption
from darkroom.cli.show import Json, show
from darkroom.errors import RecipeError


def collect_command(
    to: Annotated[Path, typer.Option(metavar="DATASET", help="The dataset's folder: made if it is not there, added to if it is.")],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="A folder, or a table (.csv .tsv .json .jsonl .parquet .txt) of URLs, s3:// ... or paths.")
    ] = None,
    column: Annotated[str, typer.Option(metavar="NAME", help="The column that names the picture. Default: the one that obviously does.")] = "",
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put before every value: https://image.tmdb.org/t/p/w600 for /abc.jpg.")] = "",
    suffix: Annotated[str, typer.Option(metavar="TEXT", help="Put after every value.")] = "",
    caption_column: Annotated[str, typer.Option(metavar="NAME", help="The column of captions. Default: text or caption, where there is one.")] = "",
    licence_column: Annotated[str, typer.Option(metavar="NAME", help="The column of licences. Default: licence or license, where there is one.")] = "",
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Downloads at a time.")] = 16,
    per_host: Annotated[int, typer.Option(min=1, max=256, help="Downloads at a time from one host.")] = 6,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For one try at one file; without a byte 20 seconds are enough to give up.")] = 120.0,
    max_size: Annotated[float, typer.Option(min=0.001, metavar="MB", help="A download that is larger is not kept.")] = 64.0,
    retries: Annotated[int, typer.Option(min=0, max=20, help="Tries after the first, where another may help.")] = 3,
    link: Annotated[bool, typer.Option("--link", help="Hard links to local files in place of copies, where that is possible.")] = False,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Read what symbolic links in a folder name outside of it, too.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try only rows that failed and may do better now.")] = False,
    permanent: Annotated[bool, typer.Option("--permanent", help="With --retry: also those that would fail again, such as 404.")] = False,
    failures: Annotated[bool, typer.Option("--failures", help="List the rows that gave no picture, and do nothing.")] = False,
    engine: EngineOption = "local",
    workers: WorkersOption = 0,
    as_json: Json = False,
) -> None:
    """Pictures from a folder or a table of URLs into a dataset. A stopped run goes on where it stood; a row's failure never ends it."""
    from darkroom.cli.watch import Terminal
    from darkroom.data.columns import Columns
    from darkroom.data.fetch import Limits
    from darkroom.data.sources import Wanted
    from darkroom.jobs.collect import Collect, collect
    from darkroom.jobs.collected import failure_lines, failures_of, lines
    from darkroom.jobs.engine import open_engine

    if failures:
        found = failures_of(to, source)
        show({"failures": [entry.facts for entry in found]}, failure_lines(found) or ["Every row gave a picture."], as_json)
        return
    if source is None:
        raise RecipeError("collect needs a SOURCE: a folder of pictures, or a table of URLs or paths.")
    if permanent and not retry:
        raise RecipeError("--permanent says which failures --retry tries again. Give both.")
    wanted = Wanted(Columns(column, caption_column, licence_column), prefix, suffix, follow_links)
    limits = Limits(jobs, per_host, timeout, round(max_size * 1e6), retries)
    with open_engine(engine, workers) as crew, Terminal() as watcher:
        done = collect(Collect(source, to, wanted, limits, link, retry, permanent), watcher, crew)
    show(vars(done), lines(done), as_json)
