"""What a form asks a recipe with: the schema, whole, and which of its texts name something; none of those can be forgotten."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from darkroom.jobs.form import WORDS, names, notes, offered, schema, specs, texts
from darkroom.jobs.reference import recipe_sections
from darkroom.spec import Spec
from darkroom.train.recipe import RECIPES, Recipe, find_recipe


class Stranger(Spec):
    """As a recipe may look some day."""

    style: str = Field("", description="A folder of pictures in the style.")
    teachers: tuple[str, ...] = Field((), description="Models to learn from, as hub ids.")
    beside: str | None = Field(None, description="No word of what it is.")
    table: dict[str, str] = Field({}, description="Files by name.")
    count: dict[str, float] = Field({}, description="Numbers by name.")
    choice: str = Field("a", pattern="^[ab]$", description="One of two.")


class Inner(Spec):
    strangers: tuple[Stranger, ...] = ()


def test_a_key_that_nobody_has_thought_of_counts_as_a_name() -> None:
    assert [names(Stranger, field) for field in Stranger.model_fields] == ["place", "model", "place", "place", None, None]
    held = Stranger(style="s", teachers=("a/b", "c/d"), beside="b", table={"x": "t"}, choice="b")
    assert [text for _, _, text in texts(Inner(strangers=(held,)))] == ["s", "a/b", "c/d", "b", "t"]


def test_every_free_text_of_the_schema_is_words_or_a_name() -> None:
    free = {f"{cls}.{key}" for cls, table in tables().items() for key, node in table["properties"].items() if is_free(node)}
    told = {f"{cls.__name__}.{field}": names(cls, field) for cls in specs() for field in cls.model_fields}
    assert {key for key, kind in told.items() if kind} == free
    assert {key for key, kind in told.items() if kind == "words"} == WORDS, "a key among the words that is gone"


def test_no_key_that_speaks_of_folders_or_models_is_among_the_words() -> None:
    spoken = re.compile(r"\bfolders?\b|hub id|\.safetensors|checkpoint|\bpath\b")
    found = {f"{cls.__name__}.{field}": info.description or "" for cls in specs() for field, info in cls.model_fields.items()}
    assert [key for key in WORDS if spoken.search(found[key])] == []


def test_the_schema_says_where_each_default_comes_from_as_the_reference_does() -> None:
    told = {(section.path, section.kind, entry.key): entry.source for section in recipe_sections() for entry in section.entries}
    assert schema()["$defs"]["Train"]["properties"]["length"]["source"] == told["train", "", "length"] == "diffusers' script: 500 steps"
    assert schema()["$defs"]["LoRA"]["properties"]["alpha"]["source"] == told["method", "lora", "alpha"]
    assert "source" not in schema()["$defs"]["Train"]["properties"]["keep"]


def test_what_an_author_wrote_behind_a_value() -> None:
    found = notes(find_recipe("cat-lora").read_text(encoding="utf-8"))
    assert found["train.accumulate"].startswith("--gradient_accumulation_steps=4")
    assert found["train.length"] == '--max_train_steps=500; "500-1000 steps give better results" than 200-400'
    assert notes('a = "b # c"  # d\n[t]\nx = 1\n# no = 1 # e\n') == {"a": "d"}


def test_every_shipped_recipe_is_offered() -> None:
    assert [one.name for one in offered()] == sorted(path.stem for path in RECIPES.glob("*.toml"))
    assert next(one for one in offered() if one.name == "demo").method == "lora 8"


def tables() -> dict[str, Any]:
    plain = Recipe.model_json_schema()
    return {"Recipe": plain, **plain["$defs"]}


def is_free(node: Any) -> bool:
    """Whether any text may stand there: seen in the JSON schema, not in the types."""
    if isinstance(node, list):
        return any(map(is_free, node))
    if not isinstance(node, dict) or "const" in node or "enum" in node or "pattern" in node:
        return False
    inner = [node.get(key, []) for key in ("anyOf", "items", "prefixItems", "additionalProperties")]
    return node.get("type") == "string" or any(map(is_free, inner))
