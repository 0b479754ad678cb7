"""Tables of scores as files that other programs read: CSV, Parquet and Markdown, with the same columns in each."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from darkroom.errors import OutputError
from darkroom.files import atomic, write_text
from darkroom.statistics.pairs import ComparisonError
from darkroom.statistics.summary import Summary

Cell = str | int | float | bool | None
SUMMARY = {field.name: {"q25": "25%", "q50": "50%", "q75": "75%"}.get(field.name, field.name) for field in fields(Summary)}
"""What each field of a `Summary`, which says what it means, is called as a column. The guide's columns keep their names."""
PICTURE = ("file", "arm", "prompt", "seed")  # what a picture is; a column for each metric follows


@dataclass(frozen=True)
class Table:
    """Named columns and rows of equal length. None is an empty cell; NaN and infinity become None."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Cell]], columns: Sequence[str] = ()) -> Table:
        """From rows by name; without `columns`, all names in the order in which they first come. What a row lacks is empty."""
        names = tuple(columns) or tuple(dict.fromkeys(name for row in rows for name in row))
        return cls(names, tuple(tuple(_finite(row.get(name)) for name in names) for row in rows))

    def write(self, path: Path) -> None:
        """Write the format that the name ends in, whole or not at all. Raises OutputError."""
        match path.suffix.lower():
            case ".csv":
                write_text(path, self.csv())
            case ".md":
                write_text(path, self.markdown())
            case ".parquet":
                self._parquet(path)
            case other:
                raise OutputError(f'{path}: a table cannot be written as "{other}". End its name in .csv, .parquet or .md.')

    def csv(self) -> str:
        """RFC 4180 in UTF-8, "\\n" line ends; numbers in full (they read back equal), None as nothing."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in row] for row in self.rows)
        return text.getvalue()

    def markdown(self, places: int = 4) -> str:
        """A table that GitHub shows: numbers to the right with so many significant digits, None as "-"."""
        numeric = [all(isinstance(row[i], int | float) or row[i] is None for row in self.rows) for i in range(len(self.columns))]
        lines = [[_plain(name) for name in self.columns], ["---:" if right else "---" for right in numeric]]
        lines += [[_plain(_short(cell, places)) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _parquet(self, path: Path) -> None:
        """Types from the cells: a column of numbers is int64 or float64, of True and False boolean, all else text; an empty one is float64."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [[row[i] for row in self.rows] for i in range(len(self.columns))]
        arrays = [pa.array(cells, type=_arrow(cells)) for cells in columns]
        with atomic(path) as part:
            pq.write_table(pa.table(arrays, names=list(self.columns)), part)


def summary_table(summaries: Sequence[Summary]) -> Table:
    """Name, metric and aggregation, then the poster guide's columns."""
    return Table.of([{title: getattr(row, field) for field, title in SUMMARY.items()} for row in summaries], tuple(SUMMARY.values()))


def picture_table(pictures: Sequence[Mapping[str, Cell]], metrics: Sequence[str]) -> Table:
    """One row a picture: file, arm, prompt, seed (those that any picture has), then a column for each metric.

    Raises ComparisonError for a metric that is called as one of these.
    """
    clash = [name for name in metrics if name in PICTURE]
    if clash:
        raise ComparisonError(f'a metric cannot be called "{clash[0]}": that column says what the picture is. Give the metric another name.')
    kept = [name for name in PICTURE if any(name in picture for picture in pictures)]
    return Table.of(pictures, (*kept, *metrics))


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _short(cell: Cell, places: int) -> str:
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:.{places}g}" if abs(cell) < 10**places else f"{cell:.0f}"
        case _:
            return str(cell)


def _plain(text: str) -> str:
    """One line, no bar that would end the cell, no markup that would run."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split()) or " "


def _arrow(cells: Sequence[Cell]) -> object:
    """pyarrow's type of a column."""
    import pyarrow as pa

    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds <= {bool} and kinds:
        return pa.bool_()
    if kinds <= {int} and kinds:
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()
