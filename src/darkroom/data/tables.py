"""The rows of any table, a piece at a time: CSV, TSV, JSON, JSON lines, Parquet, or a plain list of addresses. Every value becomes text."""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darkroom.errors import DatasetError
from darkroom.fence import let

ENDINGS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "lines", ".ndjson": "lines", ".parquet": "parquet", ".pq": "parquet",
    ".txt": "list",
}  # fmt: skip
Record = dict[str, str] | str
"""A row by its columns; or, as text, why it cannot be read."""
PIECE = 1 << 20
ROWS = 1000
LIST_COLUMN = "address"


def is_table(path: Path) -> bool:
    """Whether the file's ending is that of a table."""
    return path.suffix.lower() in ENDINGS


def records(path: Path) -> Iterator[Record]:
    """Every row of the table in its order; a table larger than the memory can be read. Raises DatasetError where it is no such table."""
    try:
        match ENDINGS.get(path.suffix.lower()):
            case "csv":
                yield from _csv(path, "")
            case "tsv":
                yield from _csv(path, "\t")
            case "lines":
                yield from _lines(path)
            case "json":
                yield from _json(path)
            case "parquet":
                yield from _parquet(path)
            case "list":
                yield from _list(path)
            case _:
                raise DatasetError(f"{path}: is no table that is read. Endings read: {', '.join(sorted(ENDINGS))}.")
    except UnicodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}. Name the table, or the folder of pictures.") from None


def text_of(value: Any) -> str:
    """A cell as text; "" where there is nothing. Lists and tables inside a cell become JSON."""
    match value:
        case None:
            return ""
        case str():
            return value if value.isascii() else value.encode(errors="replace").decode()  # half a surrogate pair is no text
        case float() if not math.isfinite(value):
            return ""
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case dict() | list() | tuple():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2)
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _csv(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(1 << 24)
    with path.open(encoding=_encoding(path), newline="") as file:
        if not delimiter:
            delimiter = _delimiter(file.readline())
            file.seek(0)
        rows = csv.reader(file, delimiter=delimiter)
        try:
            names = _header(next(rows, []), path)
            for cells in rows:
                if cells:
                    yield _cells(names, cells)
        except csv.Error as error:
            raise DatasetError(f"{path}, line {rows.line_num}: is not CSV: {error}. Correct that line.") from None


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count)


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    if not names:
        raise DatasetError(f"{path}: is empty. The first line must name the columns.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DatasetError(f"{path}: two columns are called {twice[0]!r}. Rename one of them in the first line.")
    return names


def _cells(names: list[str], cells: list[str]) -> Record:
    if any(cell.strip() for cell in cells[len(names) :]):
        return f"{len(cells)} cells where the first line names {len(names)} columns"
    return dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=False))


def _lines(path: Path) -> Iterator[Record]:
    with path.open(encoding=_encoding(path)) as file:
        for line in file:
            if line.strip():
                try:
                    yield _object(json.loads(line))
                except json.JSONDecodeError as error:
                    yield f"no JSON: {error.msg} in {line[:60].strip()!r}"


def _list(path: Path) -> Iterator[Record]:
    with path.open(encoding=_encoding(path)) as file:
        yield from ({LIST_COLUMN: line.strip()} for line in file if line.strip() and not line.startswith("#"))


def _object(value: Any) -> Record:
    match value:
        case dict():
            return {str(key): text_of(inner) for key, inner in value.items()}
        case str():
            return {LIST_COLUMN: value}
        case _:
            return f"a row must be an object, and this is {json.dumps(value)[:60]}"


def _json(path: Path) -> Iterator[Record]:
    """An array, decoded one element at a time; or JSON lines under the wrong name."""
    with path.open(encoding=_encoding(path)) as file:
        text = file.read(PIECE)
        match text.lstrip()[:1]:
            case "[":
                yield from _array(text.lstrip()[1:], file, path)
            case "{" if _stands_alone(text.lstrip().partition("\n")[0]):
                yield from _lines(path)
            case _:
                raise DatasetError(f'{path}: begins with {text[:40]!r}; expected an array of objects, [{{"url": "..."}}, ...], or one object a line.')


def _stands_alone(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _array(text: str, file: Any, path: Path) -> Iterator[Record]:
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if text[at : at + 1] == "]":
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            more = file.read(max(PIECE, len(text) - at))
            if not more:
                raise DatasetError(f"{path}: is not whole JSON: {error.msg} in {text[at : at + 60]!r}. Write it again.") from None
            text, at = text[at:] + more, 0
            continue
        yield _object(value)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(let(path)) as file:
            names = [column.name for column in file.schema_arrow if not _holds_bytes(column.type)]
            if not names:
                raise DatasetError(f"{path}: holds pictures or other bytes and no text; an address or a path is needed. Write the pictures to files first.")
            for batch in file.iter_batches(ROWS, columns=names):
                yield from (_object(row) for row in batch.to_pylist())
    except pa.ArrowException as error:
        raise DatasetError(f"{path}: is not Parquet: {error}. Write it again, or name another file.") from None


def byte_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that are left out because they hold bytes; none of any other table."""
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        return []
    with pq.ParquetFile(let(path)) as file:
        return [column.name for column in file.schema_arrow if _holds_bytes(column.type)]


def _holds_bytes(kind: Any) -> bool:
    """Whether a column holds bytes (pictures inside the table, as Hugging Face's `Image` has them), which are no text."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
