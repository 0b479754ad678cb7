"""A dataset configuration of sd-scripts: [general], [[datasets]], [[datasets.subsets]]. The lowest level that says a thing counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.data.captions import class_folder
from darkroom.data.kohya import GENERAL, SUBSET, Level, subsets
from darkroom.errors import RecipeError, did_you_mean
from darkroom.jobs.migrate.kohya_options import CANONICAL
from darkroom.jobs.migrate.report import Row


@dataclass
class Dataset:
    """What counts for the one folder that a recipe can name, under sd-scripts' names, and rows for all the rest."""

    given: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)


def read_dataset(tree: dict[str, Any], program: str) -> Dataset:
    """Raises RecipeError where it is no dataset configuration, or holds nothing to learn from."""
    places = subsets(tree, program)
    chosen = next((subset for subset in places if not subset.own.get("is_reg")), None)
    if chosen is None:
        raise RecipeError(f"{program}: holds no subset that is not regularisation (is_reg), so nothing to learn from.")
    found = Dataset()
    for key in sorted(tree.keys() - {"general", "datasets"}):
        found.rows.append(Row(key, tree[key], "unknown", "", f"a dataset configuration has [general] and [[datasets]] alone.{did_you_mean(key, GENERAL)}"))
    for level in chosen.levels:
        _lay(found, level)
    others = [subset for subset in places if subset is not chosen]
    for subset in others:
        _leave(found, subset.levels[-1].prefix, subset.own)
    for d, each in enumerate(tree["datasets"]):
        if d != chosen.dataset:
            _leave(found, f"datasets[{d}].", {key: value for key, value in each.items() if key != "subsets"})
    mine = found.given.get("image_dir")
    folders = {str(subset.own.get("image_dir") or subset.own.get("metadata_file")) for subset in others if not subset.own.get("is_reg")} - {mine}
    if folders:
        found.todo.append(f"A recipe learns from one folder. Put the pictures of {', '.join(sorted(folders))} into it too, if they belong to the same subject.")
    return found


def _lay(found: Dataset, level: Level) -> None:
    for key, value in level.values.items():
        name, shown = CANONICAL.get(key, key), level.prefix + key
        if key not in level.known:
            found.rows.append(Row(shown, value, "unknown", "", f"sd-scripts knows no such key here, and refuses it.{did_you_mean(key, level.known)}"))
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
    found = [(path, class_folder(path.name)) for path in inner]
    return [Folder(path, *said) for path, said in found if said]
