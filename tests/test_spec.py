"""A spec is frozen, complete and readable: no unknown key passes, TOML goes out and in, and an error says value, rule and way out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from darkroom.errors import DarkroomError, RecipeError
from darkroom.files import write_text
from darkroom.spec import Spec, explain, fields, override, read_toml
from darkroom.values import Duration, DurationField


class Round(Spec):
    kind: Literal["round"] = "round"
    radius: float = Field(1.0, gt=0, description="How far.")


class Square(Spec):
    kind: Literal["square"] = "square"
    side: int = Field(2, ge=1, description="How long.")


class Train(Spec):
    length: DurationField = Field("500 steps", validate_default=True, description="How long.")
    rate: float = Field(1e-4, gt=0, description="How fast.")


class Whole(Spec):
    """With everything a recipe has: tables, a tagged union, tuples, a None."""

    name: str = Field("", description="A name.")
    note: str | None = Field(None, description="May be left out.")
    words: tuple[str, ...] = Field((), description="Some words.")
    number: int = Field(0, description="Any whole number.")
    train: Train = Train()
    shape: Annotated[Round | Square, Field(discriminator="kind")] = Round()
    shapes: tuple[Square, ...] = ()

    @model_validator(mode="after")
    def _rule(self) -> Whole:
        if self.name == "forbidden":
            raise ValueError("name must not be forbidden")
        return self


FINITE = st.floats(min_value=1e-300, max_value=1e300)
SQUARES = st.builds(Square, side=st.integers(1, 2**62))
WHOLES = st.builds(
    Whole,
    name=st.text().filter(lambda text: text != "forbidden"),
    note=st.none() | st.text(),
    words=st.lists(st.text(), max_size=3).map(tuple),
    number=st.integers(-(2**63), 2**63 - 1),
    train=st.builds(Train, length=st.builds(Duration, st.integers(0, 10**6), st.sampled_from(["steps", "epochs"])), rate=FINITE),
    shape=st.builds(Round, radius=FINITE) | SQUARES,
    shapes=st.lists(SQUARES, max_size=2).map(tuple),
)


def complaint(tree: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        Whole.from_tree(tree, "my.toml")
    return str(caught.value)


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Whole().name = "changed"  # type: ignore[misc]


@given(WHOLES)
@settings(deadline=None)
def test_spec_to_toml_to_spec(whole: Whole) -> None:
    """Read back by the standard library's parser, not by ours."""
    assert Whole.from_tree(tomllib.loads(whole.to_toml()), "test") == whole


@given(WHOLES)
@settings(deadline=None, max_examples=30)
def test_spec_to_file_to_spec(tmp_path_factory: pytest.TempPathFactory, whole: Whole) -> None:
    path = tmp_path_factory.getbasetemp() / "whole.toml"
    write_text(path, whole.to_toml())
    assert Whole.from_tree(read_toml(path), path.name) == whole


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({"nmae": "x"}, ('there is no key "nmae"', 'Did you mean "name"?', "Known here: ", "train")),
        ({"train": {"lenght": "5 steps"}}, ('"train.lenght"', 'Did you mean "length"?', "Known here: length, rate")),
        ({"shape": {"kind": "square", "syde": 3}}, ('syde"', "side")),
        ({"shapes": [{"side": 1}, {"sied": 1}]}, ('sied"', "side")),
        ({"zzz": 1}, ('there is no key "zzz".', "Known here: ")),
    ],
)
def test_an_unknown_key_names_the_nearest(tree: dict[str, Any], parts: tuple[str, ...]) -> None:
    said = complaint(tree)
    assert said.startswith("my.toml: ")
    assert [part for part in parts if part not in said] == []


def test_a_key_that_is_near_in_another_table_is_found() -> None:
    assert '"train.length"' in complaint({"train.lenght": "5 steps"})


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({"train": {"rate": -1}}, ("train.rate = -1", "greater than 0")),
        ({"train": {"length": "soon"}}, ("train.length = 'soon'", "500 steps")),
        ({"number": "many"}, ("number = 'many'", "integer")),
        ({"train": 5}, ("train = 5", "dictionary")),
        ({"shape": {"kind": "oval"}}, ("shape", "round", "square")),
    ],
)
def test_a_bad_value_is_named_with_its_rule(tree: dict[str, Any], parts: tuple[str, ...]) -> None:
    said = complaint(tree)
    assert [part for part in ("my.toml: ", *parts) if part not in said] == []
    assert "Value error" not in said and "pydantic" not in said


def test_a_rule_of_the_whole_spec_is_said_plainly() -> None:
    """A rule over several keys has no key to name: "my.toml: name must not be forbidden."."""
    said = complaint({"name": "forbidden"})
    assert "name must not be forbidden" in said
    assert "a table" not in said and ":  =" not in said


def test_every_mistake_is_said_at_once() -> None:
    said = complaint({"nmae": "x", "train": {"rate": -1}, "number": "many"})
    assert len(said.splitlines()) == 3


def test_a_missing_key_says_how_to_set_it() -> None:
    class Needy(Spec):
        file: str

    with pytest.raises(RecipeError, match=r'x: the key "file" is missing.*--set file='):
        Needy.from_tree({}, "x")


def test_the_mistake_is_the_users() -> None:
    assert issubclass(RecipeError, DarkroomError)


def test_explain_takes_what_pydantic_says() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"train": {"rate": 0}})
    assert explain(Whole, caught.value.errors()[0], "here").startswith("here: train.rate = 0: ")


def test_fields_goes_into_tables_and_unions() -> None:
    assert {"name", "train", "train.length", "shape.radius", "shape.side", "shapes.side"} <= {name for name, _ in fields(Whole)}


@pytest.mark.parametrize(
    ("setting", "tree"),
    [
        ("number=5", {"number": 5}),
        ("train.rate=1e-3", {"train": {"rate": 0.001}}),
        ("train.length=200 steps", {"train": {"length": "200 steps"}}),
        ('train.length="200 steps"', {"train": {"length": "200 steps"}}),
        ("name = TOK cat ", {"name": "TOK cat"}),
        ("name=", {"name": ""}),
        ("name=a=b", {"name": "a=b"}),
        ("flag=true", {"flag": True}),
        ("flag=True", {"flag": "True"}),  # TOML's true is small
        ('words=["a", "b"]', {"words": ["a", "b"]}),
        ("shape={kind = 'round'}", {"shape": {"kind": "round"}}),
        ("a.b.c=1", {"a": {"b": {"c": 1}}}),
        ("images=C:\\photos\\cats", {"images": "C:\\photos\\cats"}),
    ],
)
def test_a_setting_is_toml_or_else_text(setting: str, tree: dict[str, Any]) -> None:
    assert override({}, [setting]) == tree


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=3)), st.integers())
def test_settings_change_what_they_name_and_nothing_else(tree: dict[str, Any], value: int) -> None:
    tree["d"] = {"x": 1, "y": {"z": 2}}
    before = repr(tree)
    changed = override(tree, [f"d.y.z={value}"])
    assert repr(tree) == before, "the given tree was changed"
    assert changed == tree | {"d": {"x": 1, "y": {"z": value}}}


def test_the_last_setting_wins() -> None:
    assert override({"a": 0}, ["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize("setting", ["rate", "=5", " =5", ""])
def test_a_setting_without_path_or_value_is_refused(setting: str) -> None:
    with pytest.raises(RecipeError, match="path=value"):
        override({}, [setting])


def test_a_setting_inside_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="rate is a value, not a table"):
        override({"train": {"rate": 1}}, ["train.rate.more=1"])


@pytest.mark.parametrize("content", [b"length = 500 steps", b'name = "caf\xe9"', b"a = 1\na = 2", b"\x00"])
def test_what_is_not_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine\.toml: not readable as TOML"):
        read_toml(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="not readable"):
        read_toml(tmp_path)


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b'name = "x"\r\n[train]\r\nrate = 2.0\r\n')
    assert read_toml(path) == {"name": "x", "train": {"rate": 2.0}}


def test_what_is_left_out_in_a_plain_table_is_left_out_of_toml() -> None:
    """A grid's request is a table, not a spec: an adapter without a weight of its own for the text has None in it."""
    from darkroom.jobs.grid import Grid

    grid = Grid.from_tree(
        {
            "request": {"prompt": "a cat", "adapters": [{"file": "a.safetensors", "text_weight": None}]},
            "axes": [{"name": "seed", "stops": [{"label": "1", "settings": ["seed=1"]}]}],
        },
        "test",
    )
    assert "text_weight" not in grid.to_toml()
    assert "a.safetensors" in grid.to_toml()
