"""Every kind of table gives the same rows, read a piece at a time; what is wrong with one is said, and which column is meant is never guessed in doubt."""

from __future__ import annotations

import json
import math
import tracemalloc
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.data.columns import Columns, choose
from darkroom.data.tables import records, text_of
from darkroom.errors import DatasetError

ROWS = [
    {"url": "https://a/1.png", "text": 'a "quoted", cat\nof two lines', "n": 1, "score": 0.5, "tags": ["x", "y"]},
    {"url": "https://a/ü.png", "text": "", "n": None, "score": math.nan, "tags": []},
    {"url": "", "text": "日本", "n": 3, "score": 2.0, "tags": None},
]
AS_TEXT = [
    {"url": "https://a/1.png", "text": 'a "quoted", cat\nof two lines', "n": "1", "score": "0.5", "tags": '["x", "y"]'},
    {"url": "https://a/ü.png", "text": "", "n": "", "score": "", "tags": "[]"},
    {"url": "", "text": "日本", "n": "3", "score": "2", "tags": ""},
]


def written(folder: Path, ending: str) -> Path:
    """The rows as another program would write them."""
    import csv

    path = folder / f"t{ending}"
    match ending:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS).append_column("bytes", pa.array([b"x"] * 3)), path, row_group_size=2)
        case ".jsonl":
            path.write_text("\n\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8-sig")
        case ".csv" | ".tsv" | ".semicolon.csv" | ".utf16.csv":
            encoding = "utf-16" if "utf16" in ending else "utf-8-sig"
            with path.open("w", encoding=encoding, newline="") as file:
                writer = csv.DictWriter(file, list(AS_TEXT[0]), delimiter={".tsv": "\t", ".semicolon.csv": ";"}.get(ending, ","))
                writer.writeheader()
                writer.writerows(AS_TEXT)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".semicolon.csv", ".utf16.csv", ".json", ".jsonl", ".parquet"])
def test_every_kind_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    assert list(records(written(tmp_path, ending))) == AS_TEXT


def test_a_list_and_an_array_of_addresses(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("# mine\nhttps://a/1.png\n\n b.png \n", encoding="utf-8")
    (tmp_path / "l.json").write_text('["https://a/1.png", "b.png"]', encoding="utf-8")
    for name in ("l.txt", "l.json"):
        assert list(records(tmp_path / name)) == [{"address": "https://a/1.png"}, {"address": "b.png"}]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=4), max_size=8), st.integers(1, 30))
def test_a_json_array_is_read_in_pieces_of_any_size(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], piece: int) -> None:
    path = tmp_path_factory.mktemp("t") / "t.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.data.tables.PIECE", piece)
        assert list(records(path)) == [{key: text_of(value) for key, value in row.items()} for row in rows]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_a_large_table_takes_little_memory(ending: str, tmp_path: Path) -> None:
    path, count = tmp_path / f"t{ending}", 60_000
    rows = ({"url": f"https://example.org/{n}.png", "text": "words " * 20} for n in range(count))
    match ending:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=10_000)
        case ".csv":
            path.write_text("url,text\n" + "\n".join(f"{row['url']},{row['text']}" for row in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(list(rows)), encoding="utf-8")
        case _:
            path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tracemalloc.start()
    try:
        assert sum(1 for _ in records(path)) == count
        assert tracemalloc.get_traced_memory()[1] < 8_000_000, "the file has 10 MB of text"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "url,url\na,b\n", "two columns are called 'url'"),
        ("t.csv", b"url\n\xff\xff\n", "is not UTF-8"),
        ("t.json", '{"images": [1]}\n', ""),
        ("t.json", "12", "expected an array of objects"),
        ("t.json", '[{"url": "a"}, {"url": ', "is not whole JSON"),
        ("t.parquet", "url\n", "is not Parquet"),
        ("t.xlsx", "url\n", "is no table that is read"),
    ],
)
def test_what_is_no_table_is_refused(name: str, text: str | bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    if said:
        with pytest.raises(DatasetError, match=said):
            list(records(tmp_path / name))
    else:
        assert list(records(tmp_path / name)) == [{"images": "[1]"}]


def test_one_bad_row_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url,text\na.png,one,two\nb.png\nc.png,x,\n", encoding="utf-8")
    assert list(records(tmp_path / "t.csv")) == ["3 cells where the first line names 2 columns", {"url": "b.png", "text": ""}, {"url": "c.png", "text": "x"}]
    (tmp_path / "t.jsonl").write_text('{"url": "a"}\n{"url": \n7\n{"url": "\\ud83d"}\n', encoding="utf-8")
    first, second, third, fourth = records(tmp_path / "t.jsonl")
    assert first == {"url": "a"} and "no JSON" in second and "must be an object" in third and fourth == {"url": "?"}


def heads(**columns: list[str]) -> list[dict[str, str]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (heads(id=["1"], poster=["/a.jpg"], text=["x"]), Columns("poster", "text")),
        (heads(homepage=["https://a/"], img=["https://a/1.jpg?x"], caption=["x"], license=["CC0"]), Columns("img", "caption", "license")),
        (heads(where=["https://a/1", "https://b/2"], title=["x", "y"]), Columns("where")),
        (heads(file_name=["a.png"], thumb=["t.png"], text=["x"]), Columns("file_name", "text")),
        (heads(image=["scan 1"], other=["x"]), Columns("image")),
    ],
)
def test_the_obvious_column_is_taken(head: list[dict[str, str]], expected: Columns) -> None:
    assert choose("t.csv", head, Columns()) == expected


@pytest.mark.parametrize(
    ("head", "asked", "said"),
    [
        (heads(poster=["/a.jpg"], back=["/b.jpg"]), Columns(), "poster and back could all be it.*columns: poster, back"),
        (heads(a=["x"], b=["y"]), Columns(), "none of them holds URLs"),
        (heads(url=["a.png"], text=["x"], caption=["y"]), Columns(), "text and caption could both be meant. Say which with --caption-column"),
        (heads(url=["a.png"], title=["x"]), Columns(caption="tittle"), '--caption-column "tittle" is no column. Did you mean "title"'),
    ],
)
def test_in_doubt_it_is_asked(head: list[dict[str, str]], asked: Columns, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        choose("t.csv", head, asked)


def test_the_first_rows_are_enough(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url\n" + "a.png\n" * 5, encoding="utf-8")
    assert len(list(islice(records(tmp_path / "t.csv"), 3))) == 3


def test_columns_of_bytes_are_named(tmp_path: Path) -> None:
    """A table of Hugging Face's holds the picture itself beside its address: what is not read is told."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from darkroom.data.sources import Wanted, open_source

    image = pa.array([{"bytes": b"x", "path": "a.png"}])
    pq.write_table(pa.table({"url": ["http://127.0.0.1/a.png"], "image": image}), tmp_path / "a.parquet")
    assert '"image" left out: it holds bytes' in open_source(tmp_path / "a.parquet", Wanted(), tmp_path / "to").told
