"""The album of bad pictures: the essay's recipe to the letter, the pocket's own words, and a folder that survives whatever stops it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from darkroom.cli.wrong import wrong_command
from darkroom.data.dataset import read_folder
from darkroom.data.manifest import Manifest
from darkroom.errors import OutputError, RecipeError
from darkroom.jobs.watch import Silent
from darkroom.jobs.wrong import BAD, GOOD, POCKET_BAD, POCKET_GOOD, POCKET_SCENES, Album, album_for, draw_album, parse_words, weight_mark
from darkroom.prompt import read
from darkroom.sampling.request import read_request

ESSAY = (  # the words as the issue lists them, from the essay's public notebook
    "low quality, bad hands, random text, error, missing or extra fingers, cropped, jpeg artifacts, signature, watermark, blurry, ugly, duplicate, mutilated"
)
SMALL: dict[str, Any] = {"words": ("blurry", "noisy"), "per_word": 2, "steps": 2, "refiner": ""}


def small(**changes: Any) -> Album:
    return album_for("pocket", **SMALL | changes)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_album(small(), tmp_path_factory.mktemp("album") / "bad", "cpu").manifest.folder


def test_the_essays_album() -> None:
    found = album_for("stabilityai/stable-diffusion-xl-base-1.0")
    shots = list(found.shots())
    assert ", ".join(found.words) == ESSAY and len(shots) == 78
    assert Counter(shot.word for shot in shots) == dict.fromkeys(found.words, 6)
    assert {shot.word: tuple(s.guidance for s in shots if s.word == shot.word) for shot in shots} == dict.fromkeys(found.words, (8, 9, 10, 11, 12, 13))
    assert all(shot.prompt == ESSAY.replace(shot.word, f"({shot.word})++++") for shot in shots)
    request = found.request(shots[0])
    assert request.negative is None and request.steps == 50 and request.refiner is not None
    assert (request.refiner.model, request.refiner.fraction, request.refiner.mode) == ("stabilityai/stable-diffusion-xl-refiner-1.0", 0.8, "ensemble")
    assert len({found.request(shot).seed for shot in shots}) == 78


def test_compel_reads_the_weight(model: Any) -> None:
    from darkroom.jobs.prompt import prompt_facts

    facts = prompt_facts(next(iter(album_for("x").shots())).prompt, "pocket", "compel", 25, [])
    weights = {part["text"].strip(" ,"): part["weight"] for part in _parts(facts)}
    assert weights.pop("low quality") == pytest.approx(1.4641)
    assert set(weights.values()) == {1.0}


def _parts(value: Any) -> list[dict[str, Any]]:
    """Every part with a text and a weight, wherever it stands."""
    if isinstance(value, dict):
        inner = [part for each in value.values() for part in _parts(each)]
        return [value, *inner] if {"text", "weight"} <= value.keys() else inner
    return [part for each in value for part in _parts(each)] if isinstance(value, list | tuple) else []


def test_the_pockets_words_are_those_it_was_taught() -> None:
    file = Path(__file__).parents[2] / "tools" / "pocket" / "world.py"
    spec = importlib.util.spec_from_file_location("pocket_world", file)
    assert spec is not None and spec.loader is not None
    world = importlib.util.module_from_spec(spec)
    sys.modules["pocket_world"] = world  # dataclasses look their module up
    spec.loader.exec_module(world)
    assert POCKET_BAD == world.SPOILS
    assert all(f", {word}" in file.read_text(encoding="utf-8") for word in POCKET_GOOD)
    nouns = {entry.partition("=")[2] or entry.partition("=")[0] for entry in world.NOUNS.replace("\n", "").split("|")}
    for scene in POCKET_SCENES:
        said = re.fullmatch(r"an? (\w+) (.+) on an? (\w+) background", scene)
        assert said and said[1] in world.STYLES and said[2] in nouns and said[3] in world.COLOURS, scene


def test_the_trial_asks_for_no_thing_of_the_album() -> None:
    from darkroom.evidence.shipped import shipped_trial

    places = dict.fromkeys(("negative", "placebo", "inversion"), "")
    groups = [POCKET_SCENES, *(shipped_trial("negative-lora", "pocket", places, pilot)["prompts"] for pilot in (False, True))]
    things = [{re.sub(r"^an? \w+ | on an? \w+ background$", "", prompt) for prompt in group} for group in groups]
    assert [len(each) for each in things] == [13, 80, 16]
    assert not (things[0] & things[1] or things[0] & things[2] or things[1] & things[2])


@pytest.mark.parametrize("good", [False, True])
def test_the_pockets_album_has_every_scene_as_often(good: bool) -> None:
    found = album_for("pocket", good)
    shots = list(found.shots())
    assert len(shots) == 78 and Counter(shot.scene for shot in shots) == dict.fromkeys(POCKET_SCENES, 6)
    assert len({(shot.word, shot.scene) for shot in shots}) == 13 * len(found.words)
    assert {shot.guidance for shot in shots} >= {8.0, 13.0} and all(8 <= shot.guidance <= 13 for shot in shots)
    assert found.refiner == "pocket-refiner"


def test_the_placebo_answers_word_for_word() -> None:
    assert len(GOOD) == len(BAD) and not set(GOOD) & set(BAD)
    assert album_for("x", True).words == GOOD and len(list(album_for("x", True).shots())) == 78


def test_pictures_are_a_function_of_seed_and_place_alone() -> None:
    one, more, other = (album_for("x", seed=seed, per_word=count) for seed, count in ((0, 6), (0, 6), (1, 6)))
    assert [one.request(shot) for shot in one.shots()] == [more.request(shot) for shot in more.shots()]
    assert not {one.request(shot).seed for shot in one.shots()} & {other.request(shot).seed for shot in other.shots()}


@pytest.mark.parametrize(("weight", "mark"), [(1.1, "+"), (1.4641, "++++"), (1.1**4, "++++"), (1.6, "1.6"), (0.5, "0.5"), (1.0, "1")])
def test_marks_of_weights(weight: float, mark: str) -> None:
    assert weight_mark(weight) == mark
    assert read(f"(cat){mark}, dog", "compel").words == "cat, dog"


def test_words_with_weights_of_their_own(tmp_path: Path) -> None:
    assert parse_words("low quality, bad hands:1.6 ,ugly") == (("low quality", "bad hands", "ugly"), {"bad hands": 1.6})
    file = tmp_path / "words.txt"
    file.write_text("# mine\nblurry:2\n\nugly, old\n", encoding="utf-8")
    assert parse_words(str(file)) == (("blurry", "ugly", "old"), {"blurry": 2.0})
    words, weights = parse_words("blurry:2, ugly")
    prompts = [shot.prompt for shot in album_for("x", words=words, weights=weights, boost=1.21, per_word=1).shots()]
    assert prompts == ["(blurry)2, ugly", "blurry, (ugly)++"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"guidance": (13.0, 8.0)}, "the smaller first"),
        ({"words": ("ugly", "Ugly")}, "one stands twice"),
        ({"words": ("ug(ly",)}, "plain text"),
        ({"words": ()}, "words"),
        ({"scenes": ("a cat++",)}, "plain text"),
        ({"weights": {"old": 2.0}}, "none of the words"),
        ({"weights": {"ugly": -1.0}, "words": ("ugly",)}, "above 0"),
        ({"boost": 0.0}, "greater than 0"),
        ({"per_word": 0}, "per_word"),
        ({"caption": ""}, "caption"),
        ({"wurds": ("ugly",)}, "words"),
    ],
)
def test_wrong_albums_are_refused_in_words(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        album_for("pocket", **given)


@pytest.mark.parametrize("text", ["", " , ", "ugly:much", "missing.txt"])
def test_wrong_words_are_refused_in_words(text: str) -> None:
    with pytest.raises(RecipeError, match="--words"):
        parse_words(text)


def test_an_album_is_a_dataset_that_is_called_wrong(album: Path) -> None:
    manifest = Manifest.open(album)
    assert [row.captions for row in manifest.rows] == [{"wrong": "wrong"}] * 4 and {row.chosen for row in manifest.rows} == {"wrong"}
    assert [row.extra["word"] for row in manifest.rows] == ["blurry", "blurry", "noisy", "noisy"]
    assert manifest.notes["wrong"]["words"] == ["blurry", "noisy"]
    photos = read_folder(album, "a photo of TOK cat")
    assert [photo.caption for photo in photos] == ["wrong"] * 4
    assert read_request(photos[0].path).prompt == f"{POCKET_SCENES[0]}, (blurry)++++, noisy"


def test_a_stopped_album_goes_on_and_ends_the_same(album: Path, tmp_path: Path) -> None:
    class Stops(Silent):
        def move(self, what: str, done: int, total: int, note: str = "") -> None:
            if done == 2:
                raise KeyboardInterrupt

    folder = tmp_path / "bad"
    with pytest.raises(KeyboardInterrupt):
        draw_album(small(), folder, "cpu", watcher=Stops())
    drawn = sorted((folder / "pictures").glob("*.png"))
    assert len(drawn) == 2 and not (folder / "manifest.parquet").exists()
    drawn[1].write_bytes(drawn[1].read_bytes()[:3000])  # half written by another program: ours writes whole files or none
    kept = drawn[0].stat().st_mtime_ns
    draw_album(small(), folder, "cpu")
    assert drawn[0].stat().st_mtime_ns == kept
    for path in (album / "pictures").iterdir():
        assert (folder / "pictures" / path.name).read_bytes() == path.read_bytes()
    assert Manifest.open(folder).hash == Manifest.open(album).hash


def test_a_persons_word_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    manifest = draw_album(small(words=("blurry",)), folder, "cpu").manifest
    first = manifest.rows[0].but(overruled="reject", captions={"wrong": "wrong", "mine": "a smear"}, chosen="mine")
    manifest.but([first, *manifest.rows[1:]]).save()
    draw_album(small(words=("blurry",)), folder, "cpu")
    assert Manifest.open(folder).rows[0] == first


def test_pictures_of_another_album_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sub" / "cat.png")
    with pytest.raises(OutputError, match=r"sub/cat\.png.*--to"):
        draw_album(small(), tmp_path, "cpu")


def test_the_contact_sheet_shows_every_picture_and_needs_nothing_from_outside(album: Path) -> None:
    page = (album / "album.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4 and not re.search(r'(src|href)="(?!data:)', page)
    assert page.index("blurry") < page.index("noisy") and "1.4641" in page


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(wrong_command)
    told = ["--words", "blurry", "--per-word", "1", "--guidance", "9", "9", "--steps", "1", "--refiner", "none", "--device", "cpu", "--seed", "3"]
    done = CliRunner().invoke(app, ["--to", str(tmp_path / "x"), *told, "--caption", "bad", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["pictures"] == 1 and found["album"]["guidance"] == [9, 9] and found["album"]["refiner"] == ""
    assert Manifest.open(tmp_path / "x").rows[0].caption == "bad"
