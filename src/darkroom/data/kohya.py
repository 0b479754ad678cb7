"""The TOML of sd-scripts' --dataset_config: which pictures it learns from, how often, and what it calls them. Folders "10_TOK cat" are in captions.py.

Read from kohya-ss/sd-scripts, library/config_util.py and library/train_util.py (February 2026).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.data.captions import one_line
from darkroom.data.wording import Wording
from darkroom.errors import DatasetError, RecipeError, did_you_mean
from darkroom.spec import read_toml

GENERAL = [
    "batch_size", "bucket_no_upscale", "bucket_reso_steps", "enable_bucket", "max_bucket_reso", "min_bucket_reso", "validation_seed", "validation_split",
    "resolution", "network_multiplier", "resize_interpolation", "color_aug", "face_crop_aug_range", "flip_aug", "num_repeats", "random_crop",
    "shuffle_caption", "keep_tokens", "keep_tokens_separator", "secondary_separator", "caption_separator", "enable_wildcard", "token_warmup_min",
    "token_warmup_step", "caption_prefix", "caption_suffix", "custom_attributes", "caption_dropout_every_n_epochs", "caption_dropout_rate",
    "caption_tag_dropout_rate", "caption_extension", "class_tokens", "cache_info",
]  # fmt: skip
SUBSET = [*GENERAL[10:], "image_dir", "is_reg", "alpha_mask", "metadata_file", "conditioning_data_dir"]
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
WORDING = {
    "shuffle_caption": "shuffle", "keep_tokens": "keep_tags", "keep_tokens_separator": "keep_separator", "caption_separator": "separator",
    "caption_tag_dropout_rate": "tag_dropout", "caption_dropout_rate": "dropout", "caption_prefix": "prefix", "caption_suffix": "suffix",
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One table of the TOML that says something of a subset: how keys are shown, what they say, and which are known there."""

    prefix: str
    values: dict[str, Any]
    known: list[str]


@dataclass(frozen=True)
class Subset:
    """One [[datasets.subsets]] with the levels above it, the outermost first: the lowest that says a thing counts."""

    dataset: int
    number: int
    levels: tuple[Level, ...]

    @property
    def place(self) -> str:
        """As messages name it."""
        return f"datasets[{self.dataset}].subsets[{self.number}]"

    @property
    def own(self) -> dict[str, Any]:
        """What the subset's own table says."""
        return self.levels[-1].values

    @property
    def values(self) -> dict[str, Any]:
        """What counts."""
        return {key: value for level in self.levels for key, value in level.values.items()}


@dataclass
class Told:
    """What one subset says of pictures, by their paths: captions with the file that says them, repeats; and what a person should know."""

    folder: Path
    repeats: int
    captions: dict[Path, tuple[str, str]] = field(default_factory=dict)
    class_tokens: str = ""
    notes: list[str] = field(default_factory=list)


def subsets(tree: dict[str, Any], program: str) -> list[Subset]:
    """Every subset of a dataset configuration. Raises RecipeError where it is none."""
    general, datasets = tree.get("general", {}), tree.get("datasets")
    if not isinstance(general, dict) or not isinstance(datasets, list) or not datasets or not all(isinstance(each, dict) for each in datasets):
        raise RecipeError(f"{program}: is no dataset configuration: it needs [[datasets]] with [[datasets.subsets]], and may have [general].")
    found = []
    for d, dataset in enumerate(datasets):
        inner = dataset.get("subsets", [])
        if not isinstance(inner, list) or not all(isinstance(each, dict) for each in inner):
            raise RecipeError(f"{program}: datasets[{d}].subsets is no list of tables. Write [[datasets.subsets]].")
        above = {key: value for key, value in dataset.items() if key != "subsets"}
        for s, subset in enumerate(inner):
            levels = Level("general.", general, GENERAL), Level(f"datasets[{d}].", above, GENERAL), Level(f"datasets[{d}].subsets[{s}].", subset, SUBSET)
            found.append(Subset(d, s, levels))
    return found


def read_config(path: Path) -> list[Subset]:
    """The subsets of a TOML file, every key known. Raises RecipeError."""
    tree = read_toml(path)
    found = subsets(tree, path.name)
    strangers = [(key, GENERAL) for key in tree.keys() - {"general", "datasets"}]
    strangers += [(level.prefix + key, level.known) for subset in found for level in subset.levels for key in level.values if key not in level.known]
    if strangers:
        name, known = sorted(strangers)[0]
        raise RecipeError(f'{path}: there is no key "{name}", and sd-scripts would refuse it too.{did_you_mean(name.rpartition(".")[2], known)}')
    return found


def wording(values: dict[str, Any]) -> Wording:
    """What the values say of captions at training time. Raises RecipeError."""
    return Wording.from_tree({ours: values[theirs] for theirs, ours in WORDING.items() if values.get(theirs) not in (None, "")}, "the dataset configuration")


def not_carried(values: dict[str, Any]) -> list[str]:
    """Keys about captions that have no equal here."""
    keys = ("secondary_separator", "enable_wildcard", "token_warmup_min", "token_warmup_step", "caption_dropout_every_n_epochs")
    return [key for key in keys if values.get(key)]


def read_subset(subset: Subset, beside: Path, within: Path | None = None) -> Told:
    """The pictures of a subset and what it says of them. Raises DatasetError.

    A folder is sought from here, as sd-scripts does, and from `beside`, the place of the TOML; of two that are there, the one below `within` is meant.
    """
    values, where = subset.values, subset.place
    repeats = values.get("num_repeats", 1)
    if not isinstance(repeats, int) or repeats < 1:
        raise DatasetError(f"{where}: num_repeats = {repeats!r}: must be a whole number of at least 1; sd-scripts leaves such a subset out.")
    if values.get("metadata_file"):
        return _of_metadata(subset, beside, within, repeats)
    folder = _folder(str(values.get("image_dir") or ""), beside, within, where)
    told = Told(folder, repeats, class_tokens=one_line(str(values.get("class_tokens") or "")))
    ending, passed_over = str(values.get("caption_extension") or ".caption"), 0
    for picture in _pictures(folder):
        sidecar = picture.with_suffix(ending)
        if sidecar.is_file():
            told.captions[picture] = (one_line(sidecar.read_text(encoding="utf-8-sig", errors="replace")), sidecar.name)
        elif ending == ".caption" and picture.with_suffix(".txt").is_file():
            passed_over += 1
        else:
            told.captions[picture] = (told.class_tokens, "class_tokens")
    if passed_over:
        told.notes.append(
            f'{where}: {passed_over} pictures have a NAME.txt, which sd-scripts ignores there (caption_extension is ".caption"). It is read here.'
        )
    return told


def _folder(named: str, beside: Path, within: Path | None, where: str) -> Path:
    there = [folder.resolve() for folder in (Path(named), beside / named) if named and folder.is_dir()]
    if there:
        return next((folder for folder in there if within and folder.is_relative_to(within.resolve())), there[0])
    raise DatasetError(f"{where}: image_dir = {named!r}: there is no such folder, neither from here nor from {beside}. Correct it in the TOML.")


def _pictures(folder: Path) -> Iterator[Path]:
    """sd-scripts reads no subfolders."""
    yield from sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def _of_metadata(subset: Subset, beside: Path, within: Path | None, repeats: int) -> Told:
    """A fine-tuning subset: {"picture": {"caption": ..., "tags": ...}}, or a line {"image_path": ..., "caption": ...} each. Tags come behind the caption."""
    values, where = subset.values, subset.place
    path = next((place for place in (Path(values["metadata_file"]), beside / values["metadata_file"]) if place.is_file()), None)
    if path is None:
        raise DatasetError(f"{where}: metadata_file = {values['metadata_file']!r}: there is no such file. Correct it in the TOML.")
    folder = _folder(str(values.get("image_dir") or path.parent), beside, within, where)
    known = {key: file for file in _pictures(folder) for key in (file.name, file.stem)}
    told = Told(folder, repeats)
    between = f"{str(values.get('caption_separator') or ',').strip()} "
    lost = []
    for name, row in _entries(path):
        picture = known.get(Path(name).name)
        if picture is None:
            lost.append(name)
            continue
        text = between.join(str(row[key]).strip() for key in ("caption", "tags") if row.get(key))
        told.captions[picture] = (one_line(text), path.name)
    if lost:
        told.notes.append(f"{path}: captions {len(lost)} pictures that are not in {folder}, the first {lost[0]}.")
    return told


def _entries(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return [(str(row["image_path"]), row) for row in rows]
        return [(str(name), row) for name, row in json.loads(text).items() if isinstance(row, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DatasetError(f"{path}: is no metadata of sd-scripts ({error}). It needs {{picture: {{caption: ...}}}}.") from None
