"""A dataset on disk is whole, keeps what a person decided, and follows its folder: nothing is read twice that did not change, nothing is lost in silence."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.data.dataset import read_folder
from darkroom.data.manifest import MANIFEST, ORIGINAL, Manifest, Row
from darkroom.errors import DatasetError, OutputError

WORDS = st.text(max_size=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a subfolder, one with a caption."""
    made = tmp_path / "cats"
    (made / "more").mkdir(parents=True)
    for number, name in enumerate(("b.png", "a.jpg", "more/c.png")):
        Image.new("RGB", (20 + number, 10), (40 * number, 0, 0)).save(made / name)
    (made / "b.txt").write_text("a red cat", encoding="utf-8")
    return made


def reread(manifest: Manifest) -> dict[str, Row]:
    return {row.file: row for row in adopt(manifest.save().folder)[0].rows}


ROWS = st.builds(
    Row, file=st.text(min_size=1, max_size=8), sha256=WORDS, width=st.integers(0, 1 << 20), height=st.integers(0, 1 << 20), size=st.integers(0, 1 << 40),
    changed=st.integers(0, 1 << 60), captions=st.dictionaries(WORDS, WORDS, max_size=3), verdict=st.sampled_from(["", "keep", "reject"]),
    reasons=st.lists(WORDS, max_size=3).map(tuple), overruled=st.sampled_from(["", "keep", "reject"]), split=st.sampled_from(["", "train", "held_out"]),
    focus=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)), repeats=st.integers(1, 100), extra=st.dictionaries(WORDS, WORDS, max_size=3),
    figures=st.dictionaries(WORDS, st.floats(allow_nan=False), max_size=3),
)  # fmt: skip


@given(rows=st.lists(ROWS, max_size=4, unique_by=lambda row: row.file), note=st.dictionaries(WORDS, WORDS, max_size=2))
def test_what_is_saved_is_what_is_opened(rows: list[Row], note: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("dataset")
    saved = Manifest(folder, ()).but(rows, screen=note).save()
    opened = Manifest.open(folder)
    assert opened == saved
    assert opened.notes == {"screen": note}
    assert opened.hash == saved.hash


def test_other_programs_can_read_it(folder: Path) -> None:
    adopt(folder)[0].save()
    table = pq.read_table(folder / MANIFEST)
    assert table.column_names == [f.name for f in fields(Row)]
    assert table["file"].to_pylist() == ["a.jpg", "b.png", "more/c.png"]


def test_a_plain_folder_becomes_a_dataset_untouched(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest, changes = adopt(folder)
    manifest.save()
    assert changes.new == ("a.jpg", "b.png", "more/c.png")
    assert {path: path.read_bytes() for path in before} == before
    assert [(row.width, row.height, row.format) for row in manifest.rows] == [(21, 10, "JPEG"), (20, 10, "PNG"), (22, 10, "PNG")]
    assert manifest.rows[1].captions == {ORIGINAL: "a red cat"}


def test_a_second_look_reads_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(folder)[0].save()
    monkeypatch.setattr("darkroom.data.adopt.sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    manifest, changes = adopt(folder)
    assert not changes
    assert len(manifest.rows) == 3


def test_a_touched_file_keeps_what_was_decided_and_a_changed_one_does_not(folder: Path) -> None:
    manifest, _ = adopt(folder)
    manifest.but([row.but(overruled="reject", captions={**row.captions, "blip": "x"}) for row in manifest.rows]).save()
    os.utime(folder / "a.jpg", (1, 1))
    Image.new("RGB", (99, 10)).save(folder / "b.png")
    (folder / "more" / "c.png").unlink()
    Image.new("RGB", (5, 5)).save(folder / "d.png")
    after, changes = adopt(folder)
    rows = {row.file: row for row in after.rows}
    assert (changes.new, changes.changed, changes.gone) == (("d.png",), ("b.png",), ("more/c.png",))
    assert rows["a.jpg"].overruled == "reject"
    assert rows["a.jpg"].captions == {"blip": "x"}
    assert (rows["b.png"].overruled, rows["b.png"].width, rows["b.png"].captions) == ("", 99, {ORIGINAL: "a red cat"})


def test_a_sidecar_is_followed(folder: Path) -> None:
    manifest, _ = adopt(folder)
    manifest.but([row.but(captions={**row.captions, "blip": f"blip {row.file}"}, chosen="blip") for row in manifest.rows]).save()
    (folder / "b.txt").write_text("a blue cat", encoding="utf-8")
    after, changes = adopt(folder)
    assert changes.recaptioned == ("b.png",)
    assert reread(after)["b.png"].captions == {ORIGINAL: "a blue cat", "blip": "blip b.png"}
    (folder / "b.txt").unlink()
    assert reread(adopt(folder)[0])["b.png"].captions == {"blip": "blip b.png"}


def test_a_caption_of_the_table_needs_no_sidecar(folder: Path) -> None:
    manifest, _ = adopt(folder)
    manifest.but([row.but(captions={ORIGINAL: "from the table"}, beside="") for row in manifest.rows]).save()
    after = {row.file: row.captions for row in adopt(folder)[0].rows}
    assert after == {"a.jpg": {ORIGINAL: "from the table"}, "b.png": {ORIGINAL: "a red cat"}, "more/c.png": {ORIGINAL: "from the table"}}


def test_what_another_command_wrote_is_not_lost(folder: Path) -> None:
    first, second = adopt(folder)[0], adopt(folder)[0]
    first.but([row.but(verdict="keep") for row in first.rows]).save()
    with pytest.raises(OutputError, match="another command changed the same"):
        second.but([row.but(verdict="reject") for row in second.rows]).save()
    second.save()
    assert {row.verdict for row in Manifest.open(folder).rows} == {"keep"}


def test_a_person_wins(folder: Path) -> None:
    row = Row("a.jpg")
    assert row.kept, "what nobody judged is kept"
    assert not row.but(verdict="reject").kept
    assert row.but(verdict="reject", overruled="keep").kept
    assert not row.but(verdict="keep", overruled="reject").kept


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet at all"])
def test_a_damaged_manifest_is_named(folder: Path, damage: bytes) -> None:
    (folder / MANIFEST).write_bytes(damage)
    with pytest.raises(DatasetError, match=r"manifest\.parquet: is damaged"):
        adopt(folder)


def test_a_file_that_is_no_picture_has_a_row(folder: Path) -> None:
    (folder / "e.png").write_bytes(b"<html>")
    row = next(row for row in adopt(folder)[0].rows if row.file == "e.png")
    assert (row.width, row.height, row.format) == (0, 0, "")


def test_training_reads_what_is_kept_and_not_held_out(folder: Path) -> None:
    manifest, _ = adopt(folder)
    decided = {"a.jpg": {"verdict": "reject"}, "b.png": {"chosen": "blip", "captions": {"blip": "by blip"}}, "more/c.png": {"split": "train", "repeats": 3}}
    manifest.but([row.but(**decided[row.file]) for row in manifest.rows]).save()
    photos = read_folder(folder, "a photo of TOK")
    assert [(p.path.name, p.caption, p.caption_source, p.repeats) for p in photos] == [
        ("b.png", "by blip", "blip", 1),
        ("c.png", "a photo of TOK", "the subject", 3),
    ]
    held = adopt(folder)[0]
    held.but([row.but(split="held_out") for row in held.rows]).save()
    with pytest.raises(DatasetError, match=r"none of 3 pictures is left to learn from.*darkroom screen"):
        read_folder(folder, "x")


@pytest.mark.parametrize(("change", "said"), [({"chosen": "wd"}, 'the caption "wd" was chosen'), ({"mask": "masks/a.png"}, "the mask of a.jpg is gone")])
def test_a_promise_that_is_not_kept_stops_the_training(folder: Path, change: dict[str, str], said: str) -> None:
    manifest, _ = adopt(folder)
    manifest.but([row.but(**change) if row.file == "a.jpg" else row for row in manifest.rows]).save()
    with pytest.raises(DatasetError, match=said):
        read_folder(folder, "x")


def test_the_hash_names_what_is_learned(folder: Path, tmp_path: Path) -> None:
    manifest, _ = adopt(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert adopt(tmp_path / "copy")[0].hash == manifest.hash, "neither place nor time matters"
    for change in ({"chosen": "x"}, {"split": "train"}, {"repeats": 2}, {"verdict": "reject"}, {"captions": {ORIGINAL: "other"}}):
        assert manifest.but([manifest.rows[0].but(**change), *manifest.rows[1:]]).hash != manifest.hash, change
