"""The loss of every checkpoint of a run, picture by picture: on held-out pictures and on those that it learned from, with the noise of `train/validation`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.data.dataset import Photo
from darkroom.data.member import as_file
from darkroom.errors import DatasetError, RunError
from darkroom.files import sha256_bytes, told, write_json
from darkroom.jobs.train import prepare
from darkroom.jobs.watch import Watcher
from darkroom.train.recipe import Prior, Recipe
from darkroom.train.run import Checkpoint, Run

if TYPE_CHECKING:
    from darkroom.train.loop import Trainer
    from darkroom.train.preflight import Plan

MOST_LEARNED = 16  # pictures learned from whose loss is measured too, spread over the set


@dataclass(frozen=True)
class Held:
    """Losses by step, 0 the base: one number a picture, in the order of the files."""

    held_out: tuple[Path, ...]
    training: tuple[Path, ...]
    """All that it learned from."""
    losses: dict[int, list[float]]
    """Of the held-out pictures."""
    learned_losses: dict[int, list[float]]
    """Of up to MOST_LEARNED of the pictures learned from."""


def held_losses(run: Run, checkpoints: Sequence[Checkpoint], held_out: str, cache: Path, device: str, watcher: Watcher) -> Held:
    """Measure what `cache` (a JSON file) does not hold yet; each checkpoint is kept there as soon as it is measured.

    `held_out` is a folder, or "" for what the run itself holds out. Raises RunError where pictures or base changed since, DatasetError where none are held out.
    """
    from darkroom.train.loop import Trainer

    recipe = _measuring(run.recipe, held_out, device)
    model, plan = prepare(recipe, watcher)
    _unchanged(run, plan, model.hash)
    attached = recipe.learner.attach(model, recipe.train.seed)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        groups = (_chosen(plan, plan.held_out, plan.held_fits, len(plan.held_out)), _chosen(plan, plan.photos, plan.fits, MOST_LEARNED))
        about = [recipe.to_toml(), model.hash, *(photo.sha256 for group in groups for photo, _ in group)]
        known = _Cache(cache, sha256_bytes(told(json.dumps(about)).encode()))
        for done, checkpoint in enumerate([None, *checkpoints], 1):
            step, key = (checkpoint.step, checkpoint.digest) if checkpoint else (0, "base")
            if known.get(step, key) is None:
                if checkpoint:
                    trainer.load_state(*checkpoint.load())
                attached.prepare(None)
                known.put(step, key, [_losses(trainer, group) for group in groups])
            watcher.move("losses", done, len(checkpoints) + 1)
    finally:
        attached.detach()
    losses, learned = ({step: row[which] for step, row in known.losses.items()} for which in (0, 1))
    return Held(_paths(plan.held_out), _paths(plan.photos), losses, learned)


def _measuring(recipe: Recipe, held_out: str, device: str) -> Recipe:
    """The recipe with these held-out pictures on this device, without the class's, which are not asked for, and with frozen weights whole and in place."""
    validation = recipe.validation.model_copy(update={"pictures": held_out or recipe.validation.pictures})
    data = recipe.data.model_copy(update={"prior": Prior()})
    train = recipe.train.model_copy(update={"quantise": "no", "swap_blocks": 0})
    return recipe.model_copy(update={"validation": validation, "data": data, "train": train, "device": recipe.device if device == "auto" else device})


def _unchanged(run: Run, plan: Plan, base: str) -> None:
    then = run.facts
    if then["base_sha256"] != base:
        raise RunError(f"{run.folder}: the base model changed since the run, so that its checkpoints mean something else now. Put the old one back.")
    if {row["sha256"] for row in then["pictures"]} != {photo.sha256 for photo in plan.photos}:
        raise RunError(f"{run.folder}: the pictures it learned from changed since the run, so that it cannot be told what is a copy. Put them back.")
    if not plan.held_out:
        raise DatasetError(
            f"{run.folder}: no pictures are held out, so that nothing can tell learning from learning by heart. Name a folder of other pictures of the subject "
            "with --held-out, or let the dataset hold some out before training (`darkroom dataset prepare --held-out`)."
        )


def _paths(photos: Sequence[Photo]) -> tuple[Path, ...]:
    return tuple(as_file(place) for place in dict.fromkeys(photo.path for photo in photos))


def _chosen(plan: Plan, photos: Sequence[Photo], fits: Sequence[Any], most: int) -> list[tuple[Photo, Any]]:
    """Each picture once, however often an epoch shows it; at most so many of them, evenly spread."""
    once = list({photo.sha256: (photo, fit) for photo, fit in zip(photos, fits, strict=True)}.values())
    return [once[number * len(once) // min(most, len(once))] for number in range(min(most, len(once)))]


def _losses(trainer: Trainer, group: Sequence[tuple[Photo, Any]]) -> list[float]:
    """The held-out loss of each picture as if it were the only one held out: the same code, noise and timesteps as while training."""
    from darkroom.train.optimizers.state import settled
    from darkroom.train.validation import held_out_loss

    whole, found = trainer.plan, []
    try:
        with settled(trainer.optimizer):
            for photo, fit in group:
                trainer.plan = replace(whole, held_out=[photo], held_fits=[fit])
                found.append(held_out_loss(trainer))
    finally:
        trainer.plan = whole
    return found


class _Cache:
    """Losses by step, as long as recipe, pictures and checkpoint are the same."""

    def __init__(self, path: Path, about: str) -> None:
        self.path, self.rows, self.losses = path, dict[str, Any](), dict[int, list[list[float]]]()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.rows = found["steps"] if found["about"] == about else {}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.about = about

    def get(self, step: int, key: str) -> list[list[float]] | None:
        row = self.rows.get(str(step))
        if row and row["key"] == key:
            self.losses[step] = row["losses"]
            return self.losses[step]
        return None

    def put(self, step: int, key: str, losses: list[list[float]]) -> None:
        self.losses[step] = losses
        self.rows[str(step)] = {"key": key, "losses": losses}
        write_json(self.path, {"about": self.about, "steps": self.rows})
