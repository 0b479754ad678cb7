"""Trials that come with Darkroom: a file with arms and comparisons, worlds (a base model with prompts of its own), and places for what is trained first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError, did_you_mean
from darkroom.spec import Tree, read_toml

TRIALS = Path(__file__).parents[1] / "trials"
PLACE = re.compile(r"\{([a-z_]+)\}")


def is_shipped(name: str) -> bool:
    """Whether a trial of this name comes with Darkroom."""
    return (TRIALS / f"{name}.toml").is_file()


def parse_place(text: str) -> tuple[str, str]:
    """ "negative=runs/negative". Raises RecipeError."""
    place, equals, value = text.partition("=")
    if not equals or not place.strip():
        raise RecipeError(f"--fill {text}: write it as PLACE=FILE, for example negative=runs/negative; PLACE= leaves its arms out.")
    return place.strip(), value.strip()


def shipped_trial(name: str, world: str = "pocket", places: Mapping[str, str] = {}, pilot: bool = False) -> Tree:
    """The tree of a shipped trial in one world, its places filled; with `pilot` the world's pilot prompts in place of its own.

    An arm that needs a place which is filled with "" is left out, with its comparisons. Raises RecipeError for an unknown trial, world or place, and for a
    place that is not filled.
    """
    tree = _read(name)
    worlds = tree.pop("worlds")
    if world not in worlds:
        raise RecipeError(f"--world {world}: {name} has no such world.{did_you_mean(world, worlds)} It has {', '.join(worlds)}.")
    own = dict(worlds[world])
    known, tried = own.pop("places", {}) | places, own.pop("pilot", [])
    tree |= own | ({"prompts": tried} if pilot else {})
    arms = [arm for arm in tree["arms"] if all(known.get(place, "-") for place in _wanted(arm))]
    names = {arm["name"] for arm in arms}
    tree |= {"arms": arms, "comparisons": [pair for pair in tree["comparisons"] if names.issuperset(pair)]}
    _check(name, tree, known, {place for each in (_read(name), worlds[world]) for place in _wanted(each)})
    filled: Tree = _filled(tree, known)
    return filled


@cache
def shipped_trials() -> tuple[Tree, ...]:
    """What ships, to choose from: {"name", "title", "about", "worlds"}, and by world {"base", "prompts", "arms", "places": [{"name", "kind", "default"}]}.

    A place's kind is what fills it: "adapter", "word" (an embedding's file), "model", or "text"; its default is None where somebody has to fill it.
    """
    return tuple(_told(name) for name in _names())


def _told(name: str) -> Tree:
    tree = _read(name)
    worlds = tree.pop("worlds")
    return {"name": name, "title": tree["title"], "about": tree.get("about", ""), "worlds": {world: _world(tree, own) for world, own in worlds.items()}}


def _world(tree: Tree, own: Tree) -> Tree:
    known = own.get("places", {})
    kinds = dict([*_kinds(tree), *_kinds({key: value for key, value in own.items() if key != "places"})])
    places = [{"name": place, "kind": kind, "default": known.get(place)} for place, kind in kinds.items()]
    return {"base": own.get("base", ""), "prompts": len(own["prompts"]), "arms": len(tree["arms"]), "places": places}


def _kinds(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every place and what fills it, by where it stands."""
    match value:
        case str():
            kind = {"adapters": "adapter", "embeddings": "word", "base": "model"}.get(key, "text")
            yield from ((place, kind) for place in PLACE.findall(value))
        case dict():
            for name, inner in value.items():
                yield from _kinds(inner, key if name == "file" else name)
        case list():
            for inner in value:
                yield from _kinds(inner, key)


def _names() -> list[str]:
    return sorted(path.stem for path in TRIALS.glob("*.toml"))


def _read(name: str) -> Tree:
    shipped = _names()
    if name not in shipped:
        raise RecipeError(f'"{name}" is no trial.{did_you_mean(name, shipped)} Known: {", ".join(shipped)}; or give a .toml file.')
    return read_toml(TRIALS / f"{name}.toml")


def _check(name: str, tree: Tree, known: Mapping[str, str], asked: set[str]) -> None:
    unknown = [place for place in known if place not in asked]
    if unknown:
        raise RecipeError(f"--fill {unknown[0]}=...: {name} has no such place.{did_you_mean(unknown[0], asked)} It has {', '.join(sorted(asked))}.")
    missing = sorted(set(_wanted(tree)) - set(known))
    if missing:
        ways = " ".join(f"--fill {place}=FILE" for place in missing)
        raise RecipeError(f"{name}: {', '.join(missing)} must be filled: {ways}; {missing[0]}= leaves its arms out.")


def _wanted(value: Any) -> Iterator[str]:
    """The places that stand in it, at any depth."""
    match value:
        case str():
            yield from PLACE.findall(value)
        case dict():
            for inner in value.values():
                yield from _wanted(inner)
        case list():
            for inner in value:
                yield from _wanted(inner)


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    match value:
        case str():
            return PLACE.sub(lambda found: known[found[1]], value)
        case dict():
            return {key: _filled(inner, known) for key, inner in value.items()}
        case list():
            return [_filled(inner, known) for inner in value]
        case _:
            return value
