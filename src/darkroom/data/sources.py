"""Where pictures come from: a folder with all below it, or a table of URLs and paths. Both become a stream of items in a fixed order.

A folder's links are followed only within it; one that leads out is an item that fails and says so, unless `follow_links` was asked for. A path in a table is
read as the person wrote it, wherever it leads. Hidden files and folders called masks are left alone, as a dataset leaves them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from darkroom.data.adopt import passed_over
from darkroom.data.captions import TABLE, one_line, orphans, read_captions
from darkroom.data.columns import LICENCES, Columns, choose
from darkroom.data.names import safe, stem_of, stems_of
from darkroom.data.picture import ENDINGS
from darkroom.data.proof import Unusable
from darkroom.data.tables import ROWS, Record, byte_columns, is_table, records
from darkroom.errors import DatasetError
from darkroom.files import told as told_as
from darkroom.places.address import is_address

SEEN = ENDINGS | {".jpe", ".tga", ".jp2", ".ico", ".psd", ".svg"}
"""Endings of files that a person takes for pictures: those that are not read must fail by name, not be passed over."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a source."""

    number: int
    address: str
    """The URL or the absolute path."""
    stem: str = ""
    """The name it gets, without its ending."""
    local: Path | None = None
    """Where it lies, if not in the network."""
    caption: str = ""
    licence: str = ""
    repeats: int = 1
    extra: Mapping[str, str] = field(default_factory=dict)
    unusable: Unusable | None = None
    """Why it cannot even be tried."""


@dataclass(frozen=True)
class Wanted:
    """How a source is to be read. Only tables have columns, a prefix and a suffix."""

    columns: Columns = field(default_factory=Columns)
    prefix: str = ""
    suffix: str = ""
    follow_links: bool = False


@dataclass(frozen=True)
class Source:
    """`items` may be called again and gives the same items each time."""

    name: str
    """Its absolute path."""
    label: str
    """What its folder below pictures/ is to be called."""
    count: int
    items: Callable[[], Iterator[Item]]
    told: str
    """How it is read, for the person."""


def open_source(path: Path, wanted: Wanted, dataset: Path) -> Source:
    """The folder or table as a source. Raises DatasetError where it is neither, holds no picture, or does not say which column is meant."""
    whole = Path(name_of(path))
    if path.is_dir():
        if wanted.columns != Columns() or wanted.prefix or wanted.suffix:
            raise DatasetError(f"{path}: is a folder; --column, --prefix and the like are for tables. Leave them out, or name the table in it.")
        return _folder(whole, wanted.follow_links, dataset)
    if not path.exists():
        way_out = "An address goes into a table: a .txt with one a line will do." if "://" in str(path) or ":/" in str(path) else "Name a folder or a table."
        raise DatasetError(f"{path}: there is no such file or folder. {way_out}")
    if not is_table(path):
        raise DatasetError(f"{path}: is neither a folder nor a table (.csv, .tsv, .json, .jsonl, .parquet, .txt). Name the folder that holds your pictures.")
    return _table(whole, wanted)


def name_of(path: Path) -> str:
    """What a source is known by: its absolute path without dots; links stay, for they are what the person calls it."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute leaves the dots in


def _table(path: Path, wanted: Wanted) -> Source:
    head = [record for record in islice(records(path), ROWS) if isinstance(record, dict)]
    if not head:
        raise DatasetError(f"{path}: holds no row that can be read. Look into it, or name another table.")
    columns = choose(str(path), head, wanted.columns)
    count = sum(1 for _ in records(path))

    def items() -> Iterator[Item]:
        return (_row(path, number, record, columns, wanted) for number, record in enumerate(records(path)))

    parts = [f'pictures from "{columns.address}"', f'captions from "{columns.caption}"' if columns.caption else "no captions"]
    parts += [f'licences from "{columns.licence}"'] if columns.licence else []
    parts += [f'"{name}" left out: it holds bytes, and pictures are fetched by address' for name in byte_columns(path)]
    return Source(told_as(str(path)), safe(path.stem), count, items, f"{count:,} rows: {', '.join(parts)}")


def _row(path: Path, number: int, record: Record, columns: Columns, wanted: Wanted) -> Item:
    if isinstance(record, str):
        return Item(number, f"row {number + 1}", unusable=Unusable("a row that cannot be read", record))
    value = record.get(columns.address, "").strip()
    if not value:
        return Item(number, f"row {number + 1}", unusable=Unusable("no address in the row"))
    reference = wanted.prefix + value + wanted.suffix
    told = {
        "caption": one_line(record.get(columns.caption, "")),
        "licence": record.get(columns.licence, ""),
        "extra": {name: text for name, text in record.items() if text and name not in (columns.address, columns.caption, columns.licence)},
    }
    if "://" in reference[:16] or reference.startswith("//"):
        return Item(number, f"https:{reference}" if reference.startswith("//") else reference, stem_of(reference), **told)  # type: ignore[arg-type]
    if reference.startswith("data:"):
        return Item(number, f"row {number + 1}", unusable=Unusable("no address that can be asked", "data: holds the picture itself; write it to a file"))
    local = Path(os.path.normpath(path.parent / reference.replace("\\", "/")))
    address = told_as(str(local))
    return Item(number, address, stem_of(reference), None if is_address(address) else local, **told)  # type: ignore[arg-type]


def _folder(folder: Path, follow_links: bool, dataset: Path) -> Source:
    found = dict(_walk(folder, follow_links, dataset.resolve()))
    files = sorted(found)
    if not any(found[file] is None for file in files):
        raise DatasetError(f"{folder}: holds no picture. Endings read: {', '.join(sorted(ENDINGS))}.")
    captions, stems, facts = read_captions(folder, files), stems_of(files), _facts(folder, files)

    def items() -> Iterator[Item]:
        for number, file in enumerate(files):
            licence, extra = facts.get(file, ("", {}))
            told = captions.captions.get(file, ""), licence, captions.repeats.get(file, 1), extra
            yield Item(number, told_as(str(folder / file)), stems[file], folder / file, *told, found[file])

    told = f"{len(files):,} pictures, {len(captions.captions):,} of them with a caption"
    if lost := orphans(folder, files):
        told += f"; {len(lost):,} text files caption none of them ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''})"
    if words := passed_over(folder, captions.outside):
        told += f"; {words}"
    return Source(told_as(str(folder)), safe(folder.resolve().name), len(files), items, told)


def _walk(folder: Path, follow_links: bool, dataset: Path) -> Iterator[tuple[str, Unusable | None]]:
    """Files below the folder that look like pictures, and links that were not followed."""
    root, walked = folder.resolve(), set()
    for parent, folders, files in os.walk(folder, followlinks=follow_links):
        here = Path(parent)
        if here.resolve() in walked or here.resolve() == dataset:
            folders.clear()
            continue
        walked.add(here.resolve())
        below = here.relative_to(folder)
        links = [] if follow_links else [name for name in folders if (here / name).is_symlink() and not name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".") and name != "masks"]
        yield from (((below / name).as_posix(), Unusable("a link that is not followed", "to a folder; --follow-links")) for name in links)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SEEN:
                leads_out = not follow_links and not (here / name).resolve().is_relative_to(root)
                yield (below / name).as_posix(), Unusable("a link that is not followed", "out of the source; --follow-links") if leads_out else None


def _facts(folder: Path, files: list[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """What the metadata.jsonl beside pictures says of them besides captions: their licence, and the rest."""
    found = {}
    for parent in sorted({file.rpartition("/")[0] for file in files} | {""}):
        table = folder / parent / TABLE
        for record in records(table) if table.is_file() else ():
            if isinstance(record, dict) and (name := record.pop("file_name", "")):
                licence = next((record.pop(key) for key in list(record) if key.lower() in LICENCES), "")
                rest = {key: value for key, value in record.items() if value and key not in ("text", "caption")}
                found[f"{parent}/{name}" if parent else name] = licence, rest
    return found
