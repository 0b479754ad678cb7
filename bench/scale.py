"""How many items a second the engines bring: a plain loop, the local engine and Ray with 1 and 2 workers; and what the engines cost over the loop.

    python bench/scale.py [--hashed 1000 10000 100000] [--looked 1000 10000] [--scored 1000] [--rounds 3] [--engines local ray] [--workers 1 2] [--json]

Three works of three weights. Hashing: a file's sha256, next to nothing, so that what is seen is the engine's own cost. Looking: what `darkroom screen` does
with each picture (decode, hashes, sharpness ...). Scoring: what `darkroom score` does in batches of 32 (sharpness, and pocket's CLIP score). Pictures are 64
pixels large, and hard links to 1,000 files, so that a hundred thousand of them are a few megabytes.

In each round every way comes once, in an order that turns from round to round, and a way is compared with the loop of its own round: a ratio with its least and
largest, not seconds of a machine that others use too. "Over" is what an item costs beyond its part of the loop: (seconds - loop / workers) / items. Workers of
Ray are started, and have opened what they hold, before the clock runs (how long that took is told on standard error); processes of the local engine are started
by each call, within it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.files import sha256_file
from darkroom.jobs.engine import Engine, Work, open_engine
from darkroom.jobs.looks import Looking, Task
from darkroom.jobs.score import Scoring
from darkroom.jobs.score.items import Item
from darkroom.jobs.score.panel import Part, panels
from darkroom.jobs.score.setup import open_metrics
from darkroom.jobs.watch import Silent

FILES, SIDE, BATCH = 1000, 64, 32
Bring = Callable[[Sequence[Any]], int]


@dataclass(frozen=True)
class Hashing(Work[Path, str]):
    """The lightest work there is."""

    def open(self) -> Callable[[Sequence[Path]], list[str]]:
        return lambda paths: [sha256_file(path) for path in paths]


def hashing(paths: Sequence[Path]) -> tuple[Any, list[Any]]:
    import scale  # not __main__: workers import it by its name

    return scale.Hashing(), list(paths)


def pictures(place: Path, count: int) -> list[Path]:
    """So many files, of which each thousand are hard links to the first."""
    found = []
    for number in range(count):
        path = place / f"{number // FILES:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < FILES:
            small = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, compress_level=1)
        else:
            os.link(found[number % FILES], path)
        found.append(path)
    return found


def looking(paths: Sequence[Path]) -> tuple[Any, list[Any]]:
    hashes = [sha256_file(path) for path in paths[:FILES]]
    return Looking(), [Task(path, hashes[number % FILES], True) for number, path in enumerate(paths)]


def scoring(paths: Sequence[Path]) -> tuple[Any, list[Any]]:
    from darkroom.metrics.memory import Notes, Recent  # torch: each process that hashes would import it with this file

    wish, notes = Scoring(paths[0].parent, ("clip", "sharpness"), scorer="pocket", device="cpu"), Notes(behind=Recent())
    work = panels(wish, open_metrics(wish, (), notes, Silent()), notes)
    hashes = [sha256_file(path) for path in paths[:FILES]]
    items = [Item(path, path.name, hashes[number % FILES], "a red apple") for number, path in enumerate(paths)]
    parts = [tuple(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return work, [Part(part, {"clip": part, "sharpness": part}) for part in parts]


def plain(work: Any) -> Bring:
    """The loop: the work opened here, and given as many items at once as a worker would get."""
    opened = work.open()
    return lambda items: sum(len(opened(items[start : start + work.share])) for start in range(0, len(items), work.share))


def through(engine: Engine, work: Any) -> Bring:
    return lambda items: sum(1 for _ in engine.each(work, items))


def timed(bring: Bring, items: Sequence[Any]) -> float:
    begun = time.perf_counter()
    assert bring(items) == len(items), "nothing is lost or doubled"
    return time.perf_counter() - begun


def measured(what: str, items: Sequence[Any], count: int, workers: int, ways: dict[str, Bring], rounds: int) -> list[dict[str, Any]]:
    """A row a way: items per second, and its time by that of the loop in the same round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        order = [*ways] if number % 2 == 0 else [*reversed(ways)]
        for name in order:
            spent[name].append(timed(ways[name], items))
            print(f"{what} {count:,}: round {number + 1}, {name} {spent[name][-1]:.2f} s", file=sys.stderr, flush=True)
    rows = []
    for name, seconds in spent.items():
        ratios = [mine / loop for mine, loop in zip(seconds, spent["loop"], strict=True)]
        over = [(mine - loop / (1 if name == "loop" else workers)) / count for mine, loop in zip(seconds, spent["loop"], strict=True)]
        rows.append({
            "what": what, "items": count, "way": name, "seconds": round(statistics.median(seconds), 2),
            "items_per_second": round(count / statistics.median(seconds), 1),
            "by_the_loop": {"least": round(min(ratios), 3), "median": round(statistics.median(ratios), 3), "largest": round(max(ratios), 3)},
            "over_microseconds": round(1e6 * statistics.median(over)),
        })  # fmt: skip
    return rows


def ways_of(work: Any, few: Sequence[Any], engines: Sequence[str], workers: Sequence[int], stack: ExitStack) -> tuple[dict[str, Bring], dict[str, float]]:
    """Each way, warm, and the seconds of its start with the first few items."""
    ways, starts = {"loop": plain(work)}, dict[str, float]()
    for name in engines:
        for count in workers:
            begun = time.perf_counter()
            engine = stack.enter_context(open_engine(name, count))
            ways[f"{name} {count}"] = through(engine, work)
            ways[f"{name} {count}"](few)
            starts[f"{name} {count}"] = round(time.perf_counter() - begun, 1)
    return ways, starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashed", type=int, nargs="*", default=[1000, 10_000, 100_000], help="files that are hashed")
    parser.add_argument("--looked", type=int, nargs="*", default=[1000, 10_000], help="pictures that are looked at")
    parser.add_argument("--scored", type=int, nargs="*", default=[1000], help="pictures that are scored")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=["local", "ray"])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        paths = pictures(Path(place), max([*given.hashed, *given.looked, *given.scored]))
        for what, make, counts in (("hashing", hashing, given.hashed), ("looking", looking, given.looked), ("scoring", scoring, given.scored)):
            for workers in given.workers if counts else ():
                rows += _with(what, make, counts, workers, paths, given)
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        ratio = row["by_the_loop"]
        print(
            f"{row['what']:8} {row['items']:>7,} {row['way']:8} {row['items_per_second']:>8,.1f} a second; "
            f"{ratio['median']:.3f} of the loop's time ({ratio['least']:.3f} to {ratio['largest']:.3f}); {row['over_microseconds']:,} microseconds an item over"
        )


def _with(what: str, make: Callable[[Sequence[Path]], tuple[Any, list[Any]]], counts: Sequence[int], workers: int, paths: Sequence[Path], given: Any) -> Any:
    """One number of workers at a time: a Ray of our own is one Ray."""
    rows = []
    with ExitStack() as stack:
        work, few = make(paths[: 4 * BATCH])
        ways, starts = ways_of(work, few, given.engines, [workers], stack)
        print(f"{what}: seconds to start {starts}", file=sys.stderr)
        for count in counts:
            rows += measured(what, make(paths[:count])[1], count, workers, ways, given.rounds)
    return rows


if __name__ == "__main__":
    main()
