"""The contact sheet of a screening: one HTML file with what was rejected and why, the duplicates side by side, and some of what was kept.

It opens anywhere and needs nothing from outside; filters work without a script. What it shows is bounded, and it says what it leaves out.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import webbrowser
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from darkroom.data.checks import CHECKS
from darkroom.data.manifest import Manifest, Row
from darkroom.data.picture import BrokenPicture, opened, to_rgb, upright
from darkroom.data.screening import DUPLICATE
from darkroom.files import write_text
from darkroom.jobs.engine import Engine, Local, Work
from darkroom.jobs.screen import Screened, kinds
from darkroom.jobs.watch import Silent, Watcher

FILE = "screening.html"
PER_REASON, CLUSTERS, MEMBERS, KEPT, OWN = 120, 90, 8, 48, 60  # pictures of a reason; clusters, and pictures of one; kept ones; a person's own
SIDE, QUALITY = 176, 74  # pixels of the longer side, and JPEG quality, of a thumbnail: about 5 kB
TOO_LARGE = 89_478_485  # pixels: larger ones are not unpacked for a thumbnail
View = dict[str, Any]


@dataclass(frozen=True)
class _Shown:
    """Rows that are shown of all there are."""

    rows: tuple[Row, ...]
    all: int


def contact_sheet(screened: Screened, path: Path | None = None, watcher: Watcher = Silent(), engine: Engine | None = None) -> Path:
    """Write the sheet, beside the manifest where no path is given, and return where it lies. Raises OutputError."""
    manifest = screened.manifest
    path = path or manifest.folder / FILE
    groups, clusters = _groups(manifest.rows), _clusters(manifest.rows)
    kept = _some([row for row in manifest.rows if row.kept], KEPT)
    own = _some([row for row in manifest.rows if row.overruled], OWN)
    wanted = {row.file: row for shown in (*groups.values(), kept, own) for row in shown.rows} | {row.file: row for rows, _ in clusters for row in rows}
    thumbs = _thumbs(manifest, list(wanted.values()), watcher, engine or Local())

    def card(row: Row) -> View:
        return _card(row, thumbs.get(row.file, ""))

    write_text(path, _page(screened, groups, clusters, kept, own, card))
    return path


def open_page(path: Path) -> bool:
    """Show the page in a browser where a person sits before one: at a terminal, with a screen."""
    screen = sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return bool(screen and sys.stdout.isatty() and webbrowser.open(path.resolve().as_uri()))


def _groups(rows: Sequence[Row]) -> dict[str, _Shown]:
    """Rejected pictures by their first reason; those that are duplicates and nothing else stand with their clusters."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.reasons and kinds(row)[0] != DUPLICATE:
            found[kinds(row)[0]].append(row)
    ordered = [kind for kind in CHECKS if kind in found] + sorted(kind for kind in found if kind not in CHECKS)
    return {kind: _some(found[kind], PER_REASON) for kind in ordered}


def _clusters(rows: Sequence[Row]) -> list[tuple[list[Row], int]]:
    """The largest clusters, each with its best first and the number of all its pictures."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.cluster:
            found[row.cluster].append(row)
    largest = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:CLUSTERS]
    return [(sorted(members, key=lambda row: (row.file != best, row.file))[:MEMBERS], len(members)) for best, members in largest]


def _some(rows: Sequence[Row], most: int) -> _Shown:
    """At most so many, evenly from the first name to the last."""
    picked = rows if len(rows) <= most else [rows[number * len(rows) // most] for number in range(most)]
    return _Shown(tuple(picked), len(rows))


def _thumbs(manifest: Manifest, rows: Sequence[Row], watcher: Watcher, engine: Engine) -> dict[str, str]:
    """Data URIs by file; "" for what cannot be shown."""
    found = {}
    for done, (file, uri) in enumerate(engine.each(Thumbing(), [(row.file, manifest.path(row)) for row in rows]), 1):
        found[file] = uri
        watcher.move("contact sheet", done, len(rows))
    return found


@dataclass(frozen=True)
class Thumbing(Work[tuple[str, Path], tuple[str, str]]):
    """Thumbnails of files; none of one whose decoder dies."""

    def open(self) -> Callable[[Sequence[tuple[str, Path]]], list[tuple[str, str]]]:
        return lambda files: [thumb_uri(file) for file in files]

    def died(self, item: tuple[str, Path]) -> tuple[str, str]:
        return item[0], ""


def thumb_uri(item: tuple[str, Path]) -> tuple[str, str]:
    """The file with its thumbnail as a data URI; "" where it cannot be read, or is too large to be unpacked for that."""
    file, path = item
    try:
        with opened(path) as picture:
            if picture.width * picture.height > TOO_LARGE and picture.format != "JPEG":
                return file, ""
            picture.draft(None, (SIDE, SIDE))
            picture.load()
            small = upright(picture)
            small.info = dict(picture.info)
    except BrokenPicture:
        return file, ""
    small = to_rgb(small)
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return file, "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _card(row: Row, uri: str) -> View:
    told = [reason.partition(": ")[::2] for reason in row.reasons]
    reasons = [(kind, why.partition(". ")[0].rstrip(".") + ".") for kind, why in told]  # the way out stands above, and in the manifest
    return {
        "file": row.file,
        "name": row.file.rpartition("/")[2],
        "uri": uri,
        "size": f"{row.width} x {row.height} {row.format}" if row.width else row.format or "no picture",
        "kept": row.kept,
        "own": row.overruled,
        "reasons": reasons,
        "classes": " ".join(f"r-{kind}" for kind, _ in reasons),
    }


def _page(screened: Screened, groups: dict[str, _Shown], clusters: list[tuple[list[Row], int]], kept: _Shown, own: _Shown, card: Callable[[Row], View]) -> str:
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    env.filters["thousands"] = lambda number: f"{number:,}"
    template = env.from_string(Path(__file__).with_name("contact.html.j2").read_text("utf-8"))
    folder = screened.manifest.folder.resolve()
    asks = {kind: (rule.__doc__ or "").splitlines()[0] for kind, rule in CHECKS.items()}
    return template.render(
        title=folder.name or str(folder),
        folder=str(screened.manifest.folder),
        facts=screened.facts,
        groups=[{"kind": kind, "asks": asks.get(kind, ""), "all": shown.all, "cards": [card(row) for row in shown.rows]} for kind, shown in groups.items()],
        clusters=[{"all": count, "cards": [card(row) for row in rows]} for rows, count in clusters],
        kept={"all": kept.all, "cards": [card(row) for row in kept.rows]},
        own={"all": own.all, "cards": [card(row) for row in own.rows]},
        reasons=list(screened.facts["reasons"].items()),
        checks=[(kind, ", ".join(f"{name} {value}" for name, value in limits.items())) for kind, limits in screened.screening.tree().items()],
        duplicate=DUPLICATE,
    )
