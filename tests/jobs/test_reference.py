"""The reference page: made from the code, complete, its links lead somewhere, and the committed one is up to date."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from darkroom.captioning import KINDS
from darkroom.cli.main import run as command
from darkroom.data.checks import CHECKS
from darkroom.jobs.reference import _entry, captioner_sections, check_sections, page, recipe_sections, source, unsourced
from darkroom.spec import Spec, fields
from darkroom.train.recipe import Recipe

COMMITTED = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_committed_page_is_up_to_date() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == page(), "a key changed: run `make reference`"


def test_every_key_is_there() -> None:
    """Against spec.fields, which walks the recipe another way."""
    told = {(section.path, entry.key) for section in recipe_sections() for entry in section.entries}
    names = {key for _, key in told}
    assert {path.rpartition(".")[2] for path, _ in fields(Recipe)} - {"kind"} == names
    assert {section.kind for section in captioner_sections()} == KINDS.keys()
    assert {section.kind for section in check_sections()} == CHECKS.keys()
    kinds = {section.kind for section in recipe_sections() if section.kind}
    assert {"lora", "lycoris", "adamw", "prodigy", "schedule_free", "huber", "logit_normal"} <= kinds


def test_links_lead_somewhere_and_nothing_is_told_twice() -> None:
    text = page()
    anchors, links = re.findall(r'<a id="([^"]+)">', text), set(re.findall(r"\]\(#([^)]+)\)", text))
    assert len(anchors) == len(set(anchors)) and links <= set(anchors)
    assert all(row.count(" | ") >= 4 for row in text.splitlines() if row.startswith("| <a id"))


@pytest.mark.parametrize("section", [section for section in recipe_sections() if section.path], ids=lambda section: section.anchor)
def test_the_defaults_are_toml_that_a_recipe_takes(section: object) -> None:
    """Every default as it is printed, put into a recipe, gives the recipe without it."""
    lines = [f"{entry.key} = {entry.default}" for entry in section.entries if entry.default not in ("its own", "none", "must be given")]  # type: ignore[attr-defined]
    kind = [f'kind = "{section.kind}"'] if section.kind else []  # type: ignore[attr-defined]
    head = f"[{section.path}]"  # type: ignore[attr-defined]
    plain = [line for line in lines if "kind = " not in line]
    made = Recipe.from_tree(tomllib.loads("\n".join([head, *kind, *plain])), "test")
    assert made == Recipe.from_tree(tomllib.loads("\n".join([head, *kind])), "test")


class Round(Spec):
    """A round one."""

    kind: Literal["round"] = "round"


class Square(Spec):
    """A square one."""

    kind: Literal["square"] = "square"


class Sample(Spec):
    count: int = Field(3, ge=1, le=9, description="How many (kohya: 3).")
    share: float = Field(1e-4, gt=0, lt=1, description="How much.")
    words: tuple[str, ...] = Field(("a", "b"), description="Which | which not.")
    pair: tuple[float, float] = Field((0.5, 1.0), description="Both.")
    note: str | None = Field(None, description="A note.")
    shape: Annotated[Round | Square, Field(discriminator="kind")] = Field(Square(), description="A shape.")


def test_types_and_values_in_words() -> None:
    told = {name: _entry(name, info, {Round: "r", Square: "s"}) for name, info in Sample.model_fields.items()}
    assert [(one.type, one.default) for one in told.values()] == [
        ("whole number, ≥ 1, ≤ 9", "3"), ("number, > 0, < 1", "0.0001"), ("list of texts", '["a", "b"]'), ("2 numbers", "[0.5, 1]"), ("text", "none"),
        ("a table: [round](#r), [square](#s)", 'kind = "square"'),
    ]  # fmt: skip
    assert told["count"].source == "kohya: 3" and told["share"].source == ""


def test_sources() -> None:
    assert source("Batches (diffusers' script: 4) of pictures (no source).") == "diffusers' script: 4"
    assert source("Weighs (Hang et al. 2023: 5), or not (sd-scripts: 0).") == "Hang et al. 2023: 5; sd-scripts: 0"
    assert source("As it lies: measured in docs/log.md.") == "measured in docs/log.md"
    assert source("Off (where nothing is).") == ""


def test_defaults_without_a_source_are_listed() -> None:
    names = {name for name, _ in unsourced()}
    assert "train.save_every" in names, "a choice that is Darkroom's own"
    assert not names & {"train.length", "optimizer.adamw.rate", "data.batch_size"}, "diffusers' script is named"
    assert not names & {"data.images", "data.flip", "track.tensorboard"}, "nothing is asked for"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["recipes", "--reference"]) == 0
    assert capsys.readouterr().out == page()
    assert command(["recipes", "--reference", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipes"][0]["entries"][0]["key"] == "about" and len(found["captioners"]) == len(KINDS)
