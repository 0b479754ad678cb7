"""`--from CONFIG.toml`: what a dataset configuration of sd-scripts says of pictures, into the manifest that lies beside them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.data.captions import class_folders
from darkroom.data.kohya import Subset, Told, not_carried, read_config, read_subset, wording
from darkroom.data.manifest import ORIGINAL, Manifest, Row
from darkroom.data.wording import Wording
from darkroom.errors import DatasetError
from darkroom.jobs.adopted import adopted
from darkroom.jobs.watch import Silent, Watcher

NOTE = "config"


@dataclass
class Said:
    """What the subsets together say of one picture."""

    repeats: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    """Captions by where they stand; those of class tokens last, for pictures that nothing else calls."""


def caption_from_config(folder: Path, config: Path, watcher: Watcher | None = None, write: bool = True) -> tuple[Manifest, dict[str, Any]]:
    """Repeats and captions of the pictures as sd-scripts would read them; the wording at training time as lines for a recipe.

    Regularisation subsets are left out. Raises RecipeError for a key that sd-scripts would refuse, DatasetError where two sources of a caption disagree, or
    where a subset lies outside the dataset.
    """
    watcher = watcher or Silent()
    subsets = read_config(config)
    manifest, _ = adopted(folder, watcher)
    learned = [(subset, read_subset(subset, config.parent, folder)) for subset in subsets if not subset.own.get("is_reg")]
    if not learned:
        raise DatasetError(f"{config}: holds no subset that is not regularisation (is_reg), so nothing to learn from.")
    said = _said(manifest, learned)
    rows = _rows(manifest, said, config)
    changed = sum(after != before for before, after in zip(manifest.rows, rows, strict=True))
    manifest = manifest.but(rows, **{NOTE: {"file": config.name, "subsets": len(learned)}})
    return manifest.save() if write else manifest, {
        "file": str(config), "changed": changed, "written": write,
        "subsets": [_told(subset, told) for subset, told in learned], "notes": list(_notes(manifest, subsets, learned, said)),
    } | _wording(learned)  # fmt: skip


def _said(manifest: Manifest, learned: Iterable[tuple[Subset, Told]]) -> dict[str, Said]:
    """By the picture's name below the dataset's folder."""
    root, found = manifest.folder.resolve(), dict[str, Said]()
    for subset, told in learned:
        if not told.folder.is_relative_to(root):
            raise DatasetError(
                f"{subset.place}: {told.folder} lies outside {root}. Name a folder that holds all of them, or gather them first: "
                f"`darkroom collect {told.folder} --to {manifest.folder}`."
            )
        below = told.folder.relative_to(root).as_posix()
        for row in manifest.rows:
            parent, _, name = row.file.rpartition("/")
            path = told.folder / name
            if parent != ("" if below == "." else below) or (subset.values.get("metadata_file") and path not in told.captions):
                continue
            each = found.setdefault(row.file, Said())
            each.repeats += told.repeats
            text, source = told.captions.get(path, ("", ""))
            if text:
                each.texts[f"{subset.place} ({source})"] = text
    return found


def _rows(manifest: Manifest, said: dict[str, Said], config: Path) -> list[Row]:
    """Raises DatasetError with all that disagree."""
    tops, imported = class_folders(row.file for row in manifest.rows), NOTE in manifest.notes
    rows, problems = [], []
    for row in manifest.rows:
        each = said.get(row.file)
        if each is None:
            rows.append(row)
            continue
        top = row.file.partition("/")[0]
        if top in tops and tops[top][0] != each.repeats:
            problems.append(f"{row.file}: its folder says {tops[top][0]} repeats and {config.name} {each.repeats}. Rename the folder, or correct num_repeats.")
        text = _one_text(row, each, imported, problems)
        captions = {ORIGINAL: text} | {by: told for by, told in row.captions.items() if by != ORIGINAL} if text else row.captions
        rows.append(dataclasses.replace(row, repeats=each.repeats, captions=captions))
    if problems:
        raise DatasetError("\n".join(problems[:20]) + (f"\n... and {len(problems) - 20} more" if len(problems) > 20 else ""))
    return rows


def _one_text(row: Row, each: Said, imported: bool, problems: list[str]) -> str:
    """What the picture is called: by its own file, else by the configuration. An earlier import is replaced; anything else that disagrees is a problem."""
    own = row.captions.get(ORIGINAL, "")
    of_files = {where: text for where, text in each.texts.items() if not where.endswith("(class_tokens)")}
    told = of_files or (each.texts if not own or (imported and not row.beside) else {})
    if own and not (imported and not row.beside) and not row.beside.endswith("/"):
        told = {(row.beside or "the manifest"): own} | told
    if len(set(told.values())) > 1:
        problems.append(f"{row.file}: captions that disagree: " + "; ".join(f'{where} says "{text}"' for where, text in told.items()) + ". Keep one of them.")
    return next(iter(told.values()), own)


def _told(subset: Subset, told: Told) -> dict[str, Any]:
    counts = Counter(source == "class_tokens" for text, source in told.captions.values() if text)
    return {
        "place": subset.place, "folder": str(told.folder), "repeats": told.repeats, "class_tokens": told.class_tokens,
        "captions": counts[False], "by_class": counts[True],
    }  # fmt: skip


def _notes(manifest: Manifest, subsets: list[Subset], learned: list[tuple[Subset, Told]], said: dict[str, Said]) -> Iterable[str]:
    """What a person should know."""
    for _, told in learned:
        yield from told.notes
    for subset in subsets:
        if subset.own.get("is_reg"):
            yield f"{subset.place}: regularisation pictures (is_reg) are left out. A prior has a folder of its own."
    if rest := [row.file for row in manifest.rows if row.file not in said]:
        yield f"{len(rest)} pictures of the dataset are in no subset, the first {rest[0]}: sd-scripts would not learn from them. They are left as they are."
    if keys := sorted({key for subset, _ in learned for key in not_carried(subset.values)}):
        yield f"Without an equal here: {', '.join(keys)}."


def _wording(learned: list[tuple[Subset, Told]]) -> dict[str, Any]:
    """The subsets' wording at training time: one, or each its own, which one recipe cannot say."""
    found = {subset.place: wording(subset.values) for subset, _ in learned}
    different = {one.model_dump_json() for one in found.values()}
    if len(different) > 1:
        return {"wording": None, "wordings": {place: _plain(one) for place, one in found.items()}}
    return {"wording": _plain(next(iter(found.values())))}


def _plain(one: Wording) -> dict[str, Any]:
    """What is other than the default."""
    return one.model_dump(exclude_defaults=True)
