"""The overview of a dataset as one HTML file that opens anywhere: figures, plots, and pictures of every bucket with their crop drawn on them.

`render` turns the facts into a view (all numbers formatted, pictures embedded) and fills `dataset_page.html.j2` with it. As in a trial's report, the page
needs nothing from outside, and forbids it to itself with a content security policy.
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from darkroom.data.buckets import Fit
from darkroom.data.crops import window
from darkroom.data.manifest import Manifest, Row
from darkroom.data.picture import read_picture
from darkroom.data.streamed import Streamed
from darkroom.errors import DatasetError
from darkroom.jobs.overview import Overview
from darkroom.jobs.tokens import CHUNK

SHOWN = 8  # pictures of each bucket
MOST = 120  # pictures on the page
SIDE = 240  # pixels of a thumbnail's longer side
BARS = 24  # of a histogram
View = dict[str, Any]


def render(overview: Overview) -> str:
    """The whole page. A picture that cannot be read is left out of its bucket."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("dataset_page.html.j2").read_text("utf-8"))
    facts = overview.facts
    lengths = {int(length): number for length, number in facts["captions"]["by_length"].items()}
    return template.render(
        facts=facts,
        tiles=_tiles(facts),
        shorter=bars(facts["sizes"]["shorter_side"]),
        plane=plane_svg([(row.width, row.height) for row in overview.manifest.kept if row.width], facts["training"]["resolution"]),
        lengths=lengths_svg(lengths) if lengths else "",
        tags=bars(dict(list(facts["tags"]["most"].items())[:40])),
        reasons=bars(facts["rejected_for"]),
        sources=bars(facts["captions"]["from"]),
        formats=bars(facts["formats"]),
        buckets=list(_buckets(overview)),
        copies=list(_copies(overview)),
        names={"batches": _batches},
    )


def _tiles(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts, training = facts["counts"], facts["training"]
    lost = f"{training['lost']['mean']:.1%}" if training["lost"] else "-"
    numbers = {name: counts[key] for name, key in (("pictures", "pictures"), ("to learn from", "train"), ("held out", "held_out"), ("rejected", "rejected"))}
    numbers |= {"groups of copies": facts["copies"]["clusters"], f"captions over {CHUNK} tokens": facts["captions"]["over"]}
    return [*((f"{number:,}", name) for name, number in numbers.items()), (f"{len(training['buckets']):,}", "buckets"), (lost, "cut away by crops")]


def bars(counted: Mapping[str, int]) -> list[View]:
    """Rows of a bar chart: name, count, and the bar's length in percent of the longest."""
    most = max(counted.values(), default=0)
    return [{"name": name, "count": f"{count:,}", "part": 100 * count / most if most else 0} for name, count in counted.items()]


def lengths_svg(lengths: Mapping[int, int]) -> Markup:
    """A histogram of caption lengths in tokens, with the line beyond which SDXL reads nothing."""
    longest = max(CHUNK + 5, *lengths)
    step = math.ceil((longest + 1) / BARS / 5) * 5
    binned = Counter(dict.fromkeys(range(0, longest + 1, step), 0))
    for length, number in lengths.items():
        binned[length // step * step] += number
    most, end = max(binned.values()), max(binned) + step
    parts = []
    for start, number in sorted(binned.items()):
        high = 100 * number / most
        over = " over" if start > CHUNK else ""
        text = Markup('<rect class="bar{}" x="{:.2f}%" width="{:.2f}%" y="{:.2f}%" height="{:.2f}%"><title>{} to {} tokens: {:,}</title></rect>')
        parts.append(text.format(over, 100 * start / end, max(0.5, 100 * step / end - 0.4), 100 - high, high, start, start + step - 1, number))
    limit = Markup('<line class="limit" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>').format(100 * CHUNK / end)
    ticks = Markup("").join(Markup('<text x="{:.2f}%" y="14">{}</text>').format(100 * at / end, at) for at in _ticks(end))
    bars_ = Markup('<svg class="plot" role="img" aria-label="Caption lengths in tokens">{}{}</svg>').format(Markup("").join(parts), limit)
    return bars_ + Markup('<svg class="axis" aria-hidden="true">{}</svg>').format(ticks)


def _ticks(end: int) -> list[int]:
    step = next(size for size in (5, 10, 25, 50, 100, 250, 500, 1000, 10**9) if end / size <= 8)
    return sorted({*range(0, end, step), *([CHUNK] if all(abs(CHUNK - at) > end / 20 or at == CHUNK for at in range(0, end, step)) else [])})


def plane_svg(sizes: Sequence[tuple[int, int]], resolution: int) -> Markup:
    """Widths across, heights up, both in powers of two; a darker cell holds more pictures. The curve is the resolution's area."""
    if not sizes:
        return Markup("")
    low = min(math.floor(math.log2(min(side for size in sizes for side in size))), math.floor(math.log2(resolution)))
    high = max(math.ceil(math.log2(max(side for size in sizes for side in size) + 1)), math.floor(math.log2(resolution)) + 1)
    scale = 1000 / (high - low)
    cells = Counter((int((math.log2(w) - low) * scale // 20), int((math.log2(h) - low) * scale // 20)) for w, h in sizes)
    most = max(cells.values())
    drawn = Markup("").join(
        Markup('<rect x="{}" y="{}" width="19" height="19" fill-opacity="{:.2f}"/>').format(x * 20, 980 - y * 20, 0.25 + 0.75 * number / most)
        for (x, y), number in sorted(cells.items())
    )
    grid = Markup("").join(_grid_line(2**power, (power - low) * scale) for power in range(low, high + 1))
    area = 2 * (math.log2(resolution) - low) * scale
    curve = Markup('<line class="area" x1="{:.0f}" y1="{:.0f}" x2="{:.0f}" y2="{:.0f}"/>').format(*_area_line(area))
    label = f"{len(sizes)} pictures by width and height"
    return Markup('<svg class="plane" viewBox="-95 -20 1140 1075" role="img" aria-label="{}">{}<g class="cells">{}</g>{}</svg>').format(
        label, grid, drawn, curve
    )


def _area_line(total: float) -> tuple[float, float, float, float]:
    """Where width + height (in the plot's units, since logarithms add) is `total`, within the square."""
    left, right = max(0.0, total - 1000), min(1000.0, total)
    return left, 1000 - (total - left), right, 1000 - (total - right)


def _grid_line(pixels: int, at: float) -> Markup:
    lines = '<line class="grid" x1="{0:.0f}" x2="{0:.0f}" y1="0" y2="1000"/><line class="grid" x1="0" x2="1000" y1="{1:.0f}" y2="{1:.0f}"/>'
    words = '<text x="{0:.0f}" y="1040" class="across">{2}</text><text x="-10" y="{3:.0f}" class="up">{2}</text>'
    return Markup(lines + words).format(at, 1000 - at, pixels, 1010 - at)


def _batches(sizes: Mapping[int, int]) -> str:
    return " + ".join(f"{number:,} of {size}" for size, number in sizes.items())


def _buckets(overview: Overview) -> Iterator[View]:
    """Every bucket with some of its pictures, evenly over its members, until the page has enough."""
    members: dict[tuple[int, int], list[Row]] = {}
    for row in overview.manifest.kept:
        if row.file in overview.fits and row.split != "held_out":
            members.setdefault(overview.fits[row.file].bucket, []).append(row)
    room = MOST
    for facts in sorted(overview.facts["training"]["buckets"], key=lambda bucket: -bucket["pictures"]):
        rows = members[facts["width"], facts["height"]]
        step = max(1, len(rows) // SHOWN)
        shots = list(_shots(overview.dataset, rows[::step][: min(SHOWN, room)], overview.fits))
        room -= len(shots)
        yield {**facts, "shots": shots, "more": len(rows) - len(shots)}


def _shots(dataset: Manifest | Streamed, rows: Iterable[Row], fits: Mapping[str, Fit]) -> Iterator[View]:
    for row in rows:
        try:
            picture = read_picture(dataset.path(row))
        except DatasetError:
            continue
        left, top, right, bottom = (100 * edge for edge in window(fits[row.file])) if row.file in fits else (0, 0, 100, 100)
        crop = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
        focus = f"left:{100 * row.focus[0]:.2f}%;top:{100 * row.focus[1]:.2f}%" if row.focus else ""
        yield {"uri": _thumb(picture), "ratio": row.width / row.height, "name": row.file, "size": f"{row.width} x {row.height}", "crop": crop, "focus": focus,
               "lost": f"{fits[row.file].lost:.1%}" if row.file in fits else "", "kept": row.kept, "split": row.split}  # fmt: skip


def _thumb(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _copies(overview: Overview) -> Iterator[list[View]]:
    """The largest groups of copies, a few of each shown."""
    known = {row.file: row for row in overview.manifest.rows}
    for group in overview.facts["copies"]["largest"][:6]:
        rows = [known[member["file"]] for member in group[:6] if known[member["file"]].width]
        if shots := list(_shots(overview.dataset, rows, {})):
            yield shots
