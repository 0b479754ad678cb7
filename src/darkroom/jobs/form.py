"""What a form needs to ask for a recipe: the recipe's own JSON schema, with the source of each default and with what each text names.

A text of a recipe is words (a subject, a prompt), or it names something on this machine or on the hub. What names something is confined to the folders
that the form may reach, so that a new key counts as a name until it is listed among the words: forgetting it refuses too much and never too little.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from darkroom.jobs.reference import source
from darkroom.jobs.runs import described
from darkroom.spec import Spec, Tree, read_toml
from darkroom.train.recipe import RECIPES, Recipe

Names = Literal["words", "place", "model"]
WORDS = frozenset(
    {
        "Recipe.about", "Recipe.device", "Data.subject", "Data.caption", "Wording.keep_separator", "Wording.separator", "Wording.prefix", "Wording.suffix",
        "Prior.prompt", "TextualInversion.word", "TextualInversion.start", "Preview.prompts", "Track.wandb",
    }
)  # fmt: skip
"""Texts that name nothing: said in prompts and captions, or checked elsewhere."""
MODEL = re.compile(r"hub id|\bbase model\b")
"""How a description says that the key names a model."""
NOTE = re.compile(r"""^(?P<key>[A-Za-z0-9_.-]+)\s*=(?:"[^"]*"|'[^']*'|[^#"'])*#\s*(?P<note>.+)$""")
TABLE = re.compile(r"^\[(?P<table>[^\[\]]+)\]")


def names(cls: type[Spec], field: str) -> Names | None:
    """What a key of texts holds: words, a place (file or folder), or a model (a place, "pocket" or a hub id); None of a key that holds no free text."""
    info = cls.model_fields[field]
    if not _free_text(info.annotation) or any(getattr(rule, "pattern", None) for rule in info.metadata):
        return None
    if f"{cls.__name__}.{field}" in WORDS:
        return "words"
    return "model" if MODEL.search(info.description or "") else "place"


def _free_text(annotation: Any) -> bool:
    """Whether a text of any kind can stand there; the names of a table's keys are no such text."""
    if annotation is str:
        return True
    inner = get_args(annotation)
    if getattr(annotation, "__origin__", None) is dict:
        inner = inner[1:]
    return any(_free_text(part) for part in inner if part is not NoneType and not isinstance(part, str | int | float))


@cache
def schema() -> Tree:
    """`Recipe.model_json_schema()`; at each key also "source" (where its default comes from) and "names" (see `names`). Not to be changed."""
    tree = Recipe.model_json_schema()
    for cls in specs():
        table = tree if cls is Recipe else tree["$defs"][cls.__name__]
        for field, info in cls.model_fields.items():
            more = {"source": source(" ".join((info.description or "").split())), "names": names(cls, field)}
            table["properties"][field] |= {key: value for key, value in more.items() if value}
    return tree


def specs(cls: type[Spec] = Recipe) -> list[type[Spec]]:
    """Every kind of table that a recipe can hold, the recipe itself first."""
    found: dict[type[Spec], None] = {cls: None}
    for info in cls.model_fields.values():
        for inner in _specs_in(info.annotation):
            found |= dict.fromkeys(specs(inner))
    return list(found)


def _specs_in(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for inner in get_args(annotation):
        yield from _specs_in(inner)


def texts(spec: Spec, path: str = "") -> Iterator[tuple[str, Names, str]]:
    """Every free text in a spec that names a place or a model, as ("data.images", "place", "cats"); empty ones are left out."""
    for field in type(spec).model_fields:
        value, kind = getattr(spec, field), names(type(spec), field)
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Spec):
                yield from texts(part, f"{path}{field}.")
        if kind in ("place", "model"):
            yield from ((f"{path}{field}", kind, text) for text in _texts_in(value) if text)


def _texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case tuple() | list():
            for part in value:
                yield from _texts_in(part)
        case dict():
            for part in value.values():
                yield from _texts_in(part)


@dataclass(frozen=True)
class Offered:
    """One recipe to choose."""

    name: str
    """What `darkroom train` takes: a name, or the path of a file."""
    about: str
    method: str
    base: str
    steps: str


def offered() -> list[Offered]:
    """Those that ship with Darkroom."""
    return [offer(path.stem, path) for path in sorted(RECIPES.glob("*.toml"), key=lambda path: path.stem)]


def offer(name: str, path: Path) -> Offered:
    """A recipe file as it is offered. Raises RecipeError."""
    recipe = Recipe.from_tree(read_toml(path), name)
    return Offered(name, recipe.about, described(recipe), recipe.base, str(recipe.train.length))


def notes(text: str) -> dict[str, str]:
    """What a recipe's author wrote behind each value, where each has its own reason: {"train.accumulate": "--gradient_accumulation_steps=4"}."""
    found, table = dict[str, str](), ""
    for line in text.splitlines():
        if heading := TABLE.match(line.strip()):
            table = heading["table"].strip() + "."
        elif said := NOTE.match(line.strip()):
            found[table + said["key"]] = said["note"].strip()
    keys = set(_leaves(tomllib.loads(text)))
    return {key: note for key, note in found.items() if key in keys}


def _leaves(tree: Tree, path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        yield f"{path}{key}"
