"""Tables read back equal, by other programs' readers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from darkroom.errors import OutputError
from darkroom.statistics import ComparisonError, Table, describe, picture_table, summary_table

HOSTILE = 'a "cat",\n| thor |; <script>'
PICTURES = [
    {"file": "a.png", "prompt": "a cat", "seed": 1, "clip": 1 / 3, "aesthetic": 5.0},
    {"file": "b.png", "prompt": HOSTILE, "seed": 2, "clip": math.nan},
]


def test_a_row_a_picture_and_a_column_a_metric() -> None:
    table = picture_table(PICTURES, ["clip", "aesthetic"])
    assert table.columns == ("file", "prompt", "seed", "clip", "aesthetic")
    assert table.rows == (("a.png", "a cat", 1, 1 / 3, 5.0), ("b.png", HOSTILE, 2, None, None))
    with pytest.raises(ComparisonError, match='a metric cannot be called "seed"'):
        picture_table(PICTURES, ["seed"])


def test_the_summary_has_the_guides_columns() -> None:
    table = summary_table([*describe([1.0, 2.0, 4.0], ["a", "a", "b"], [20, 21, 22], "base", "aesthetic")])
    assert table.columns == (
        "name", "metric", "aggregation", "prompts", "count", "missing",
        "mean", "std", "min", "25%", "50%", "75%", "max", "skew", "kurtosis", "clip_mean", "clip_std",
    )  # fmt: skip
    assert [row[:3] for row in table.rows] == [("base", "aesthetic", "pooled"), ("base", "aesthetic", "mean of prompts")]


def test_csv_reads_back_equal(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="the oracle")
    table = picture_table(PICTURES, ["clip", "aesthetic"])
    table.write(tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv")
    assert list(frame.columns) == list(table.columns) and frame["clip"][0] == 1 / 3 and frame["prompt"][1] == HOSTILE and math.isnan(frame["clip"][1])


def test_parquet_reads_back_equal_and_typed(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [{**PICTURES[0], "kept": True, "nothing": None, "mixed": 1}, {**PICTURES[1], "kept": False, "mixed": 1.5}]
    Table.of(rows).write(tmp_path / "t.parquet")
    read = pq.read_table(tmp_path / "t.parquet")
    types = {field.name: str(field.type) for field in read.schema}
    assert types == {
        "file": "string", "prompt": "string", "seed": "int64", "clip": "double", "aesthetic": "double", "kept": "bool", "nothing": "double", "mixed": "double"
    }  # fmt: skip
    assert read.column("clip").to_pylist() == [1 / 3, None] and read.column("prompt").to_pylist()[1] == HOSTILE


def test_markdown_keeps_its_shape_whatever_a_prompt_says(tmp_path: Path) -> None:
    from markdown_it import MarkdownIt

    picture_table(PICTURES, ["clip", "aesthetic"]).write(tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    cells = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type in ("th_open", "td_open")]
    assert cells[:5] == ["file", "prompt", "seed", "clip", "aesthetic"]
    assert cells[5:10] == ["a.png", "a cat", "1", "0.3333", "5"] and cells[13:] == ["-", "-"] and len(cells) == 15
    assert "<script" not in text and "---: | ---: |\n" in text


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r'cannot be written as "\.xlsx"\. End its name in \.csv, \.parquet or \.md'):
        Table(("a",), ((1,),)).write(tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())


def test_no_rows_is_a_table_too(tmp_path: Path) -> None:
    for ending in ("csv", "parquet", "md"):
        summary_table([]).write(tmp_path / f"t.{ending}")
    assert (tmp_path / "t.csv").read_text().startswith("name,metric,aggregation")
