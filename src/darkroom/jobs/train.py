"""Pictures and a recipe to a run folder with an adapter in it; and the same again from where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.data.adopt import adopt
from darkroom.data.dataset import Photo, read_folder, read_held_out, read_learned
from darkroom.data.manifest import Manifest, is_dataset
from darkroom.errors import RunError
from darkroom.jobs.base import open_base
from darkroom.jobs.fitting import Sitting, Stopped
from darkroom.jobs.prior import class_pictures
from darkroom.jobs.receipt import receipt
from darkroom.jobs.watch import Silent, Watcher
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL
    from darkroom.train.crew import Crew
    from darkroom.train.preflight import Plan

__all__ = ["Stopped", "prepare", "receipt", "resume_training", "run_training"]


def prepare(recipe: Recipe, watcher: Watcher | None = None, draw: bool = True) -> tuple[SDXL, Plan]:
    """The model and the plan: the whole preflight. Pictures of the class are drawn where they are missing, unless `draw` is False.

    Raises a DarkroomError for whatever cannot work.
    """
    folder = _images(recipe)
    manifest = adopt(folder)[0] if is_dataset(folder) else None
    photos = read_learned(manifest, recipe.template) if manifest else read_folder(folder, recipe.template)  # before the model: a mistake is told at once
    held_out = _held_out(recipe, manifest)
    model = open_base(recipe.base, recipe.device, recipe.train.precision, recipe.base_config)
    from darkroom.train.preflight import plan

    return model, plan(recipe, photos, model, held_out, manifest.hash if manifest else "", class_pictures(recipe, watcher, draw))


def _images(recipe: Recipe) -> Path:
    from darkroom.errors import RecipeError

    if not recipe.data.images:
        raise RecipeError("data.images is empty: name the folder of your pictures with --images FOLDER.")
    return Path(recipe.data.images)


def _held_out(recipe: Recipe, manifest: Manifest | None) -> list[Photo]:
    if recipe.validation.pictures:
        return read_folder(Path(recipe.validation.pictures), recipe.template)
    return read_held_out(manifest, recipe.template) if manifest else []


def run_training(
    recipe: Recipe, out: Path, watcher: Watcher | None = None, prepared: tuple[SDXL, Plan] | None = None, sidecar: float | None = None
) -> Run:  # fmt: skip
    """Train from the first step; `sidecar` writes A1111's side-car with that preferred weight. Raises a DarkroomError; `Stopped` on Ctrl-C."""
    from darkroom.train.crew import Crew

    crew = Crew.join()
    model, plan = prepared or prepare(recipe, watcher)
    if crew.first:
        Run.create(out, recipe, receipt(recipe, model, plan))
    crew.wait()
    run = _go(Run.open(out), recipe, model, plan, watcher or Silent(), crew)
    if sidecar is not None and crew.first:
        from darkroom.jobs.label import write_sidecar

        write_sidecar(run.product, recipe, sidecar)
    return run


def resume_training(folder: Path, watcher: Watcher | None = None) -> Run:
    """Go on from the newest checkpoint: the result is byte-equal to that of a run that was never interrupted. Raises RunError."""
    run = Run.open(folder)
    recipe = run.recipe
    if run.finished:
        raise RunError(f"{folder}: is finished; what it learned is {run.product}. To train longer, start a new run with a larger train.length.")
    model, plan = prepare(recipe, watcher)
    then, now = run.facts, receipt(recipe, model, plan)
    for what in ("pictures_sha256", "base_sha256"):
        if then[what] != now[what]:
            thing = {"pictures_sha256": "pictures or captions", "base_sha256": "base model"}[what]
            raise RunError(f"{folder}: the {thing} changed since the run began, so that it cannot go on exactly. Put them back, or start a new run.")
    from darkroom.train.crew import Crew

    return _go(run, recipe, model, plan, watcher or Silent(), Crew.join())


def _go(run: Run, recipe: Recipe, model: SDXL, plan: Plan, watcher: Watcher, crew: Crew) -> Run:
    from darkroom.train.loop import Trainer

    attached = recipe.method.attach(model, recipe.train.seed)
    try:
        Sitting(run, recipe, model, Trainer(recipe, plan, model, attached, crew), watcher).go()
    finally:
        attached.detach()
    return run
