"""The pictures of a dataset as a list that is looked through: what each is and how it would be cut, by filter and order, a page at a time.

A sheet is read once and kept while the manifest stays as it is: 10,000 rows are asked for in pages of a hundred.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from darkroom.data.adopt import Changes, adopt
from darkroom.data.buckets import Fit
from darkroom.data.crops import window
from darkroom.data.manifest import MANIFEST, ORIGINAL, Manifest, Row, is_dataset
from darkroom.errors import RecipeError, did_you_mean
from darkroom.jobs.edit import Change, edit
from darkroom.jobs.overview import Overview, View, fits_of, overview_of
from darkroom.jobs.screen import kinds
from darkroom.jobs.tokens import CHUNK, count_tokens

OPEN = 4
"""Datasets that are kept in memory."""
BY_HAND = "by hand"


@dataclass(frozen=True)
class Query:
    """Which rows, in which order."""

    filter: str = "all"
    """all, kept, rejected, overruled, unscreened, uncaptioned, long, held_out, copies, reason:KIND, bucket:WxH, cluster:FILE."""
    text: str = ""
    """Only rows whose name or caption holds it."""
    sort: str = "name"
    down: bool = False


@dataclass(frozen=True)
class Sheet:
    """A dataset, and what is asked of it again and again."""

    manifest: Manifest
    changes: Changes = field(default_factory=Changes)
    counted: Mapping[str, int] = field(default_factory=dict)
    """Tokens of captions that were counted before."""
    views: dict[View, Overview] = field(default_factory=dict)
    cuts: dict[View, dict[str, Fit]] = field(default_factory=dict)
    found: OrderedDict[tuple[Query, View], tuple[Row, ...]] = field(default_factory=OrderedDict)

    @property
    def stamp(self) -> str:
        """Names this state of the dataset."""
        return self.manifest.read_as[:16] or "plain"

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Tokens of each caption that is learned from."""
        captions = {row.caption for row in self.manifest.rows if row.caption}
        return {caption: self.counted[caption] for caption in captions & self.counted.keys()} | count_tokens(captions - self.counted.keys())

    @cached_property
    def by_file(self) -> dict[str, Row]:
        return {row.file: row for row in self.manifest.rows}

    def overview(self, view: View) -> Overview:
        """How a training would cut it. Raises RecipeError, ModelError."""
        if view not in self.views:
            self.views[view] = overview_of(self.manifest, self.changes, view, str(self.manifest.folder))
        return self.views[view]

    def fits(self, view: View) -> dict[str, Fit]:
        """How each kept row is cut, by its file. Raises RecipeError."""
        if view not in self.cuts:
            self.cuts[view] = fits_of(self.manifest.kept, view)
        return self.cuts[view]

    def rows(self, query: Query, view: View) -> tuple[Row, ...]:
        """The rows that the query asks for, in its order. Raises RecipeError for an unknown filter or order."""
        if (query, view) not in self.found:
            wanted, order = self._filter(query.filter, view), self._order(query.sort, view)
            text = query.text.casefold().strip()
            rows = [row for row in self.manifest.rows if wanted(row) and (not text or text in row.file.casefold() or text in row.caption.casefold())]
            self.found[query, view] = tuple(sorted(rows, key=order, reverse=query.down))
            while len(self.found) > 2 * OPEN:
                self.found.popitem(last=False)
        return self.found[query, view]

    def _filter(self, name: str, view: View) -> Callable[[Row], bool]:
        word, _, rest = name.partition(":")
        simple: dict[str, Callable[[Row], bool]] = {
            "all": lambda row: True,
            "kept": lambda row: row.kept,
            "rejected": lambda row: not row.kept,
            "overruled": lambda row: bool(row.overruled),
            "unscreened": lambda row: not row.verdict,
            "uncaptioned": lambda row: not row.caption,
            "long": lambda row: self.tokens.get(row.caption, 0) > CHUNK,
            "held_out": lambda row: row.kept and row.split == "held_out",
            "copies": lambda row: bool(row.cluster),
        }
        if word in simple and not rest:
            return simple[word]
        match word:
            case "reason":
                return lambda row: rest in _reasons(row)
            case "cluster":
                return lambda row: row.cluster == rest
            case "bucket":
                fits = self.fits(view)
                return lambda row: row.file in fits and _shape(fits[row.file]) == rest
        raise RecipeError(f'the filter "{name}" is not known.{did_you_mean(name, simple)}')

    def _order(self, name: str, view: View) -> Callable[[Row], Any]:
        orders: dict[str, Callable[[Row], Any]] = {
            "name": lambda row: row.file,
            "verdict": lambda row: (row.kept, row.reasons, row.file),
            "sharpness": lambda row: (row.figures.get("sharpness", -1.0), row.file),
            "pixels": lambda row: (row.width * row.height, row.file),
            "tokens": lambda row: (self.tokens.get(row.caption, 0), row.file),
            "caption": lambda row: (row.caption.casefold(), row.file),
        }
        if name == "lost":
            fits = self.fits(view)
            return lambda row: (fits[row.file].lost if row.file in fits else -1.0, row.file)
        if name not in orders:
            raise RecipeError(f'the order "{name}" is not known.{did_you_mean(name, (*orders, "lost"))}')
        return orders[name]

    @cached_property
    def counts(self) -> dict[str, Any]:
        """How many rows each filter finds."""
        rows = self.manifest.rows
        plain = ("all", "kept", "rejected", "overruled", "unscreened", "uncaptioned", "long", "held_out", "copies")
        reasons = Counter(reason for row in rows for reason in _reasons(row))
        return {
            "filters": {name: sum(map(self._filter(name, View()), rows)) for name in plain},
            "reasons": dict(reasons.most_common()),
            "sources": dict(Counter(by for row in rows for by, text in row.captions.items() if text).most_common()),
            "clusters": len({row.cluster for row in rows if row.cluster}),
        }

    def clusters(self) -> list[list[Row]]:
        """Copies that belong together, the best first; the largest groups first."""
        found: dict[str, list[Row]] = {}
        for row in self.manifest.rows:
            if row.cluster:
                found.setdefault(row.cluster, []).append(row)
        ordered = [sorted(rows, key=lambda row: (row.file != best, -row.width * row.height, row.file)) for best, rows in found.items()]
        return sorted(ordered, key=lambda rows: (-len(rows), rows[0].file))

    def told(self, row: Row, fits: Mapping[str, Fit]) -> dict[str, Any]:
        """One row for a page."""
        fit = fits.get(row.file)
        cut = {"bucket": list(fit.bucket), "window": list(window(fit)), "lost": fit.lost, "enlarged": fit.enlarges(row.width, row.height)} if fit else None
        return {
            "file": row.file, "width": row.width, "height": row.height, "size": row.size, "format": row.format, "changed": str(row.changed),
            "kept": row.kept, "verdict": row.verdict, "overruled": row.overruled, "reasons": row.reasons, "cluster": row.cluster, "split": row.split,
            "caption": row.caption, "captions": dict(row.captions), "chosen": row.chosen or (ORIGINAL if row.caption else ""), "source": row.source,
            "beside": row.beside, "tokens": self.tokens.get(row.caption, 0), "figures": dict(row.figures), "focus": row.focus, "mask": row.mask,
            "repeats": row.repeats, "cut": cut,
        }  # fmt: skip


def _reasons(row: Row) -> Sequence[str]:
    """What speaks against a row: the checks, and a person's word."""
    return [*dict.fromkeys(kinds(row)), *([BY_HAND] if row.overruled == "reject" else [])]


def _shape(fit: Fit) -> str:
    return f"{fit.bucket[0]}x{fit.bucket[1]}"


class Sheets:
    """The sheets that are open, by folder; for many threads."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[object, Sheet]] = OrderedDict()
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def open(self, folder: Path, fresh: bool = False) -> Sheet:
        """The dataset as its manifest says, read anew where that was written; as its files are where it has none, or `fresh`. Raises DatasetError."""
        mark = _mark(folder)
        with self._guard:
            kept = self._open.get(folder)
        if kept is not None and kept[0] == mark and not fresh:
            return kept[1]  # nobody waits for one who reads the files
        with self._lock(folder):
            return self._opened(folder, fresh)

    def change(self, folder: Path, change: Change) -> Sheet:
        """Change it and save it. Raises DatasetError, OutputError, and what `change` raises."""
        with self._lock(folder):
            sheet = self._opened(folder, False)
            changed = edit(folder, change, sheet.manifest)
            return self._keep(folder, Sheet(changed, counted=sheet.tokens)) if changed is not sheet.manifest else sheet

    def _opened(self, folder: Path, fresh: bool) -> Sheet:
        mark = _mark(folder)
        kept = self._open.get(folder)
        if kept is not None and kept[0] == mark and not fresh:
            return kept[1]
        manifest, changes = (Manifest.open(folder), Changes()) if is_dataset(folder) and not fresh else adopt(folder)
        if kept is not None and kept[0] == mark and kept[1].manifest.rows == manifest.rows:
            return kept[1]
        return self._keep(folder, Sheet(manifest, changes, kept[1].tokens if kept else {}), mark)

    def _keep(self, folder: Path, sheet: Sheet, mark: object = None) -> Sheet:
        with self._guard:
            self._open[folder] = (mark or _mark(folder), sheet)
            self._open.move_to_end(folder)
            while len(self._open) > OPEN:
                self._open.popitem(last=False)
        return sheet

    def _lock(self, folder: Path) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(folder, threading.Lock())


def _mark(folder: Path) -> object:
    """What changes whenever the manifest is written."""
    try:
        stat = (folder / MANIFEST).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
