"""A dataset configuration of sd-scripts: [general], [[datasets]], [[datasets.subsets]]. The lowest level that says a thing counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError, did_you_mean
from darkroom.jobs.migrate.kohya_options import CANONICAL, GENERAL, SUBSET
from darkroom.jobs.migrate.report import Row

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass
class Dataset:
    """What counts for the one folder that a recipe can name, under sd-scripts' names, and rows for all the rest."""

    given: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)


Level = tuple[str, dict[str, Any], list[str]]


def read_dataset(tree: dict[str, Any], program: str) -> Dataset:
    """Raises RecipeError where it is no dataset configuration, or holds nothing to learn from."""
    general, datasets = tree.get("general", {}), tree.get("datasets")
    if not isinstance(general, dict) or not isinstance(datasets, list) or not datasets or not all(isinstance(each, dict) for each in datasets):
        raise RecipeError(f"{program}: is no dataset configuration: it needs [[datasets]] with [[datasets.subsets]], and may have [general].")
    places = [(d, s, subset) for d, each in enumerate(datasets) for s, subset in enumerate(_subsets(each, d, program))]
    chosen = next(((d, s) for d, s, subset in places if not subset.get("is_reg")), None)
    if chosen is None:
        raise RecipeError(f"{program}: holds no subset that is not regularisation (is_reg), so nothing to learn from.")
    found = Dataset()
    for key in sorted(tree.keys() - {"general", "datasets"}):
        found.rows.append(Row(key, tree[key], "unknown", "", f"a dataset configuration has [general] and [[datasets]] alone.{did_you_mean(key, GENERAL)}"))
    for level in _levels(general, datasets, chosen):
        _lay(found, level)
    for d, s, subset in places:
        if (d, s) != chosen:
            _leave(found, f"datasets[{d}].subsets[{s}].", subset)
    for d, each in enumerate(datasets):
        if d != chosen[0]:
            _leave(found, f"datasets[{d}].", {key: value for key, value in each.items() if key != "subsets"})
    mine = found.given.get("image_dir")
    others = {str(subset.get("image_dir") or subset.get("metadata_file")) for d, s, subset in places if (d, s) != chosen and not subset.get("is_reg")} - {mine}
    if others:
        found.todo.append(f"A recipe learns from one folder. Put the pictures of {', '.join(sorted(others))} into it too, if they belong to the same subject.")
    return found


def _subsets(dataset: dict[str, Any], number: int, program: str) -> list[dict[str, Any]]:
    subsets = dataset.get("subsets", [])
    if not isinstance(subsets, list) or not all(isinstance(each, dict) for each in subsets):
        raise RecipeError(f"{program}: datasets[{number}].subsets is no list of tables. Write [[datasets.subsets]].")
    return subsets


def _levels(general: dict[str, Any], datasets: list[dict[str, Any]], chosen: tuple[int, int]) -> Iterator[Level]:
    d, s = chosen
    yield "general.", general, GENERAL
    yield f"datasets[{d}].", {key: value for key, value in datasets[d].items() if key != "subsets"}, GENERAL
    yield f"datasets[{d}].subsets[{s}].", datasets[d]["subsets"][s], SUBSET


def _lay(found: Dataset, level: Level) -> None:
    prefix, values, known = level
    for key, value in values.items():
        name, shown = CANONICAL.get(key, key), prefix + key
        if key not in known:
            found.rows.append(Row(shown, value, "unknown", "", f"sd-scripts knows no such key here, and refuses it.{did_you_mean(key, known)}"))
            continue
        if name in found.names:
            found.rows.append(Row(found.names[name], found.given[name], "implied", "", f"{shown} says it again, and counts"))
        found.given[name], found.names[name] = value, shown


def _leave(found: Dataset, prefix: str, values: dict[str, Any]) -> None:
    regular = bool(values.get("is_reg"))
    why = (
        "regularisation pictures are no recipe's (yet): only your own are learned from" if regular else "a recipe learns from one folder (yet): the first one's"
    )
    for key, value in values.items():
        known = key in SUBSET or key in GENERAL
        found.rows.append(
            Row(prefix + key, value, "no_equal" if known else "unknown", "", why if known else f"sd-scripts knows no such key here.{did_you_mean(key, SUBSET)}")
        )


@dataclass(frozen=True)
class Folder:
    """A subfolder "10_TOK cat" of train_data_dir: its repeats and class tokens."""

    path: Path
    repeats: int
    tokens: str


def dreambooth_folders(folder: str) -> list[Folder]:
    """The subfolders of a train_data_dir that sd-scripts learns from; none where the folder is not on this machine."""
    root = Path(folder)
    try:
        inner = sorted(path for path in root.iterdir() if path.is_dir()) if folder else []
    except OSError:
        return []
    found = []
    for path in inner:
        number, _, tokens = path.name.partition("_")
        if number.isdigit() and int(number) > 0:
            found.append(Folder(path, int(number), tokens))
    return found
