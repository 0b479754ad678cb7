"""A form's choices as a command line: what is read back from it is what was chosen."""

from __future__ import annotations

import itertools
import tomllib
from typing import Any

import pytest

from darkroom.jobs.form import offered
from darkroom.jobs.settings import OPTIONS, changes, command, differing_toml, inline, said
from darkroom.spec import override, read_toml
from darkroom.train.recipe import Recipe, find_recipe, load_recipe

NAMES = [one.name for one in offered()]
TEXTS = ["TOK cat", "5", "true", "", " led", 'say "hi"', "a\nb = 2", "\x7f", "\\", "[1, 2]", "1e-4", "cät", "#", "{}", "'", "1979-05-27", "inf"]


def read_back(words: list[str]) -> Recipe:
    """As `darkroom train` reads its command line."""
    pairs = list(zip(words[2::2], words[3::2], strict=True))
    given = {option: value for option, value in pairs if option != "--set"}
    data = {key: given[option] for key, option in (("images", "--images"), ("subject", "--subject")) if option in given}
    recipe = load_recipe(words[1], tuple(value for option, value in pairs if option == "--set"), data=data)
    return recipe.model_copy(update={"base": given["--base"]}) if "--base" in given else recipe


@pytest.mark.parametrize(("one", "other"), list(itertools.product(NAMES, NAMES)))
def test_every_recipe_can_be_said_as_every_other(one: str, other: str) -> None:
    before, after = load_recipe(one), load_recipe(other)
    assert read_back(command(one, before, after)) == after
    assert (command(one, before, after) == ["train", one]) == (before == after)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_text_again(text: str) -> None:
    assert override({}, [f"key={said(text)}"]) == {"key": text}
    assert tomllib.loads(f"key = {inline(text)}") == {"key": text}


def test_what_is_to_be_nothing_is_left_out_of_its_table() -> None:
    settled = load_recipe("demo", ("validation.settle={patience = 5}", "validation.every=7 steps"))
    plain = load_recipe("demo", ("validation.every=7 steps",))
    assert dict(changes(settled, plain)) == {"validation": {"every": "7 steps"}}
    tree = override(read_toml(find_recipe("demo")), ["validation.settle={patience = 5}", "validation={every = '7 steps'}"])
    assert Recipe.from_tree(tree, "demo") == plain


def test_names_that_have_options_use_them_and_the_rest_is_set() -> None:
    before = load_recipe("demo")
    after = load_recipe("demo", ("optimizer.rate=0.0002",), data={"images": "-cats", "subject": "TOK cat"})
    assert command("demo", before, after) == ["train", "demo", "--images", "-cats", "--subject", "TOK cat", "--set", "optimizer.rate=0.0002"]
    assert set(OPTIONS) == {"data.images", "data.subject", "base"}


def test_the_difference_as_toml() -> None:
    before, after = load_recipe("demo"), load_recipe("demo", ('method={kind = "lycoris", rank = 4}', "train.length=9 epochs"))
    tree: dict[str, Any] = tomllib.loads(differing_toml(before, after))
    assert tree == {"method": {"kind": "lycoris", "rank": 4}, "train": {"length": "9 epochs"}}
    assert differing_toml(before, before) == ""
