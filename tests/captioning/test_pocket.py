"""The pocket's captions, measured against chance on pictures whose prompt is known: its own sheet, and the cats that it was never trained on."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import binomtest

from darkroom import pocket
from darkroom.captioning import Exhibit, Pocket
from darkroom.captioning.pocket import PocketWriter
from darkroom.captioning.words import COLOURS, NOUNS, STYLES
from darkroom.data.manifest import Row

SCORER = str(pocket.folder("scorer"))
TOOLS = Path(__file__).parents[2] / "tools" / "pocket" / "world.py"
PHRASE = re.compile(r"an? (?:(flat|cartoon|3d) )?(.+?)(?: on a (\w+) background)?")


@pytest.fixture(scope="module")
def eye() -> PocketWriter:
    return Pocket(model=SCORER).open("cpu", ())


@pytest.fixture(scope="module")
def sheet() -> list[tuple[Exhibit, str]]:
    """64 pictures that the pocket drew, with their prompts."""
    folder = pocket.folder()
    whole, prompts = Image.open(folder / "sheet.png").convert("RGB"), json.loads((folder / "sheet.json").read_text(encoding="utf-8"))
    places = [(4 + number % 8 * 132, 4 + number // 8 * 132) for number in range(len(prompts))]
    return [(Exhibit(Row(prompt), whole.crop((x, y, x + 128, y + 128)).resize((64, 64), 0)), prompt) for (x, y), prompt in zip(places, prompts, strict=True)]


def parts(phrase: str) -> tuple[str, str, str]:
    """Style, noun and colour, "" where it says none."""
    found = PHRASE.fullmatch(phrase)
    assert found, phrase
    style, noun, colour = (part or "" for part in found.groups())
    return style, "" if noun == "picture" else noun, colour


def better_than(right: int, of: int, chance: float) -> bool:
    return binomtest(right, of, chance, "greater").pvalue < 1e-3


def test_drawn_pictures_are_named_far_above_chance(eye: PocketWriter, sheet: list[tuple[Exhibit, str]]) -> None:
    told = [(parts(text), parts(prompt)) for text, (_, prompt) in zip(eye.write([each for each, _ in sheet]), sheet, strict=True)]
    rates = {}
    for place, words in enumerate((STYLES, NOUNS, COLOURS)):
        said = [(one[place], other[place]) for one, other in told if one[place]]
        right = sum(one == other for one, other in said)
        rates[words[0]] = right / len(said)
        assert len(said) > 32, "most pictures are named"
        assert better_than(right, len(said), 1 / len(words))
    assert rates["flat"] > 0.6 and rates["monkey"] > 0.6 and rates["red"] > 0.85, rates


def test_the_ranked_noun_of_the_held_out_cats(eye: PocketWriter) -> None:
    """Their style was never trained on: 3 of 9 are called a cat of some kind, and 10 of 198 nouns are."""
    pictures = [Image.open(path).convert("RGB") for path in sorted(pocket.CATS.rglob("*.png"))]
    first = [eye.rank(picture)[0][0] for picture in pictures]
    cats = sum("cat" in noun.split() for noun in first)
    chance = sum("cat" in noun.split() for noun in NOUNS) / len(NOUNS)
    assert binomtest(cats, len(first), chance, "greater").pvalue < 0.02, first


def test_with_the_subject_named_style_and_background_of_the_cats_are_right(eye: PocketWriter) -> None:
    named = PocketWriter(Pocket(model=SCORER, subject="TOK cat"), eye.eye)
    files = sorted(pocket.CATS.rglob("*.png"))
    told = dict(zip(files, named.write([Exhibit(Row(path.name), Image.open(path).convert("RGB")) for path in files]), strict=True))
    assert all(parts(text)[1] == "TOK cat" for text in told.values())
    assert sum(text.startswith("a 3d ") for text in told.values()) >= 8
    known = [(told[path], path.with_suffix(".txt").read_text(encoding="utf-8").strip()) for path in files if path.with_suffix(".txt").is_file()]
    assert sum(text.endswith(caption.removeprefix("TOK cat")) for text, caption in known) >= len(known) - 1, known


def test_what_is_not_sure_is_not_said(eye: PocketWriter, sheet: list[tuple[Exhibit, str]]) -> None:
    shown = [each for each, _ in sheet[:16]]
    bold, shy = (PocketWriter(Pocket(model=SCORER, sure=sure), eye.eye).write(shown) for sure in (0.0, 1.0))
    assert all(all(parts(text)) for text in bold)
    assert shy == [""] * 16, "nothing at all is said rather than guessed"


def test_chances_come_to_one_and_are_in_order(eye: PocketWriter, sheet: list[tuple[Exhibit, str]]) -> None:
    ranked = eye.rank(sheet[1][0].seen)
    assert len(ranked) == len(NOUNS)
    assert sum(chance for _, chance in ranked) == pytest.approx(1, abs=1e-4)
    assert [chance for _, chance in ranked] == sorted((chance for _, chance in ranked), reverse=True)
    assert ranked[0][0] == "star"


def test_other_words_can_be_ranked(eye: PocketWriter, sheet: list[tuple[Exhibit, str]]) -> None:
    few = PocketWriter(Pocket(model=SCORER, nouns=("star", "dog"), styles=(), colours=("blue", "red"), sure=0.0), eye.eye)
    assert few.write([sheet[1][0]]) == ["a star on a blue background"]


def test_the_words_are_those_that_it_was_trained_on() -> None:
    spec = importlib.util.spec_from_file_location("world", TOOLS)
    assert spec and spec.loader
    world = importlib.util.module_from_spec(spec)
    sys.modules["world"] = world
    try:
        spec.loader.exec_module(world)
    finally:
        del sys.modules["world"]
    nouns = [(noun or label).lower() for label, _, noun in (entry.partition("=") for entry in world.NOUNS.replace("\n", "").split("|"))]
    assert list(NOUNS[: len(nouns)]) == nouns
    assert len(NOUNS) == len(nouns) + len(world.CAT_MOODS) and all("cat" in noun.split() for noun in NOUNS[len(nouns) :])
    assert (tuple(world.STYLES), tuple(world.COLOURS)) == (STYLES, COLOURS)
