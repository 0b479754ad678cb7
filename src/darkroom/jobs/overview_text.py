"""The overview of a dataset as lines of text: the same figures as the page and the JSON."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Facts = Mapping[str, Any]
MOST = 12  # rows of a table
BUCKETS = 30


def lines(facts: Facts) -> list[str]:
    """What a person reads in a terminal."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=max(60, shutil.get_terminal_size((100, 24)).columns), highlight=False, color_system=None, markup=False)
    for part in _parts(facts):
        console.print(part)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _parts(facts: Facts) -> Iterator[Any]:
    counts, captions, training = facts["counts"], facts["captions"], facts["training"]
    yield f"{facts['dataset']}  {facts['hash'][:16]}"
    yield from _told(facts)
    if facts["rejected_for"]:
        yield _table("rejected for", facts["rejected_for"], "pictures")
    yield _sizes(facts)
    yield _table("caption from", captions["from"], "pictures")
    if captions["tokens"]:
        tokens, limit = captions["tokens"], captions["limit"]
        yield f"caption lengths: {tokens['least']} to {tokens['most']} tokens, median {tokens['median']:g}; {captions['over']} pass {limit} and are cut"
        yield from (f"  {row['file']}: {row['tokens']} tokens" for row in captions["longest"][:5])
    if facts["tags"]["different"]:
        yield _table(f"tags ({facts['tags']['different']}, {facts['tags']['once']} of them once)", facts["tags"]["most"], "captions")
    if training["pictures"]:
        yield _buckets(training)
        yield from _crops(training)
    if counts["not_screened"]:
        screen = "unpacked" if "shards" in facts else facts["dataset"]
        first = f"`darkroom dataset unpack {facts['dataset']} --to {screen}`, then " if "shards" in facts else ""
        yield f"note: {counts['not_screened']} pictures were not screened: {first}`darkroom screen {screen}` looks for copies, blur and broken files."


def _told(facts: Facts) -> Iterator[str]:
    counts, copies = facts["counts"], facts["copies"]
    kept = f"{counts['kept']} kept ({counts['train']} to learn from, {counts['held_out']} held out)"
    yield f"{counts['pictures']} pictures: {kept}, {counts['rejected']} rejected"
    also = {"overruled by hand": counts["overruled"], "unreadable": counts["unreadable"], "with a mask": counts["masks"], "with a focus": counts["focus"]}
    if any(also.values()):
        yield ", ".join(f"{number} {name}" for name, number in also.items() if number)
    if shards := facts.get("shards"):
        without = f"; {shards['without_picture']} samples have no picture and are left out" if shards["without_picture"] else ""
        yield f"streamed from {shards['shards']} shards{without}"
    if shards and shards["broken"]:
        yield f"{shards['broken']} pictures are broken, and a training refuses them: {shards['faults'][0]}"
    if copies["clusters"]:
        yield f"{copies['clusters']} groups of copies with {copies['pictures']} pictures; in {copies['kept_more_than_once']} of them more than one is kept"
    if copies["leaking"]:
        yield f"LEAK: {copies['leaking']} groups of copies lie on both sides of the split. Run `darkroom dataset prepare {facts['dataset']}` again."
    if "outside" in facts:
        yield facts["outside"]
    if any(facts["changes"].values()):
        yield "since the manifest was written: " + ", ".join(f"{number} {name}" for name, number in facts["changes"].items() if number)


def _sizes(facts: Facts) -> Table:
    table = _table("shorter side, pixels", {name: number for name, number in facts["sizes"]["shorter_side"].items() if number}, "pictures")
    table.add_section()
    for name, number in facts["formats"].items():
        table.add_row(name, f"{number:,}")
    return table


def _table(title: str, counted: Mapping[str, int], of: str) -> Table:
    found = _plain(title, of)
    for name, number in list(counted.items())[:MOST]:
        found.add_row(name, f"{number:,}")
    if len(counted) > MOST:
        found.add_row(f"... and {len(counted) - MOST} more", "")
    return found


def _plain(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    found.add_column(first, overflow="fold")
    for name in others:
        found.add_column(name, justify="right")
    return found


def _buckets(training: Facts) -> Table:
    found = _plain(f"bucket (resolution {training['resolution']}, step {training['bucket_step']})", "pictures", "batches", "cut away", "at most")
    largest = sorted(training["buckets"], key=lambda row: -row["pictures"])
    for row in sorted(largest[:BUCKETS], key=lambda row: (row["width"], row["height"])):
        batches = " + ".join(f"{number} of {size}" for size, number in row["batches"].items())
        found.add_row(f"{row['width']} x {row['height']}", f"{row['pictures']:,}", batches, f"{row['lost']:.1%}", f"{row['most_lost']:.1%}")
    if rest := largest[BUCKETS:]:
        found.add_row(f"... and {len(rest)} smaller ones", f"{sum(row['pictures'] for row in rest):,}", "", "", "")
    return found


def _crops(training: Facts) -> Iterator[str]:
    small = f"; {training['small_batches']} of them smaller than {training['batch_size']}" if training["small_batches"] else ""
    yield f"{training['samples']} samples in {training['batches']} batches an epoch{small}"
    yield f"crops take {training['lost']['mean']:.1%} of the pictures, at most {training['lost']['most']:.1%} ({training['pixels_lost']:,} pixels in all)"
    if training["smaller_bucket"]:
        yield f"{training['smaller_bucket']} are smaller than the bucket of their shape and go to a smaller one, not enlarged"
    files = ", ".join(training["small_files"][:5])
    if training["enlarged"]:
        yield f"{training['enlarged']} are enlarged to their bucket: {files}"
    if training["too_small"]:
        yield f"{training['too_small']} are smaller than the smallest bucket, and a training refuses them (or enlarges them: data.enlarge=true): {files}"
