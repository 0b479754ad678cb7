"""The dataset on disk: a folder of pictures and one Parquet file that says of each what it is, what it is called and what was decided about it.

    DATASET/manifest.parquet    one row a picture; written whole or not at all
    DATASET/pictures/...        where `darkroom collect` puts them; a folder of your own keeps its names

A plain folder becomes a dataset by `Manifest.of(folder)`: nothing in it is moved or changed, the manifest is laid beside the pictures. No row is ever
dropped because of a verdict: a decision is a word with a reason, and a person's word (`overruled`) wins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darkroom.data.merge import Differ, merged_notes, merged_rows
from darkroom.data.turn import one_at_a_time
from darkroom.errors import DatasetError, OutputError
from darkroom.fence import current, let
from darkroom.files import atomic, sha256_bytes, sha256_file, told

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.parquet"
NOTES = b"darkroom"
Verdict = Literal["", "keep", "reject"]
Split = Literal["", "train", "held_out"]
ORIGINAL = "original"
"""The name of the caption that a picture came with; those written by a program go by its name: "template", "blip", "wd", "pocket" ..."""


@dataclass(frozen=True, slots=True)
class Row:
    """One picture. Everything but `file` may be unknown: "" or 0."""

    file: str
    """Where it lies, below the dataset's folder, with "/" on every system: the row's name, unique and sorted by."""
    sha256: str = ""
    width: int = 0
    """In pixels after EXIF rotation; 0 where the file cannot be read as a picture."""
    height: int = 0
    size: int = 0
    """Bytes of the file."""
    changed: int = 0
    """The file's time of change in nanoseconds: with `size` it tells whether the file must be read again."""
    format: str = ""
    """As Pillow names it: JPEG, PNG, WEBP, MPO ..."""
    source: str = ""
    """The URL or path it was collected from."""
    status: str = ""
    """What came back: "200", "copied" ..."""
    fetched: str = ""
    """When, in ISO 8601, UTC."""
    licence: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    """What was said of it, by whom: {"original": "a cat", "blip": "a grey cat on a sofa"}. None is lost when another is written."""
    beside: str = ""
    """The file beside the picture that its own caption was read from; "" where its table said it, or nothing did."""
    chosen: str = ""
    """Which of the captions is learned from; "" is the picture's own where it has one, else the recipe's template."""
    verdict: Verdict = ""
    """What screening found; "" is not screened."""
    reasons: tuple[str, ...] = ()
    """Why it was rejected, in words with the figure and the limit."""
    overruled: Verdict = ""
    """A person's word, which wins."""
    cluster: str = ""
    """Duplicates share it: the `file` of the best of them; "" where there is no other."""
    split: Split = ""
    mask: str = ""
    """A file below the folder: white is learned from, black is not."""
    focus: tuple[float, float] | None = None
    """Where the subject is, as parts of width and height (0 to 1, from the left and from the top)."""
    repeats: int = 1
    """How often an epoch shows it."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What screening measured: {"sharpness": 143.2, ...}."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """The other columns of the table it came from."""

    @property
    def kept(self) -> bool:
        """Whether it is learned from: a person's word, else the verdict; what nobody judged is kept."""
        return (self.overruled or self.verdict or "keep") == "keep"

    @property
    def caption(self) -> str:
        """The caption that is learned from; "" where it has none."""
        return self.captions.get(self.chosen or ORIGINAL, "")

    def but(self, **changes: Any) -> Row:
        """The same row with other values."""
        return dataclasses.replace(self, **changes)


class Overtaken(OutputError):
    """Another command changed the same of the manifest since it was read."""


@dataclass(frozen=True)
class Manifest:
    """All rows of a dataset, sorted by file, and `notes`: what each command did to it, by the command's name."""

    folder: Path
    rows: tuple[Row, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    read_as: str = ""
    """sha256 of the manifest file these rows were read from; "" for a new one."""
    origin: Manifest | None = field(default=None, repr=False, compare=False)
    """What was read, where it was changed since."""

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """The manifest as it was written. Raises DatasetError where there is none or it is damaged; for a page also where it names what is not below it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = folder / MANIFEST
        if not path.is_file():
            raise DatasetError(f"{folder}: is no dataset ({MANIFEST} is missing). `darkroom collect SOURCE --to {folder}` makes one.")
        path = let(path)
        try:
            data = path.read_bytes()  # once: what is hashed must be what is read, whoever writes meanwhile
            table = pq.read_table(pa.BufferReader(data))
            notes = json.loads((table.schema.metadata or {}).get(NOTES, b"{}"))
            rows = tuple(_row(values) for values in table.to_pylist(maps_as_pydicts="strict"))
            if current() is not None:
                _check_names(rows)
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
            raise DatasetError(f"{path}: is damaged or not Darkroom's ({error}). Put a copy back, or collect into another folder.") from None
        return cls(folder, rows, notes, sha256_bytes(data))

    def save(self) -> Manifest:
        """Write it whole. What another command wrote meanwhile is kept where it changed other values; the rows that were saved are returned.

        Raises OutputError; Overtaken where both changed the same value of a picture, and one's work would be lost.
        """
        import pyarrow.parquet as pq

        path = self.folder / MANIFEST
        with one_at_a_time(path):
            there = sha256_file(path) if path.is_file() else ""
            whole = self if there == self.read_as else self._beside()
            with atomic(path) as part:
                pq.write_table(_table(whole.rows, whole.notes), part, compression="zstd")
            return dataclasses.replace(whole, read_as=sha256_file(path), origin=None)

    def _beside(self) -> Manifest:
        """With what lies there now. Raises Overtaken."""
        old, theirs = self.origin or self, Manifest.open(self.folder)
        try:
            rows = merged_rows(old.rows, self.rows, theirs.rows, Row)
        except Differ as which:
            raise Overtaken(
                f"{self.folder / MANIFEST}: another command changed the same in the meantime ({which}), and its work would be lost. Run this one again."
            ) from None
        return self.but(rows, **merged_notes(old.notes, self.notes, theirs.notes))

    def but(self, rows: Iterable[Row], **notes: Any) -> Manifest:
        """The same dataset with other rows, and a note under the command's name. Raises ValueError where two rows share a file."""
        ordered = tuple(sorted(rows, key=lambda row: row.file))
        if len({row.file for row in ordered}) != len(ordered):
            raise ValueError("two rows of a manifest must not share a file")
        return dataclasses.replace(self, rows=ordered, notes={**self.notes, **notes}, origin=self.origin or self)

    @cached_property
    def kept(self) -> tuple[Row, ...]:
        """The rows that are learned from, or held out."""
        return tuple(row for row in self.rows if row.kept)

    @property
    def hash(self) -> str:
        """A name for what would be learned: kept pictures, their captions, masks and splits."""
        told = [[r.file, r.sha256, dict(sorted(r.captions.items())), r.chosen, r.split, r.mask, r.repeats] for r in self.kept]
        return sha256_bytes(json.dumps(told, ensure_ascii=False).encode(errors="surrogateescape"))  # a name on the disk need not be Unicode

    def path(self, row: Row) -> Path:
        """Where the row's picture lies."""
        return self.folder / row.file

    def mask(self, row: Row) -> Path | None:
        """Where its mask lies, if it has one."""
        return self.folder / row.mask if row.mask else None


def is_dataset(folder: Path) -> bool:
    """Whether a manifest lies in the folder."""
    return (folder / MANIFEST).is_file()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"width": pa.int32(), "height": pa.int32(), "size": pa.int64(), "changed": pa.int64(), "repeats": pa.int32()}
    kinds |= {"captions": pa.map_(pa.string(), pa.string()), "extra": pa.map_(pa.string(), pa.string()), "figures": pa.map_(pa.string(), pa.float64())}
    kinds |= {"reasons": pa.list_(pa.string()), "focus": pa.list_(pa.float64(), 2)}
    return pa.schema([pa.field(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Row)])


def _table(rows: Iterable[Row], notes: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    schema = _schema()
    rows = list(rows)
    columns = []
    for kind in schema:
        values = [getattr(row, kind.name) for row in rows]
        columns.append(pa.array([list(v.items()) for v in values] if pa.types.is_map(kind.type) else values, kind.type))
    return pa.Table.from_arrays(columns, schema=schema.with_metadata({NOTES: told(json.dumps(dict(notes), ensure_ascii=False, default=str))}))


def _check_names(rows: Iterable[Row]) -> None:
    """That pictures and masks lie below the folder by their names, for a page can bring any manifest. Raises ValueError."""
    for name in (name for row in rows for name in (row.file, row.mask) if name):
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/") or ":" in name[:2] or "\\" in name[:2]:
            raise ValueError(f"{name!r} is no name below the folder")


def _row(values: dict[str, Any]) -> Row:
    known = {f.name for f in dataclasses.fields(Row)}
    found = {key: value for key, value in values.items() if key in known and value is not None}
    found |= {key: tuple(found[key]) for key in ("reasons", "focus") if key in found}
    return Row(**found)
