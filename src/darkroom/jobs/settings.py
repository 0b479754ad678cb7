"""What `--set` must say so that one recipe becomes another: a form's choices as a command line that a person can copy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from darkroom.spec import Spec, override
from darkroom.train.recipe import Recipe
from darkroom.values import Duration

OPTIONS = {"data.images": "--images", "data.subject": "--subject", "base": "--base"}
"""Keys that `darkroom train` has an option of its own for."""
BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotes."""


def command(name: str, before: Recipe, after: Recipe) -> list[str]:
    """The words after `darkroom` that train `after`, where `before` is what the recipe `name` says by itself."""
    words = ["train", name]
    for key, value in changes(before, after):
        words += [OPTIONS[key], value] if key in OPTIONS else ["--set", f"{key}={said(value)}"]
    return words


def changes(before: Spec, after: Spec, path: str = "") -> Iterator[tuple[str, Any]]:
    """What differs, as ("train.length", "200 steps"): laid over `before` it gives `after`. A table of another kind is given whole."""
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(new, Spec) and type(old) is type(new) and not _emptied(old, new):
            yield from changes(old, new, f"{path}{name}.")
        else:
            yield f"{path}{name}", compact(new)


def _emptied(before: Spec, after: Spec) -> bool:
    """Whether a key is to be nothing that is something: TOML has no word for it, so that its table is given anew without it."""
    return any(getattr(after, name) is None and getattr(before, name) is not None for name in type(after).model_fields)


def compact(value: Any) -> Any:
    """A spec as the shortest table that means it, its kind always named; other values as TOML has them."""
    match value:
        case Spec():
            kept = {
                name: compact(own) for name, info in type(value).model_fields.items()
                if (own := getattr(value, name)) is not None and (name == "kind" or own != info.get_default(call_default_factory=True, validated_data={}))
            }  # fmt: skip
            return kept
        case tuple() | list():
            return [compact(part) for part in value]
        case dict():
            return {key: compact(part) for key, part in value.items()}
        case Duration():
            return str(value)
        case _:
            return value


def said(value: Any) -> str:
    """The value as `--set` reads it back: text without quotes where it cannot be taken for anything else."""
    if isinstance(value, str) and override({}, [f"key={value}"]) == {"key": value}:
        return value
    return inline(value)


def inline(value: Any) -> str:
    """TOML in one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")  # TOML has all escapes of JSON, and wants this one besides
        case dict():
            return "{" + ", ".join(f"{key if BARE.fullmatch(key) else inline(key)} = {inline(part)}" for key, part in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(inline, value)) + "]"
        case _:
            return repr(value)


def differing_toml(before: Recipe, after: Recipe) -> str:
    """The same differences as TOML, to be put into a copy of the recipe."""
    import tomli_w

    tree: dict[str, Any] = {}
    for key, value in changes(before, after):
        *parents, last = key.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tomli_w.dumps(tree)
