"""Which column of a table is what: the address of the picture, its caption, its licence. Guessed where one is obvious, refused with the choice where not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from darkroom.data.picture import ENDINGS
from darkroom.errors import DatasetError, did_you_mean

ADDRESSES = ("url", "image_url", "img_url", "image", "file_name", "filename", "image_path", "path", "file", "address")
"""Names that decide where several columns hold addresses."""
CAPTIONS = ("text", "caption")
"""As in metadata.jsonl."""
LICENCES = ("licence", "license")


@dataclass(frozen=True)
class Columns:
    """Names of columns; "" where there is none."""

    address: str = ""
    caption: str = ""
    licence: str = ""


def choose(where: str, head: Sequence[dict[str, str]], asked: Columns) -> Columns:
    """The columns that were asked for, and those that are obvious from the first rows. Raises DatasetError with the list where nothing is."""
    names = list(dict.fromkeys(name for row in head for name in row))
    for option, name in (("--column", asked.address), ("--caption-column", asked.caption), ("--licence-column", asked.licence)):
        if name and name not in names:
            raise DatasetError(f'{where}: {option} "{name}" is no column.{did_you_mean(name, names)} Columns: {", ".join(names)}.')
    address = asked.address or _address(where, names, head)
    caption = asked.caption or _named(where, names, CAPTIONS, "--caption-column", address)
    return Columns(address, caption, asked.licence or _named(where, names, LICENCES, "--licence-column", address))


def _named(where: str, names: list[str], known: tuple[str, ...], option: str, address: str) -> str:
    found = [name for name in names if name.lower() in known and name != address]
    if len(found) > 1:
        raise DatasetError(f"{where}: {' and '.join(found)} could both be meant. Say which with {option}.")
    return found[0] if found else ""


def _address(where: str, names: list[str], head: Sequence[dict[str, str]]) -> str:
    pictures = [name for name in names if _mostly(_is_picture, name, head)]
    found = pictures or [name for name in names if _mostly(_is_address, name, head)] or [name for name in names if name.lower() in ADDRESSES]
    known = [name for name in found if name.lower() in ADDRESSES]
    for obvious in (found, known):
        if len(obvious) == 1:
            return obvious[0]
    why = f"{' and '.join(found)} could all be it" if found else "none of them holds URLs or names of pictures"
    raise DatasetError(f"{where}: which column names the picture? {why}. Say it with --column; columns: {', '.join(names) or 'none'}.")


def _mostly(test: Callable[[str], bool], name: str, head: Iterable[dict[str, str]]) -> bool:
    """Whether more than half of the column's values pass."""
    values = [row[name].strip() for row in head if row.get(name, "").strip()]
    return 2 * sum(test(value) for value in values) > len(values)


def _is_picture(value: str) -> bool:
    return PurePosixPath(value.partition("?")[0].partition("#")[0]).suffix.lower() in ENDINGS | {".gif", ".avif"} and "\n" not in value


def _is_address(value: str) -> bool:
    return value.lower().startswith(("http://", "https://"))
