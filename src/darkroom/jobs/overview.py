"""`darkroom dataset show`: what a dataset is and what a training would make of it, as figures. No picture is decoded, so that 100,000 rows take seconds."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from darkroom import pocket
from darkroom.data.adopt import Changes, adopt, passed_over
from darkroom.data.archives import holds_shards
from darkroom.data.batch import Order
from darkroom.data.buckets import Fit, fit, fit_down, ladder
from darkroom.data.crops import Crop, placed
from darkroom.data.dataset import rows_of
from darkroom.data.manifest import ORIGINAL, Manifest, Row
from darkroom.data.split import clusters
from darkroom.data.streamed import NAMED as FAULTS
from darkroom.data.streamed import Streamed, read_streamed
from darkroom.errors import ModelError, RecipeError
from darkroom.jobs.tokens import CHUNK, count_tokens
from darkroom.jobs.watch import Silent, Watcher

NAMED = 20  # files named of each kind; the figures count all
TAGS = 100
SIDES = (256, 512, 768, 1024, 1536, 2048)  # pixels of the shorter side, where one class ends and the next begins
Facts = dict[str, Any]


@dataclass(frozen=True)
class View:
    """How a training would cut the pictures. 0: the base's own; `base` "" is SDXL 1.0."""

    base: str = ""
    resolution: int = 0
    bucket_step: int = 0
    batch_size: int = 4
    crop: Crop = "centre"
    enlarge: bool = False


@dataclass(frozen=True)
class Overview:
    """The dataset, how each kept picture with a size is cut (by file), and all figures about it."""

    dataset: Manifest | Streamed
    fits: Mapping[str, Fit]
    facts: Facts

    @property
    def manifest(self) -> Manifest:
        """Its rows."""
        return rows_of(self.dataset)


def overview(folder: str | Path, view: View, watcher: Watcher | None = None) -> Overview:
    """Everything about a dataset, or the shards in a folder or at an address, as it is now; nothing is written. Raises Dataset-, Model-, RecipeError."""
    watcher = watcher or Silent()
    _grid(view)
    return overview_of(*_read(folder, watcher), view, str(folder))


def overview_of(dataset: Manifest | Streamed, changes: Changes, view: View, name: str) -> Overview:
    """The same of what was read already. Raises ModelError or RecipeError."""
    resolution, step = _grid(view)
    manifest = rows_of(dataset)
    fits, smaller = cut(manifest.kept, resolution, step, view)
    facts = {
        "dataset": name,
        "hash": manifest.hash,
        "changes": {name: len(files) for name, files in vars(changes).items() if name != "outside"},
        **({"outside": passed_over(manifest.folder, changes.outside)} if changes.outside else {}),
        "counts": _counts(manifest.rows),
        "rejected_for": _reasons(manifest.rows),
        "sizes": _sizes(manifest.kept),
        "formats": dict(Counter(row.format or "unreadable" for row in manifest.rows).most_common()),
        "captions": _captions(manifest.kept, view.base),
        "tags": _tags(manifest.kept),
        "copies": _copies(manifest.rows),
        "training": _training(manifest.kept, fits, view) | {"smaller_bucket": smaller, "resolution": resolution, "bucket_step": step, "crop": view.crop},
        "notes": dict(manifest.notes),
        **({"shards": _shards(dataset)} if isinstance(dataset, Streamed) else {}),
    }
    return Overview(dataset, fits, facts)


def _read(source: str | Path, watcher: Watcher) -> tuple[Manifest | Streamed, Changes]:
    if holds_shards(source):
        return read_streamed(source, lambda done, total: watcher.move("looking into shards", done, total)), Changes()
    return adopt(Path(source), lambda done, total: watcher.move("reading", done, total))


def _shards(found: Streamed) -> Facts:
    """What only shards have: how many they are, what in them is no picture, and which pictures a training would refuse."""
    archives = {member.archive.address for member in found.pictures.values()}
    return {"shards": len(archives), "without_picture": found.without, "broken": len(found.faults), "faults": list(found.faults.values())[:FAULTS]}


def _grid(view: View) -> tuple[int, int]:
    """Resolution and step in pixels, by the rules of the preflight. Raises RecipeError."""
    own, grain = _base_numbers(view.base)
    resolution = view.resolution or own
    step = view.bucket_step or (64 if resolution >= 256 else max(grain, resolution // 4))
    for name, value in (("--resolution", resolution), ("--bucket-step", step)):
        if value <= 0 or value % grain:
            raise RecipeError(f"{name} {value}: must be a multiple of {grain} pixels.")
    if step > resolution:
        raise RecipeError(f"--bucket-step {step}: must not be larger than the resolution, {resolution}.")
    if view.batch_size < 1:
        raise RecipeError(f"--batch-size {view.batch_size}: must be at least 1.")
    return resolution, step


def _base_numbers(base: str) -> tuple[int, int]:
    """Resolution and grain in pixels: those of a folder's own configuration, else SDXL 1.0's. Raises ModelError where there is no such thing."""
    folder = Path(pocket.resolve(base))
    if not base or folder.suffix == ".safetensors" or (base.count("/") == 1 and not folder.exists()):
        return 1024, 32  # a hub id or a single file is of SDXL's own sizes
    try:
        unet, vae = (json.loads((folder / part / "config.json").read_text(encoding="utf-8")) for part in ("unet", "vae"))
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return int(unet["sample_size"]) * factor, factor * 2 ** (len(unet["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{base}: is no SDXL folder ({error}). Give pocket, or a diffusers folder; without --base SDXL 1.0 is meant.") from None


def fits_of(rows: Iterable[Row], view: View) -> dict[str, Fit]:
    """How each row with a size is cut, by its file. Raises ModelError or RecipeError."""
    return cut(rows, *_grid(view), view)[0]


def cut(rows: Iterable[Row], resolution: int, step: int, view: View) -> tuple[dict[str, Fit], int]:
    """How each row with a size is cut, by its file; and how many were too small for the bucket of their aspect, and went to a smaller one."""
    rungs = ladder(resolution, step)
    known = lru_cache(maxsize=None)(lambda width, height: (fit(width, height, rungs[0]), fit_down(width, height, rungs, math.inf if view.enlarge else 1.0)))
    found, smaller = {}, 0
    for row in rows:
        if row.width and row.height:
            whole, down = known(row.width, row.height)
            smaller += whole != down and row.split != "held_out"
            found[row.file] = placed(down, row.focus) if view.crop == "subject" and row.focus else down
    return found, smaller


def _counts(rows: Sequence[Row]) -> Facts:
    kept = [row for row in rows if row.kept]
    return {
        "pictures": len(rows),
        "kept": len(kept),
        "rejected": len(rows) - len(kept),
        "train": sum(row.split != "held_out" for row in kept),
        "held_out": sum(row.split == "held_out" for row in kept),
        "not_screened": sum(not row.verdict for row in rows),
        "overruled": sum(bool(row.overruled) and row.overruled != (row.verdict or "keep") for row in rows),
        "unreadable": sum(not row.width for row in rows),
        "masks": sum(bool(row.mask) for row in kept),
        "focus": sum(row.focus is not None for row in kept),
        "repeated": sum(row.repeats > 1 for row in kept),
        "bytes": sum(row.size for row in kept),
    }


def _reasons(rows: Iterable[Row]) -> dict[str, int]:
    """Rejected pictures by kind of reason: its words up to a colon, with the figures taken out. One picture can have several."""
    found = Counter(kind for row in rows if not row.kept for kind in {_kind(reason) for reason in row.reasons} or {"by hand"})
    return dict(found.most_common())


def _kind(reason: str) -> str:
    head = reason.partition(":")[0] if ":" in reason else reason
    return " ".join(re.sub(r"\d[\d.,]*", "#", head).split())


def _sizes(rows: Iterable[Row]) -> Facts:
    sized = [row for row in rows if row.width and row.height]
    shorter = Counter(sum(min(row.width, row.height) >= side for side in SIDES) for row in sized)
    names = [f"below {SIDES[0]}", *(f"{low} to {high - 1}" for low, high in pairwise(SIDES)), f"{SIDES[-1]} and more"]
    return {
        "width": spread([row.width for row in sized]),
        "height": spread([row.height for row in sized]),
        "megapixels": spread([row.width * row.height / 1e6 for row in sized]),
        "aspect": spread([row.width / row.height for row in sized]),
        "shorter_side": {name: shorter[index] for index, name in enumerate(names)},
    }


def spread(values: Sequence[float]) -> Facts | None:
    """Smallest, median, mean and largest; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return {"least": ordered[0], "median": middle, "mean": sum(ordered) / len(ordered), "most": ordered[-1]}


def _captions(rows: Sequence[Row], base: str) -> Facts:
    tokens = count_tokens((row.caption for row in rows if row.caption), base)
    lengths = [tokens[row.caption] for row in rows if row.caption]
    longest = sorted((row for row in rows if row.caption), key=lambda row: -tokens[row.caption])[:NAMED]
    return {
        "from": dict(Counter(_source(row) for row in rows).most_common()),
        "there": dict(Counter(by for row in rows for by in row.captions).most_common()),
        "without": sum(not row.caption for row in rows),
        "different": len(tokens),
        "tokens": spread(lengths),
        "over": sum(length > CHUNK for length in lengths),
        "limit": CHUNK,
        "by_length": dict(sorted(Counter(lengths).items())),
        "longest": [{"file": row.file, "tokens": tokens[row.caption], "caption": row.caption} for row in longest if tokens[row.caption] > CHUNK],
    }


def _source(row: Row) -> str:
    """Who wrote the caption that is learned from, or which kind of file said it."""
    by = row.chosen or ORIGINAL
    if not row.caption:
        return "none (the recipe's template)"
    if by != ORIGINAL or not row.beside:
        return by if by != ORIGINAL else "its table"
    return "the folder's name" if row.beside.endswith("/") else f"*.{row.beside.rpartition('.')[2]}"


def _tags(rows: Iterable[Row]) -> Facts:
    """How many captions hold each part between commas."""
    found = Counter(tag for row in rows for tag in {part.strip() for part in row.caption.split(",")} if tag)
    listed = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {"different": len(found), "once": sum(count == 1 for count in found.values()), "most": dict(listed[:TAGS])}


def _copies(rows: Sequence[Row]) -> Facts:
    groups = sorted((group for group in clusters(rows) if len(group) > 1), key=lambda group: (-len(group), group[0].file))
    listed = [[{"file": row.file, "kept": row.kept, "split": row.split} for row in group[:NAMED]] for group in groups[:NAMED]]
    equal = Counter(row.sha256 for row in rows if row.sha256)
    return {
        "clusters": len(groups),
        "pictures": sum(map(len, groups)),
        "byte_equal": sum(count - 1 for count in equal.values()),
        "kept_more_than_once": sum(sum(row.kept for row in group) > 1 for group in groups),
        "leaking": sum(len({row.split or "train" for row in group if row.kept}) > 1 for group in groups),
        "largest": listed,
    }


def _training(rows: Sequence[Row], fits: Mapping[str, Fit], view: View) -> Facts:
    """Buckets with the batches that an epoch really has, what the crops take, and what is too small."""
    learned = [row for row in rows if row.file in fits and row.split != "held_out"]
    shown = [row for row in learned for _ in range(row.repeats)]
    order = Order([fits[row.file].bucket for row in shown], view.batch_size, 0)
    small = [row for row in learned if fits[row.file].enlarges(row.width, row.height)]
    worst = sorted(learned, key=lambda row: (-fits[row.file].lost, row.file))[:NAMED]
    return {
        "pictures": len(learned),
        "samples": len(shown),
        "batch_size": view.batch_size,
        "batches": order.batches_per_epoch,
        "small_batches": sum(len(batch) < view.batch_size for batch in order.epoch(0)),
        "buckets": list(_buckets(learned, fits, order)),
        "lost": spread([fits[row.file].lost for row in learned]),
        "pixels_lost": round(sum(fits[row.file].lost * row.width * row.height for row in learned)),
        "most_lost": [{"file": row.file, "lost": round(fits[row.file].lost, 4)} for row in worst if fits[row.file].lost > 0],
        "enlarge": view.enlarge,
        "enlarged": len(small) if view.enlarge else 0,
        "too_small": 0 if view.enlarge else len(small),
        "small_files": [row.file for row in small[:NAMED]],
    }


def _buckets(rows: Sequence[Row], fits: Mapping[str, Fit], order: Order) -> Iterator[Facts]:
    batches: dict[tuple[int, int], Counter[int]] = {}
    for batch in order.epoch(0):
        batches.setdefault(order.buckets[batch[0]], Counter())[len(batch)] += 1
    members: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        members.setdefault(fits[row.file].bucket, []).append(fits[row.file].lost)
    for (width, height), lost in sorted(members.items()):
        sizes = dict(sorted(batches[width, height].items(), reverse=True))
        yield {"width": width, "height": height, "pictures": len(lost), "batches": sizes, "lost": sum(lost) / len(lost), "most_lost": max(lost)}
