"""Tables of another program's options, and their values read by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from darkroom.errors import RecipeError

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class Option:
    """One option: its name, what its value is, and what the program takes where it is left out."""

    name: str
    kind: str
    default: Any = None


def table(text: str) -> dict[str, Option]:
    """Options from lines "name kind default"; kinds are str, int, float, number (int or float), flag, list, any. No default: None (a flag: False)."""
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, kind, *default = line.split(maxsplit=2)
        option = Option(name, kind, False if kind == "flag" else None)
        found[name] = Option(name, kind, read(option, default[0], name)) if default else option
    return found


def words(text: str) -> list[str]:
    """The words of a text, as a list of names."""
    return text.split()


def defaults(options: dict[str, Option]) -> dict[str, Any]:
    """What the program takes where nothing is said."""
    return {name: option.default for name, option in options.items()}


def read(option: Option, value: Any, shown: str) -> Any:
    """The value as its kind; an empty one is None (programs with forms write "" for "not set"). Raises RecipeError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    match option.kind:
        case "int":
            return _whole(value, shown)
        case "float":
            return _number(value, shown)
        case "number":
            found = _number(value, shown)
            return int(found) if isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()) else found
        case "flag":
            return _flag(value, shown)
        case "list":
            return [str(part) for part in value] if isinstance(value, list | tuple) else str(value).replace('"', "").split()
        case "str":
            return value if isinstance(value, str) else str(value)
        case _:
            return value


def _number(value: Any, shown: str) -> float:
    try:
        if isinstance(value, bool | list | dict):
            raise ValueError
        found = float(value)
    except ValueError:
        raise RecipeError(f"{shown} = {value!r}: is no number, and that program would refuse it too. Correct it there.") from None
    if found != found or found in (float("inf"), float("-inf")):
        raise RecipeError(f"{shown} = {value!r}: is no finite number. Correct it there.")
    return found


def _whole(value: Any, shown: str) -> int:
    found = _number(value, shown)
    if found != int(found):
        raise RecipeError(f"{shown} = {value!r}: must be a whole number, and that program would refuse it too. Correct it there.")
    return int(found)


def _flag(value: Any, shown: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in TRUE + FALSE:
        raise RecipeError(f"{shown} = {value!r}: is neither true nor false. Correct it there.")
    return text in TRUE
