"""The WD tagger as SmilingWolf ships it: padding, BGR, thresholds, faces, names; checked on a network whose answer can be worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.captioning import Exhibit, Wd
from darkroom.captioning.wd import Tag, chosen, is_face, prepared
from darkroom.data.manifest import Row
from darkroom.errors import ModelError, RecipeError
from support.onnx_file import write_tagger

pytest.importorskip("onnxruntime")
TAGS = [("general", 9), ("explicit", 9), ("red_hair", 0), ("blue_sky", 0), ("no_humans", 0), ("^_^", 0), ("hatsune_miku", 4)]
WEIGHTS = np.array([[0, 0, -1, 1, 0, 0, 0], [0, 0, -1, -1, 0, 0, 0], [0, 0, 1, -1, 0, 0, 0]]) / 30
BIAS = np.array([9, 9, 0, 0, 1, 2, 1.5])
KAOMOJI = ["0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"]


def shown(*colours: str, size: tuple[int, int] = (20, 20)) -> list[Exhibit]:
    return [Exhibit(Row(f"{colour}.png"), Image.new("RGB", size, colour)) for colour in colours]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tagger(tmp_path_factory.mktemp("wd"), TAGS, WEIGHTS, BIAS))


def test_red_is_red_and_ratings_are_no_tags(model: str) -> None:
    """Pictures in RGB order would swap the two."""
    told = Wd(model=model).open("cpu", ()).write(shown("red", "blue", "black"))
    assert told == ["red hair, ^_^, no humans", "blue sky, ^_^, no humans", "^_^, no humans, red hair, blue sky"]


def test_thresholds_names_and_what_is_not_wanted(model: str) -> None:
    def said(**settings: object) -> str:
        return Wd(model=model, **settings).open("cpu", ()).write(shown("red"))[0]

    assert said(character_threshold=0.8) == "hatsune miku, red hair, ^_^, no humans", "names first"
    assert said(threshold=0.8) == "red hair, ^_^"
    assert said(without=("no humans", "^_^")) == said(without=("no_humans", "^_^")) == "red hair"
    assert said(underscores=True) == "red_hair, ^_^, no_humans"
    assert said(longest=1) == "red hair"
    assert said(threshold=1.0) == ""


def test_a_picture_is_padded_with_white_to_a_square() -> None:
    wide = Image.new("RGB", (40, 20), "blue")
    pixels = prepared(wide, 40)
    assert pixels.shape == (40, 40, 3) and pixels.dtype == np.float32
    assert (pixels[:10] == 255).all() and (pixels[30:] == 255).all()
    assert (pixels[10:30] == [255, 0, 0]).all(), "BGR"
    assert prepared(wide, 16).shape == (16, 16, 3)
    assert (prepared(Image.new("RGB", (7, 7), "white"), 16) == 255).all()


def test_preparing_is_what_the_field_does() -> None:
    """sd-scripts pads the array by hand; so does this."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 18, 3), dtype=np.uint8))
    array = np.asarray(picture)[:, :, ::-1]
    padded = np.pad(array, ((0, 0), (6, 7), (0, 0)), constant_values=255)
    assert (prepared(picture, 31) == padded).all()


@pytest.mark.parametrize("face", KAOMOJI)
def test_faces_keep_their_underscores(face: str) -> None:
    assert is_face(face)
    assert Tag(face, "0").shown(underscores=False) == face


@pytest.mark.parametrize("tag", ["long_hair", "1girl", "2girls", "t-shirt", "no_humans", "hatsune_miku_(append)", "5_fingers"])
def test_words_do_not(tag: str) -> None:
    assert not is_face(tag)


def test_ties_stand_as_in_the_file() -> None:
    tags = [Tag(name, "0") for name in "cab"]
    assert chosen(tags, np.array([0.5, 0.5, 0.9], np.float32), Wd()) == ["b", "c", "a"]


def test_a_network_of_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    writer = Wd(model=str(write_tagger(tmp_path, TAGS, WEIGHTS, BIAS, batch=4))).open("cpu", ())
    assert writer.batch == 4
    assert writer.write(shown("red", "blue")) == ["red hair, ^_^, no humans", "blue sky, ^_^, no humans"]


def test_what_is_no_tagger_is_refused(tmp_path: Path) -> None:
    write_tagger(tmp_path, TAGS[:-1], WEIGHTS, BIAS)
    with pytest.raises(ModelError, match=r"has 6 tags and model\.onnx 7"):
        Wd(model=str(tmp_path)).open("cpu", ())
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"model\.onnx: is no network"):
        Wd(model=str(tmp_path)).open("cpu", ())
    (tmp_path / "selected_tags.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ModelError, match="is no list of tags"):
        Wd(model=str(tmp_path)).open("cpu", ())


def test_without_onnxruntime_the_way_out_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RecipeError, match=r"sdxl-darkroom\[tag\]"):
        Wd(model=model).open("cpu", ())
