"""A folder is read whole, in a fixed order; no caption is ignored in silence; every mistake is the user's, by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.data.dataset import content_hash, list_pictures, read_folder
from darkroom.errors import DatasetError

SHARED = Path(__file__).parents[2].parent / "shared"
TEMPLATE = "a photo of TOK cat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of different bytes and sizes."""
    made = tmp_path / "cats"
    made.mkdir()
    for number, name in enumerate(("c.png", "a.PNG", "b.jpg")):
        Image.new("RGB", (20 + number, 10), (40 * number, 0, 0)).save(made / name)
    return made


def captions(folder: Path) -> dict[str, tuple[str, str]]:
    return {photo.path.name: (photo.caption, photo.caption_source) for photo in read_folder(folder, TEMPLATE)}


def write_metadata(folder: Path, *rows: object) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def test_pictures_come_in_the_order_of_their_names(folder: Path) -> None:
    photos = read_folder(folder, TEMPLATE)
    assert [photo.path.name for photo in photos] == ["a.PNG", "b.jpg", "c.png"]
    assert [(photo.width, photo.height) for photo in photos] == [(21, 10), (22, 10), (20, 10)]
    assert [photo.sha256 for photo in photos] == [hashlib.sha256(photo.path.read_bytes()).hexdigest() for photo in photos]
    assert photos[1].read().size == (22, 10)


def test_the_size_is_that_of_the_upright_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(folder / "a.PNG", exif=exif)
    photo = read_folder(folder, TEMPLATE)[0]
    assert (photo.width, photo.height) == (10, 20) == photo.read().size


def test_a_picture_without_a_caption_gets_the_template(folder: Path) -> None:
    assert set(captions(folder).values()) == {(TEMPLATE, "the subject")}


def test_each_source_of_captions_is_read_and_named(folder: Path) -> None:
    (folder / "a.txt").write_text("one\n", encoding="utf-8")
    (folder / "b.caption").write_text("two  words\r\nand a line", encoding="utf-8-sig")  # with the mark that Notepad writes
    write_metadata(folder, {"file_name": "c.png", "text": " drei Wörter "})
    assert captions(folder) == {"a.PNG": ("one", "a.txt"), "b.jpg": ("two words and a line", "b.caption"), "c.png": ("drei Wörter", "metadata.jsonl")}


def test_metadata_may_say_caption(folder: Path) -> None:
    write_metadata(folder, {"file_name": "c.png", "caption": "as some exporters write"})
    assert captions(folder)["c.png"] == ("as some exporters write", "metadata.jsonl")


@pytest.mark.parametrize("second", ["b.caption", "metadata.jsonl"])
def test_captions_that_disagree_are_refused_with_both(folder: Path, second: str) -> None:
    (folder / "b.txt").write_text("a cat", encoding="utf-8")
    if second == "b.caption":
        (folder / second).write_text("a dog", encoding="utf-8")
    else:
        write_metadata(folder, {"file_name": "b.jpg", "text": "a dog"})
    with pytest.raises(DatasetError, match=rf'b\.jpg: two captions that disagree: b\.txt says "a cat"; {second} says "a dog"'):
        read_folder(folder, TEMPLATE)


def test_captions_that_agree_are_one(folder: Path) -> None:
    (folder / "b.txt").write_text("a cat\n", encoding="utf-8")
    write_metadata(folder, {"file_name": "b.jpg", "text": "a  cat"})
    assert captions(folder)["b.jpg"] == ("a cat", "b.txt")


@pytest.mark.parametrize("rows", [[{"text": "a cat"}, {"text": "a dog"}], [{"text": "a cat", "caption": "a dog"}]])
def test_metadata_that_disagrees_with_itself_is_refused(folder: Path, rows: list[dict[str, str]]) -> None:
    """Two rows for one picture, or two captions in one row: neither is dropped in silence."""
    write_metadata(folder, *({"file_name": "b.jpg", **row} for row in rows))
    with pytest.raises(DatasetError, match="a dog"):
        read_folder(folder, TEMPLATE)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_caption_is_refused(folder: Path, text: str) -> None:
    (folder / "b.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"b\.txt: the caption is empty"):
        read_folder(folder, TEMPLATE)


def test_an_empty_caption_in_metadata_is_refused(folder: Path) -> None:
    write_metadata(folder, {"file_name": "b.jpg", "text": ""})
    with pytest.raises(DatasetError, match=r"metadata\.jsonl: the caption is empty"):
        read_folder(folder, TEMPLATE)


def test_a_caption_that_is_null_is_not_the_word_none(folder: Path) -> None:
    write_metadata(folder, {"file_name": "b.jpg", "text": None})
    with contextlib.suppress(DatasetError):  # refusing is right too
        assert captions(folder)["b.jpg"][0] != "None"


@pytest.mark.parametrize("name", ["b.txt", "metadata.jsonl"])
def test_captions_that_are_not_utf8_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes('{"file_name": "b.jpg", "text": "Kätzchen"}'.encode("latin-1"))
    with pytest.raises(DatasetError, match=rf"{name}.*UTF-8"):
        read_folder(folder, TEMPLATE)


def test_metadata_for_an_unknown_file_is_refused(folder: Path) -> None:
    write_metadata(folder, {"file_name": "d.jpg", "text": "who?"}, {"file_name": "b.jpg", "text": "here"})
    with pytest.raises(DatasetError, match=r"metadata\.jsonl: captions d\.jpg, which is not in the folder"):
        read_folder(folder, TEMPLATE)


@pytest.mark.parametrize("line", ['{"file_name": "b.jpg"', '{"text": "no name"}', '{"file_name": "b.jpg"}', '["b.jpg", "x"]', "7"])
def test_a_bad_line_of_metadata_is_named_by_its_number(folder: Path, line: str) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "a.PNG", "text": "fine"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"metadata\.jsonl, line 3: expected"):
        read_folder(folder, TEMPLATE)


def test_all_broken_pictures_are_named_at_once(folder: Path) -> None:
    (folder / "a.PNG").write_bytes(b"text")
    whole = (folder / "b.jpg").read_bytes()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "b.jpg")
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:2000])
    with pytest.raises(DatasetError) as caught:
        read_folder(folder, TEMPLATE)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [str(folder / "a.PNG"), str(folder / "b.jpg")]
    (folder / "a.PNG").unlink()
    (folder / "b.jpg").write_bytes(whole)
    assert len(read_folder(folder, TEMPLATE)) == 2, "what was said is the way out"


def test_other_files_hidden_files_and_subfolders_are_no_pictures(folder: Path) -> None:
    (folder / "notes.md").write_text("x", encoding="utf-8")
    (folder / "._b.jpg").write_bytes(b"what macOS leaves on sticks")
    (folder / "inner.png").mkdir()
    shutil.copy(folder / "c.png", folder / "inner.png" / "d.png")
    assert [path.name for path in list_pictures(folder)] == ["a.PNG", "b.jpg", "c.png"]


def test_an_empty_folder_is_refused_with_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds no picture \(1 other files\).*\.jfif, \.jpeg, \.jpg, \.png") as caught:
        read_folder(tmp_path, TEMPLATE)
    assert "Did you mean" not in str(caught.value)


def test_pictures_one_folder_deeper_are_pointed_to(folder: Path) -> None:
    (folder.parent / "about").mkdir()
    with pytest.raises(DatasetError, match=r"Did you mean its subfolder cats\?"):
        list_pictures(folder.parent)


def test_a_folder_that_is_not_there_or_is_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such folder"):
        read_folder(folder / "none", TEMPLATE)
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        read_folder(folder / "c.png", TEMPLATE)


def test_the_hash_of_the_dataset_is_its_contents_and_captions(folder: Path, tmp_path: Path) -> None:
    before = content_hash(read_folder(folder, TEMPLATE))
    copied = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert content_hash(read_folder(copied, TEMPLATE)) == before, "it must not depend on where the folder lies or when it was made"
    found = {before, content_hash(read_folder(folder, "another template"))}
    (copied / "b.txt").write_text("a caption", encoding="utf-8")
    found.add(content_hash(read_folder(copied, TEMPLATE)))
    Image.new("RGB", (22, 10), (200, 0, 0)).save(folder / "b.jpg")
    found.add(content_hash(read_folder(folder, TEMPLATE)))
    (folder / "b.jpg").unlink()
    found.add(content_hash(read_folder(folder, TEMPLATE)))
    assert len(found) == 5


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_a_folder_of_the_dreambooth_set_is_read() -> None:
    photos = read_folder(SHARED / "assets" / "dreambooth" / "dog", TEMPLATE)
    assert [photo.path.name for photo in photos] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "04.jpg"]
    assert len({photo.sha256 for photo in photos}) == 5
