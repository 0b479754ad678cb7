"""What a page says of a recipe, confined: a key that names a file, a folder or a model leads nowhere outside of the grounds, whatever key it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.form import Names, names, offer, offered, texts
from darkroom.jobs.form import Offered as Offer
from darkroom.spec import Spec, Tree, read_toml
from darkroom.train.recipe import Recipe, find_recipe
from darkroom.web.grounds import Grounds, Refused
from darkroom.web.naming import HUB, as_word

SHIPPED = re.compile(r"^[a-z0-9-]{1,60}$")
"""How recipes are called that come with Darkroom."""
POCKET = "pocket"
FORM = "the form"
OWN = "recipes"
"""Recipes of one's own lie in this folder of the workspace."""


def recipes(grounds: Grounds) -> list[Offer]:
    """What can be chosen: the shipped ones, then those of the workspace's recipes/ that are whole."""
    found = offered()
    for path in sorted((grounds.workspace / OWN).glob("*.toml")):
        try:
            found.append(offer(grounds.name(path), grounds.there(grounds.name(path))))
        except (RecipeError, Refused):
            continue
    return found


def file_of(grounds: Grounds, name: str) -> Path:
    """The file of a recipe that a page names: a shipped one, or a .toml in the grounds. Raises Refused, RecipeError."""
    if SHIPPED.match(name):
        return find_recipe(name)
    path = grounds.there(name)
    if path.suffix != ".toml" or not path.is_file():
        raise Refused(f"{name}: is no recipe. Recipes are .toml files.")
    return path


def word_of(grounds: Grounds, name: str) -> str:
    """The same as a word of the command line."""
    path = file_of(grounds, name)
    return name if SHIPPED.match(name) else as_word(grounds, path)


def read_recipe(grounds: Grounds, name: str) -> Recipe:
    """What the recipe says by itself. Raises Refused, RecipeError."""
    return Recipe.from_tree(read_toml(file_of(grounds, name)), name)


def wanted(grounds: Grounds, tree: Tree) -> Recipe:
    """The recipe that a page asks for, every name in it confined and written as a job in the workspace reads it. Raises Refused, RecipeError."""
    recipe = Recipe.from_tree(tree, FORM)
    if Path(recipe.product).name != recipe.product or "\\" in recipe.product:
        raise Refused(f'{FORM}: data.subject = "{_short(recipe.data.subject)}": its first word names the file, and holds a "/" or a "\\".')
    found = Recipe.from_tree(_replaced(recipe, lambda key, kind, text: _meant(grounds, key, kind, text)), FORM)
    for key, kind, text in texts(found):  # again, and by another way through the recipe: nothing is left that was not looked at
        _meant(grounds, key, kind, text)
    return found


def shown(grounds: Grounds, recipe: Recipe) -> Tree:
    """A recipe as pages write it: paths of this machine by the names they have in the grounds, as far as they lie there."""

    def name(key: str, kind: Names, text: str) -> str:
        try:
            return grounds.name(Path(text)) if Path(text).is_absolute() else text
        except Refused:
            return text

    return _replaced(recipe, name)


def _meant(grounds: Grounds, key: str, kind: Names, text: str) -> str:
    """One name as a job in the workspace reads it. Raises Refused with its key."""
    place = Path(text)
    try:
        if place.is_absolute():
            text = grounds.name(place)
        if kind == "model" and text == POCKET:
            return text
        path = grounds.path(text)
    except Refused as why:
        raise Refused(f"{FORM}: {key} = {_short(text)!r}: {str(why).partition(': ')[2] or why}") from None
    if kind == "model" and not path.exists() and HUB.match(text):
        return text
    return as_word(grounds, path)


def word(grounds: Grounds, name: str) -> str:
    """A name as a word of the command line. Raises Refused."""
    return as_word(grounds, grounds.path(name))


def _replaced(spec: Spec, change: Callable[[str, Names, str], str], path: str = "") -> Tree:
    """The spec as a tree, `change(key, kind, text)` in the place of every text that names a place or a model."""
    tree = spec.model_dump(mode="json")
    for field in type(spec).model_fields:
        value, kind, key = getattr(spec, field), names(type(spec), field), f"{path}{field}"
        if isinstance(value, Spec):
            tree[field] = _replaced(value, change, f"{key}.")
        elif isinstance(value, tuple | list) and any(isinstance(part, Spec) for part in value):
            tree[field] = [_replaced(part, change, f"{key}.") if isinstance(part, Spec) else part for part in value]
        elif kind in ("place", "model"):
            tree[field] = _each(tree[field], partial(change, key, kind))
    return tree


def _each(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value) if value else value
        case list():
            return [_each(part, change) for part in value]
        case dict():
            return {key: _each(part, change) for key, part in value.items()}
        case _:
            return value


def _short(text: str) -> str:
    return text[:80] + ("..." if len(text) > 80 else "")
