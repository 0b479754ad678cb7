"""The captions that lie beside pictures: NAME.txt, NAME.caption, metadata.jsonl, kohya's folders "10_TOK cat".

Two sources that disagree are an error, never a choice in silence. A folder's caption is for those of its pictures that have none of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.errors import DatasetError
from darkroom.fence import Outside, let

SIDECARS = (".txt", ".caption")
TABLE = "metadata.jsonl"


@dataclass(frozen=True)
class Found:
    """By picture (its path below the folder, with "/"): what it is called, the file that says so, and how often an epoch shows it."""

    captions: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    """Files that would say something and were passed over: links lead from them out of the folders that the asker may read (`darkroom.fence`)."""


def read_captions(folder: Path, files: Iterable[str]) -> Found:
    """The captions of these pictures. A metadata.jsonl captions the pictures of its own folder, by `file_name` below it.

    A folder "10_TOK cat" at the top has its pictures shown 10 times an epoch, and calls those "TOK cat" that nothing else calls (kohya).

    Raises DatasetError where sources disagree, a caption is empty, no UTF-8, or captions a picture that is not there.
    """
    found, problems = Found(), []
    listed = list(files)
    tables, tops = _tables(folder, listed, found.outside), class_folders(listed)
    for file in listed:
        top = file.partition("/")[0]
        if top in tops:
            found.repeats[file], found.captions[file] = tops[top]
            found.sources[file] = f"{top}/"
        told = _beside(folder, file, found.outside) | tables.get(file, {})
        if len(set(told.values())) > 1:
            both = "; ".join(f'{name} says "{text}"' for name, text in told.items())
            problems.append(f"{folder / file}: two captions that disagree: {both}. Keep one of them.")
        elif told:
            source, caption = next(iter(told.items()))
            if not caption:
                problems.append(f"{(folder / file).parent / source}: the caption is empty. Write one, or delete the file to caption with the subject.")
            found.captions[file], found.sources[file] = caption, source
    if problems:
        raise DatasetError("\n".join(problems[:20]) + (f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""))
    return found


def class_folder(name: str) -> tuple[int, str] | None:
    """Repeats and class tokens of a folder "10_TOK cat", as sd-scripts reads it; None where it would leave the folder out."""
    number, _, tokens = name.partition("_")
    return (int(number), tokens) if number.isascii() and number.isdigit() and int(number) > 0 else None


def class_folders(files: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The folders at the top of a dataset that are kohya's, with repeats and class caption.

    Stricter than sd-scripts, which knows that it was given a train_data_dir: "2023_holiday" and "01_front" are names, not repeats.
    """
    found = {}
    for top in sorted({file.partition("/")[0] for file in files if "/" in file}):
        said = class_folder(top)
        if said and re.fullmatch(r"[1-9]\d{0,2}_.*\S.*", top):
            found[top] = (said[0], one_line(said[1]))
    return found


def orphans(folder: Path, files: Iterable[str]) -> list[str]:
    """Files beside the pictures that look like captions and caption none of them: a misspelt name, or notes. Paths below the folder, sorted."""
    stems: dict[str, set[str]] = {"": set()}
    for file in files:
        parent, _, name = file.rpartition("/")
        stems.setdefault(parent, set()).add(name.rpartition(".")[0])
    found = []
    for parent, known in stems.items():
        inner = [path for path in (folder / parent).iterdir() if path.suffix.lower() in SIDECARS and not path.name.startswith(".") and path.is_file()]
        found += [path.relative_to(folder).as_posix() for path in inner if path.stem not in known]
    return sorted(found)


def _beside(folder: Path, file: str, outside: list[str]) -> dict[str, str]:
    """What the sidecars of one picture say, by their file names; those that lead out are added to `outside`."""
    found = {}
    for ending in SIDECARS:
        sidecar = (folder / file).with_suffix(ending)
        if sidecar.is_file() and (text := _said(folder, sidecar, outside)) is not None:
            found[sidecar.name] = one_line(text)
    return found


def _said(folder: Path, path: Path, outside: list[str]) -> str | None:
    """A text file, read where it really lies; None where it leads out. Raises DatasetError where it is no UTF-8."""
    try:
        return let(path).read_text(encoding="utf-8-sig")
    except Outside:
        if (name := path.relative_to(folder).as_posix()) not in outside:
            outside.append(name)
        return None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None


def one_line(text: str) -> str:
    """Without line breaks, tabs and doubled blanks."""
    return " ".join(text.split())


def _tables(folder: Path, files: list[str], outside: list[str]) -> dict[str, dict[str, str]]:
    """What the metadata.jsonl of each folder says, by picture."""
    known, found = set(files), {}
    for parent in sorted({file.rpartition("/")[0] for file in files} | {""}):
        path = folder / parent / TABLE
        prefix = f"{parent}/" if parent else ""
        text = (_said(folder, path, outside) if path.is_file() else None) or ""
        for name, caption in _table(path, text).items():
            if prefix + name not in known:
                raise DatasetError(f"{path}: captions {name}, which is not in the folder. Correct the file name there.")
            found[prefix + name] = {TABLE: caption}
    return found


def _table(path: Path, text: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, captions = _line(line, f"{path}, line {number}")
        captions |= {table[name]} if name in table else set()
        if len(captions) > 1:
            raise DatasetError(f"{path}, line {number}: two captions for {name} that disagree: {' / '.join(sorted(captions))}. Keep one of them.")
        table[name] = captions.pop()
    return table


def _line(line: str, where: str) -> tuple[str, set[str]]:
    """The file name of a line and what it says of it: under `text`, under `caption`, or under both."""
    try:
        row = json.loads(line)
        name, found = row["file_name"], [row[key] for key in ("text", "caption") if key in row]
        if not found or not all(isinstance(value, str) for value in (name, *found)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DatasetError(f'{where}: expected {{"file_name": "...", "text": "..."}}, found {line[:80]}') from None
    return name, {one_line(value) for value in found}
