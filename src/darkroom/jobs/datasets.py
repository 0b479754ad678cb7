"""Which datasets lie below a folder, told from their manifests' few columns; and the demo's nine cats, for whoever has no pictures at hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from darkroom import pocket
from darkroom.data.manifest import MANIFEST, ORIGINAL, is_dataset
from darkroom.data.picture import ENDINGS
from darkroom.fence import WHY, leads_out
from darkroom.files import whole_folder

DEEPEST = 4
MOST = 500
"""Datasets that are listed."""
COUNTED = 5_000
"""Files of a plain folder that are counted; beyond it says "more than"."""
RUNS = ("recipe.toml", "trial.toml", "facts.json")
"""What marks a folder whose pictures were drawn, not given."""
PASSED = frozenset({"uploads", "masks", "node_modules", "__pycache__"})


@dataclass(frozen=True)
class Known:
    """A dataset, or a plain folder of pictures, at a glance."""

    folder: Path
    plain: bool
    pictures: int
    more: bool = False
    """There are more than were counted."""
    kept: int = 0
    screened: bool = False
    captioned: int = 0
    held_out: int = 0
    first: tuple[str, ...] = ()
    """A few of its pictures."""
    fault: str = ""
    """Why it cannot be read."""


def datasets_below(folder: Path) -> list[Known]:
    """Folders with a manifest, and plain folders of pictures, but not what runs and trials drew; by name. Links are not followed."""
    return list(islice(_below(folder, 0), MOST))


def _below(folder: Path, depth: int) -> Iterator[Known]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    if depth and is_dataset(folder):
        yield glance(folder)
        return
    if any((folder / name).is_file() for name in RUNS):
        return
    if depth and any(path.suffix.lower() in ENDINGS and path.is_file() for path in inside if not path.name.startswith(".")):
        yield _plain(folder)
        return
    for path in inside if depth < DEEPEST else ():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".") and path.name not in PASSED:
            yield from _below(path, depth + 1)


def glance(folder: Path) -> Known:
    """A dataset by its manifest, of which five columns are read."""
    if leads_out(folder / MANIFEST):
        return Known(folder, False, 0, fault=f"{MANIFEST} {WHY}")
    stat = (folder / MANIFEST).stat()
    return _glance(folder, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=MOST)
def _glance(folder: Path, changed: int, size: int) -> Known:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / MANIFEST, columns=["file", "verdict", "overruled", "captions", "chosen", "split"])
        rows = table.to_pylist(maps_as_pydicts="lossy")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return Known(folder, False, 0, fault=f"{MANIFEST} is damaged or not Darkroom's ({error})")
    kept = [row for row in rows if (row["overruled"] or row["verdict"] or "keep") == "keep"]
    return Known(
        folder, False, len(rows), False, len(kept), any(row["verdict"] for row in rows),
        sum(bool((row["captions"] or {}).get(row["chosen"] or ORIGINAL)) for row in kept), sum(row["split"] == "held_out" for row in kept),
        tuple(row["file"] for row in (kept or rows)[:4]),
    )  # fmt: skip


def _plain(folder: Path) -> Known:
    found = list(islice((path for path in _files(folder) if path.suffix.lower() in ENDINGS), COUNTED + 1))
    names = tuple(path.relative_to(folder).as_posix() for path in sorted(found)[:4])
    count = min(len(found), COUNTED)
    return Known(folder, True, count, len(found) > COUNTED, count, first=names)


def _files(folder: Path) -> Iterator[Path]:
    seen = (path for path in folder.rglob("*") if not any(part.startswith(".") or part == "masks" for part in path.relative_to(folder).parts))
    return (path for path in seen if not leads_out(path))


def lay_cats(target: Path) -> int:
    """The demo's cats as a folder of pictures, those with a caption and those without; returns how many. Raises OutputError where something lies there."""
    with whole_folder(target) as folder:
        for path in sorted(pocket.CATS.rglob("*.*")):
            if path.suffix in (".png", ".txt"):
                shutil.copyfile(path, folder / path.name)
    return sum(path.suffix == ".png" for path in target.iterdir())


def free_name(folder: Path, name: str) -> Path:
    """`folder/name`, or `folder/name-2` and so on where something lies there."""
    tries = (folder / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000))
    return next(path for path in tries if not path.exists())
