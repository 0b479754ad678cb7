"""What lies beside pictures is read as other programs mean it; nothing that looks like a caption is passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.data.captions import class_folder, class_folders, orphans, read_captions
from darkroom.data.kohya import not_carried, read_config, read_subset, wording
from darkroom.data.manifest import ORIGINAL
from darkroom.errors import DatasetError, RecipeError


def pictures(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), "red").save(folder / name)
    return list(names)


def test_a_kohya_folder_says_repeats_and_the_caption_of_those_without(tmp_path: Path) -> None:
    files = pictures(tmp_path, "10_TOK cat/a.png", "10_TOK cat/b.png", "2_a  dog/deep/c.png", "plain/d.png")
    (tmp_path / "10_TOK cat" / "a.txt").write_text("TOK cat asleep", encoding="utf-8")
    found = read_captions(tmp_path, files)
    assert found.captions == {files[0]: "TOK cat asleep", files[1]: "TOK cat", files[2]: "a dog"}
    assert found.sources == {files[0]: "a.txt", files[1]: "10_TOK cat/", files[2]: "2_a  dog/"}
    assert found.repeats == {files[0]: 10, files[1]: 10, files[2]: 2}


def test_adopted_it_is_a_dataset_with_repeats(tmp_path: Path) -> None:
    pictures(tmp_path, "10_TOK cat/a.png")
    row = adopt(tmp_path)[0].save().rows[0]
    assert (row.captions, row.beside, row.repeats) == ({ORIGINAL: "TOK cat"}, "10_TOK cat/", 10)
    (tmp_path / "10_TOK cat" / "a.txt").write_text("its own", encoding="utf-8")
    assert adopt(tmp_path)[0].rows[0].captions == {ORIGINAL: "its own"}


@pytest.mark.parametrize("name", ["2023_holiday", "01_front", "cat", "_cat", "0_cat", "-1_cat", "1_", "1_ ", "10", "x10_cat", "1000_cat", "²_cat"])
def test_names_that_only_look_like_repeats(name: str) -> None:
    assert class_folders([f"{name}/a.png"]) == {}


def test_a_folder_deeper_down_or_a_picture_of_that_name_is_none() -> None:
    assert class_folders(["10_cat.png", "more/10_TOK cat/a.png"]) == {}


@pytest.mark.parametrize(("name", "said"), [("10_TOK cat", (10, "TOK cat")), ("010_a_b", (10, "a_b")), ("5", (5, "")), ("0_x", None), ("x_10", None)])
def test_sd_scripts_own_rule(name: str, said: tuple[int, str] | None) -> None:
    assert class_folder(name) == said


def test_captions_of_no_picture_are_found(tmp_path: Path) -> None:
    files = pictures(tmp_path, "a.png", "sub/b.jpg")
    for name in ("a.txt", "A.txt", "c.caption", "sub/b.txt", "sub/a.txt", ".hidden.txt", "notes.md", "a.png.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert orphans(tmp_path, files) == ["A.txt", "a.png.txt", "c.caption", "sub/a.txt"]


CONFIG = """
[general]
shuffle_caption = true
keep_tokens = 1
[[datasets]]
keep_tokens = 2
caption_dropout_rate = 0.1
  [[datasets.subsets]]
  image_dir = "cats"
  class_tokens = "TOK cat"
  num_repeats = 10
  keep_tokens = 3
  [[datasets.subsets]]
  image_dir = "tagged"
  caption_extension = ".wd14"
  caption_prefix = "by x,"
  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
[[datasets]]
  [[datasets.subsets]]
  image_dir = "meta"
  metadata_file = "meta.json"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    pictures(tmp_path, "cats/a.png", "cats/b.png", "cats/deep/c.png", "tagged/a.png", "tagged/b.png", "reg/a.png", "meta/a.png", "meta/b.png", "meta/c.jpg")
    (tmp_path / "cats" / "a.caption").write_text("TOK cat asleep", encoding="utf-8")
    (tmp_path / "tagged" / "a.wd14").write_text("1cat, sofa", encoding="utf-8")
    told = {"a": {"caption": "a cat", "tags": "cat, sofa"}, str(tmp_path / "meta" / "b.png"): {"tags": "dog"}, "gone.png": {"caption": "x"}}
    (tmp_path / "meta.json").write_text(json.dumps(told), encoding="utf-8")
    (tmp_path / "set.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path / "set.toml"


def test_the_lowest_level_counts(config: Path) -> None:
    subsets = read_config(config)
    assert [subset.place for subset in subsets] == [f"datasets[{d}].subsets[{s}]" for d, s in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert [subset.values["keep_tokens"] for subset in subsets] == [3, 2, 2, 1]
    found = wording(subsets[1].values)
    assert (found.shuffle, found.keep_tags, found.dropout, found.prefix) == (True, 2, 0.1, "by x,")


def test_captions_are_what_sd_scripts_would_read(config: Path) -> None:
    cats, tagged, _, meta = (read_subset(subset, config.parent) for subset in read_config(config))
    named = lambda told: {path.name: text for path, (text, _) in told.captions.items()}  # noqa: E731
    assert (cats.repeats, named(cats)) == (10, {"a.png": "TOK cat asleep", "b.png": "TOK cat"})
    assert named(tagged) == {"a.png": "1cat, sofa", "b.png": ""}
    assert named(meta) == {"a.png": "a cat, cat, sofa", "b.png": "dog"}
    assert "1 pictures that are not in" in meta.notes[0] and "gone.png" in meta.notes[0]


def test_a_txt_that_sd_scripts_would_ignore_is_told_of(config: Path) -> None:
    (config.parent / "cats" / "b.txt").write_text("ignored there", encoding="utf-8")
    told = read_subset(read_config(config)[0], config.parent)
    assert "1 pictures have a NAME.txt, which sd-scripts ignores" in told.notes[0]
    assert all(path.name != "b.png" for path in told.captions), "it is read as everywhere here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dri = 'x'", 'Did you mean "image_dir"'),
        ("[[datasets]]\nimage_dir = 'x'\n[[datasets.subsets]]\nimage_dir = 'y'", 'there is no key "datasets'),
        ("[generel]\nkeep_tokens = 1\n[[datasets]]\n[[datasets.subsets]]\nimage_dir='x'", "generel"),
        ("datasets = 3", "is no dataset configuration"),
    ],
)
def test_a_key_that_sd_scripts_refuses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "set.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_config(tmp_path / "set.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [('image_dir = "cats"', 'image_dir = "dogs"', "no such folder"), ("num_repeats = 10", "num_repeats = 0", "at least 1")],
)
def test_a_subset_that_cannot_be_read_says_which(config: Path, old: str, new: str, message: str) -> None:
    config.write_text(CONFIG.replace(old, new), encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"datasets\[0\]\.subsets\[0\].*{message}"):
        read_subset(read_config(config)[0], config.parent)


def test_what_is_not_carried_over_is_named() -> None:
    assert not_carried({"enable_wildcard": True, "token_warmup_step": 0, "secondary_separator": ";;"}) == ["secondary_separator", "enable_wildcard"]
