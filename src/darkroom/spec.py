"""Spec: frozen data that can do one thing. No unknown keys, TOML in and out, "did you mean"."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from darkroom.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from darkroom.places import Listener

Tree = dict[str, Any]
T = TypeVar("T", bound="Spec")


class Spec(BaseModel):
    """Frozen, complete and readable: every field has a description, and an unknown key is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def from_tree(cls, tree: Tree, source: str) -> Self:
        """Make one from nested dictionaries; `source` is what error messages name. Raises RecipeError."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise RecipeError("\n".join(explain(cls, item, source) for item in error.errors())) from None

    def near(self, *but: str, listener: Listener | None = None) -> Self:
        """The same with the paths of working copies where its values are addresses (`places.near`), the keys named in `but` aside. Raises PlaceError.

        What is written names the addresses again (`files.told`).
        """
        tree = self.model_dump(mode="json")
        found = _near(tree, "", but, listener)
        return self if found == tree else type(self).from_tree(found, type(self).__name__)

    def to_toml(self) -> str:
        """TOML text that `read_toml` and `from_tree` bring back to an equal spec (None is left out: TOML has no null)."""
        import tomli_w

        return tomli_w.dumps(_filled(self.model_dump(mode="json", exclude_none=True)))


def _filled(value: Any) -> Any:
    """Without None in tables that are no specs: a grid's request, an arm's settings."""
    match value:
        case dict():
            return {key: _filled(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_filled(inner) for inner in value]
        case _:
            return value


def _near(value: Any, key: str, but: Collection[str], listener: Listener | None) -> Any:
    match value:
        case dict():
            return {name: _near(inner, f"{key}.{name}".lstrip("."), but, listener) for name, inner in value.items()}
        case list() | tuple():
            return [_near(inner, key, but, listener) for inner in value]
        case str() if "://" in value and key not in but:
            from darkroom import places

            return str(places.near(value, listener)) if places.is_known(value) else value
        case _:
            return value


def kind_of(otherwise: str) -> Callable[[Any], str]:
    """For a tagged union: the `kind` of a table or spec; `otherwise` where a table leaves it out."""

    def kind(value: Any) -> str:
        return str(value.get("kind", otherwise) if isinstance(value, dict) else getattr(value, "kind", otherwise))

    return kind


def read_toml(path: Path) -> Tree:
    """The file as nested dictionaries. Raises RecipeError where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file. `darkroom recipes` lists the recipes that come with Darkroom.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f'{path}: not readable as TOML: {error}. A recipe is text such as `length = "500 steps"`.') from None


def override(tree: Tree, settings: Iterable[str]) -> Tree:
    """The tree with `path=value` settings laid over it. A value is read as TOML where it is TOML, else as text.

    Raises RecipeError for a setting without "=".
    """
    changed: Tree = {key: override(value, ()) if isinstance(value, dict) else value for key, value in tree.items()}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path.strip():
            raise RecipeError(f'--set {setting}: write it as path=value, for example --set train.length="200 steps".')
        *parents, last = path.strip().split(".")
        place = changed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"--set {setting}: {parent} is a value, not a table, so that {path} cannot be inside it.")
        place[last] = _value(value.strip())
    return changed


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
        return read["value"] if len(read) == 1 else text
    except tomllib.TOMLDecodeError:
        return text


def explain(cls: type[BaseModel], item: ErrorDetails, source: str) -> str:
    """One pydantic error as value, rule and way out."""
    parts, models = _place(cls, [str(part) for part in item["loc"]])
    *parents, last = parts or [""]
    path = ".".join(parts)
    message = item["msg"].removeprefix("Value error, ")
    match item["type"]:
        case "extra_forbidden":
            known = sorted({name for model in models or _models_at(cls, parents) for name in model.model_fields})
            hint = did_you_mean(last, known) or did_you_mean(path, sorted(key for key, _ in fields(cls) if key != path))
            return f'{source}: there is no key "{path}".{hint} Known here: {", ".join(known)}.'
        case "missing":
            return f'{source}: the key "{path}" is missing. Set it with --set {path}=... or in the file.'
        case "union_tag_invalid":
            known = [word.strip(" '") for word in item["ctx"]["expected_tags"].split(",")]
            tag = str(item["ctx"]["tag"])
            return f'{source}: {path}.kind = "{tag}": there is no such kind.{did_you_mean(tag, known)} Known: {", ".join(known)}.'
        case "value_error" if isinstance(item["input"], dict):  # a rule of the whole spec
            return f"{source}: {message}."
    shown = item["input"] if not isinstance(item["input"], dict) else "a table"
    return f"{source}: {path} = {shown!r}: {message}."


def _place(cls: type[BaseModel], loc: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The place of an error without the tags that pydantic puts in for a member of a union; and that member, where the error lies right in it."""
    kept: list[str] = []
    member: list[type[BaseModel]] = []
    for part in loc:
        models = _models_at(cls, kept) if kept else []
        tagged = [model for model in models if part not in model.model_fields and getattr(model.model_fields.get("kind"), "default", None) == part]
        if not tagged:
            kept.append(part)
        member = tagged or (member if part == loc[-1] else [])
    return kept, member


def _nested(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _nested(inner)


def _models_at(cls: type[BaseModel], parents: list[str]) -> list[type[BaseModel]]:
    found = [cls]
    for parent in parents:
        inner = [m for model in found if parent in model.model_fields for m in _nested(model.model_fields[parent].annotation)]
        found = inner or found  # a list index or the tag of a union is no field: stay where we are
    return found


def fields(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below `cls` as ("train.length", FieldInfo), tables included."""
    for name, info in cls.model_fields.items():
        yield prefix + name, info
        for model in _nested(info.annotation):
            yield from fields(model, f"{prefix}{name}.")
