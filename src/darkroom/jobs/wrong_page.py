"""The contact sheet of an album: one HTML file with every picture, a row for each word, to be looked at before anything is learned from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from darkroom.data.manifest import Manifest, Row
from darkroom.files import write_text
from darkroom.jobs.contact import thumb_uri

if TYPE_CHECKING:
    from darkroom.jobs.wrong import Album

MOST = 600
"""Pictures on the page: about 5 kB each."""


def render(manifest: Manifest, album: Album, path: Path) -> Path:
    """Write the page and return where it lies. Raises OutputError."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("wrong_page.html.j2").read_text("utf-8"))
    each = max(1, MOST // len(album.words))
    rows = [{"word": word, "mark": f"{album.weights.get(word, album.boost):g}", "cards": _cards(manifest, word, each)} for word in album.words]
    shown = sum(len(row["cards"]) for row in rows)
    page = template.render(
        title=manifest.folder.resolve().name, folder=str(manifest.folder), album=album, rows=rows, shown=shown, all=len(manifest.rows),
        low=f"{album.guidance[0]:g}", high=f"{album.guidance[1]:g}", prompt=next(iter(album.shots())).prompt,
    )  # fmt: skip
    write_text(path, page)
    return path


def _cards(manifest: Manifest, word: str, most: int) -> list[dict[str, Any]]:
    rows = [row for row in manifest.rows if row.extra.get("word") == word][:most]
    return [_card(manifest, row) for row in rows]


def _card(manifest: Manifest, row: Row) -> dict[str, Any]:
    uri = thumb_uri((row.file, manifest.path(row)))[1]
    return {"uri": uri, "guidance": row.extra["guidance"], "scene": row.extra["scene"], "prompt": row.extra["prompt"], "small": row.width < 176}
