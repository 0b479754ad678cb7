"""What will happen, before it happens: captions as the model sees them, buckets, real batch sizes, steps, memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darkroom.data.batch import Order
from darkroom.data.buckets import Fit, fit, fit_down, ladder
from darkroom.data.crops import cropped
from darkroom.data.dataset import Photo, samples
from darkroom.data.wording import count_mix, framed, has_word, shares
from darkroom.errors import DatasetError, RecipeError
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.reader import Tokens
from darkroom.sdxl.schedule import Schedule
from darkroom.sdxl.text import count_tokens
from darkroom.train.forecast import Forecast, forecast
from darkroom.train.newword import check_word, tokens_of, word_remarks
from darkroom.train.recipe import Recipe
from darkroom.train.shortage import Room, available, shortage

LIMIT = 75  # tokens of a caption that SDXL reads


@dataclass(frozen=True)
class Plan:
    """A training that can work: its pictures (as often as an epoch shows each), how each is cut, in which order they come, and for how many steps."""

    photos: list[Photo]
    fits: list[Fit]
    order: Order
    steps: int
    save_every: int
    preview_every: int
    validate_every: int
    held_out: list[Photo]
    held_fits: list[Fit]
    facts: dict[str, Any]
    classes: Sequence[Photo] = ()
    """Pictures of the class, for prior preservation."""
    dataset: str = ""
    """The name of the dataset (`Manifest.hash`); "" of a plain folder."""
    forecast: Forecast | None = None
    """Of memory: what the run is measured against."""


def plan(
    recipe: Recipe, photos: list[Photo], model: SDXL, held_out: Sequence[Photo] = (), dataset: str = "", classes: Sequence[Photo] = (), processes: int = 1,
    room: Room | None = None,
) -> Plan:  # fmt: skip
    """Check everything that can be checked without training, in so many processes with this room for each. Raises DatasetError or RecipeError."""
    tokens = tokens_of(recipe, model)
    _check_trigger(recipe, photos)
    check_word(recipe, [text for photo in photos for text, _ in _texts(recipe, photo)], tokens)
    _check_leak(photos, held_out)
    photos, pictures = samples(photos), photos
    held_out = samples(held_out)
    resolution = recipe.data.resolution or model.resolution
    step = recipe.data.bucket_step or (64 if resolution >= 256 else max(model.grain, resolution // 4))
    for name, value in (("resolution", resolution), ("bucket_step", step)):
        if value % model.grain:
            raise RecipeError(f"data.{name} = {value}: must be a multiple of {model.grain} pixels for {model.source}.")
    if step > resolution:
        raise RecipeError(f"data.bucket_step = {step}: must not be larger than the resolution, {resolution}.")
    rungs = ladder(resolution, step)
    fits, held_fits = ([_fit(photo, rungs, recipe) for photo in group] for group in (photos, held_out))
    _check_size([*photos, *held_out], [*fits, *held_fits], recipe)
    order = Order([f.bucket for f in fits], recipe.data.batch_size, recipe.train.seed)
    per_epoch = order.batches_per_epoch / recipe.train.accumulate
    steps = recipe.train.length.steps(per_epoch)
    own = Schedule.from_config(model.scheduler_config)
    recipe.objective.check(own)
    if steps < 1:
        raise RecipeError(f'train.length = "{recipe.train.length}": is no training at all. Give at least "1 steps".')
    foreseen = forecast(recipe, model, max((f.bucket for f in fits), key=lambda b: b[0] * b[1]), processes)
    room = room or Room(available(model.device))
    short = shortage(recipe, foreseen, room.size, room.where)
    facts = {
        "pictures": len(pictures),
        "samples": len(photos),
        "held_out": len(held_out),
        "captions": _captions(recipe, pictures, tokens),
        **({"prior": _prior(recipe, len(classes), model)} if recipe.data.prior.prompt else {}),
        "buckets": _buckets(fits, order),
        "upscaled": sum(f.enlarges(p.width, p.height) for f, p in zip(fits, photos, strict=True)),
        "smaller_bucket": sum(f.bucket != fit(p.width, p.height, rungs[0]).bucket for f, p in zip(fits, photos, strict=True)),
        "masked": sum(photo.mask is not None for photo in pictures),
        "batch_size": recipe.data.batch_size,
        "accumulate": recipe.train.accumulate,
        "remarks": [
            *recipe.objective.remarks(own),
            *recipe.optimizer.remarks(steps),
            *word_remarks(recipe, [photo.caption for photo in held_out], model),
            *([short] if short else []),
        ],
        "steps": steps,
        "epochs": round(steps / per_epoch, 2),
        "memory_mib": foreseen.mib,
    }
    saves, previews, checks = (max(1, d.steps(per_epoch)) for d in (recipe.train.save_every, recipe.preview.every, recipe.validation.every))
    return Plan(photos, fits, order, steps, saves, previews, checks, held_out, held_fits, facts, classes, dataset, foreseen)


def _fit(photo: Photo, rungs: list[list[tuple[int, int]]], recipe: Recipe) -> Fit:
    """The bucket of a picture and its crop, about its centre or its subject."""
    found = fit_down(photo.width, photo.height, rungs, math.inf if recipe.data.enlarge else 1.0)
    return cropped(found, "subject", photo.focus, 0, 0, "") if recipe.data.crop == "subject" else found


def _check_size(photos: Sequence[Photo], fits: Sequence[Fit], recipe: Recipe) -> None:
    small = [(photo, found.bucket) for photo, found in zip(photos, fits, strict=True) if found.enlarges(photo.width, photo.height)]
    if small and not recipe.data.enlarge:
        (first, bucket), more = small[0], f" (and {len(small) - 1} more)" if len(small) > 1 else ""
        raise DatasetError(
            f"{first.path}{more}: {first.width} x {first.height} pixels are fewer than the smallest bucket, {bucket[0]} x {bucket[1]}. Take such pictures out "
            f"(`darkroom screen` finds them), train at a smaller data.resolution, or enlarge them with --set data.enlarge=true."
        )


def _check_trigger(recipe: Recipe, photos: list[Photo]) -> None:
    if not recipe.trigger:
        raise RecipeError('data.subject is empty: say what the pictures show, trigger word first, as in --subject "TOK cat".')
    without = [(photo, text) for photo in photos for text, _ in _texts(recipe, photo) if not has_word(text.lower(), recipe.trigger.lower())]
    if without:
        photo, text = without[0]
        others = len({found.path for found, _ in without}) - 1
        raise DatasetError(
            f'{photo.path}{f" (and {others} more)" if others else ""}: the caption from {photo.caption_source} says "{text}", without the trigger word '
            f'"{recipe.trigger}", which would then never be learned. Put the word in, with --set data.wording.prefix="{recipe.trigger}" before every caption, '
            "or choose another with --subject."
        )


def _texts(recipe: Recipe, photo: Photo) -> list[tuple[str, float]]:
    """The captions that a picture is shown with and how often, tags in their own order."""
    wording = recipe.data.wording
    return [(framed(text, wording.prefix, wording.suffix), share) for text, share in shares(photo.captions, photo.caption, wording)]


def _check_leak(photos: Sequence[Photo], held_out: Sequence[Photo]) -> None:
    known = {photo.sha256: photo.path for photo in photos}
    leaked = [f"{photo.path} is {known[photo.sha256]}" for photo in held_out if photo.sha256 in known]
    if leaked:
        more = f" (and {len(leaked) - 1} more)" if len(leaked) > 1 else ""
        raise DatasetError(f"{leaked[0]}{more}: a picture that is learned from cannot be held out. Take it out of one of the folders.")


def _captions(recipe: Recipe, photos: list[Photo], tokens: Tokens) -> list[dict[str, Any]]:
    count_mix(recipe.data.wording, [photo.captions for photo in photos])
    told = [(photo, text, share) for photo in photos for text, share in _texts(recipe, photo)]
    counts: dict[str, int] = {text: sum(map(len, tokens.units(text))) for text in {text for _, text, _ in told}}
    rows: list[dict[str, Any]] = [{"file": p.path.name, "caption": text, "from": p.caption_source, "tokens": counts[text]} for p, text, _ in told]
    return [row | {"cut": row["tokens"] > LIMIT} | ({"share": share} if share < 1 else {}) for row, (_, _, share) in zip(rows, told, strict=True)]


def _prior(recipe: Recipe, count: int, model: SDXL) -> dict[str, Any]:
    prior = recipe.data.prior
    return {"prompt": prior.prompt, "tokens": count_tokens(model, prior.prompt), "pictures": count, "wanted": prior.count, "weight": prior.weight}


def _buckets(fits: list[Fit], order: Order) -> list[dict[str, Any]]:
    sizes: dict[tuple[int, int], list[int]] = {}
    for batch in order.epoch(0):
        sizes.setdefault(order.buckets[batch[0]], []).append(len(batch))
    rows = []
    for bucket, count in sorted(Counter(f.bucket for f in fits).items()):
        lost = sum(f.lost for f in fits if f.bucket == bucket) / count
        batches = sorted(sizes[bucket], reverse=True)
        rows.append({"width": bucket[0], "height": bucket[1], "pictures": count, "batches": batches, "cut_away": round(lost, 3)})
    return rows
