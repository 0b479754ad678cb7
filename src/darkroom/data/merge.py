"""Two who changed the same dataset at the same time: what each of them changed holds. Where both changed the same value of a picture, nobody guesses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from darkroom.data.manifest import Row

Value = TypeVar("Value")


class Differ(Exception):
    """Both changed it, and not to the same."""


def merged_rows(old: Sequence[Row], mine: Sequence[Row], theirs: Sequence[Row], fresh: type[Row]) -> list[Row]:
    """The rows with what `mine` and what `theirs` changed since `old`. A row that either took away, because its picture is gone, stays away.

    Raises Differ, with the file and the column, where both changed the same value to different ones.
    """
    before, ours, others = ({row.file: row for row in rows} for rows in (old, mine, theirs))
    found = []
    for file in sorted(ours.keys() | others.keys()):
        if file in ours and file in others:
            found.append(_row(before.get(file) or fresh(file), ours[file], others[file]))
        elif file not in before:
            found.append(ours.get(file) or others[file])
    return found


def merged_notes(old: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of both; of one that both changed mine, which is the later."""
    return {**theirs, **{name: note for name, note in mine.items() if old.get(name) != note}}


def _row(old: Row, mine: Row, theirs: Row) -> Row:
    if theirs in (old, mine):
        return mine
    if mine == old:
        return theirs
    changes = {}
    for column in dataclasses.fields(old):
        name = column.name
        try:
            changes[name] = _value(getattr(old, name), getattr(mine, name), getattr(theirs, name))
        except Differ:
            raise Differ(f"{old.file}: {name}") from None
    return dataclasses.replace(mine, **changes)


def _value(old: Value, mine: Value, theirs: Value) -> Value:
    if mine in (old, theirs):
        return theirs
    if theirs == old:
        return mine
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping) and isinstance(old, Mapping):
        names = [*theirs, *(name for name in mine if name not in theirs)]
        found = {name: _value(old.get(name), mine.get(name), theirs.get(name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}  # type: ignore[return-value]
    raise Differ
