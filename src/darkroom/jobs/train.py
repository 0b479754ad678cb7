"""Pictures and a recipe to a run folder with an adapter in it; and the same again from where it stopped."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.data.adopt import adopt
from darkroom.data.dataset import Photo, read_folder, read_held_out, read_learned
from darkroom.data.manifest import Manifest, is_dataset
from darkroom.errors import RecipeError, RunError
from darkroom.jobs.base import open_base
from darkroom.jobs.fitting import Sitting, Stopped
from darkroom.jobs.prior import class_pictures
from darkroom.jobs.receipt import receipt
from darkroom.jobs.watch import Silent, Watcher
from darkroom.methods.chosen import ADAPTER
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
    recipe.track.check()
    folder = _images(recipe)
    manifest = adopt(folder)[0] if is_dataset(folder) else None
    photos = read_learned(manifest, recipe.template) if manifest else read_folder(folder, recipe.template)  # before the model: a mistake is told at once
    held_out = _held_out(recipe, manifest)
    from darkroom.train.crew import Crew

    crew = Crew.join()  # before the model: from here "cuda" is this process's own card
    small = recipe.train.quantise != "no" or recipe.train.swap_blocks > 0
    model = open_base(recipe.base, recipe.device, recipe.train.precision, recipe.base_config, "model" if small else "full")
    from darkroom.train.preflight import plan

    if recipe.validation.settle and not held_out:
        raise RecipeError(
            "validation.settle (--stop-when-settled) goes by the loss on held-out pictures, and there are none. Name their folder with "
            "--set validation.pictures=FOLDER, or hold some out: darkroom dataset prepare FOLDER --held-out 10%"
        )
    with crew.first_alone():
        classes = class_pictures(recipe, watcher, draw)
    return model, plan(recipe, photos, model, held_out, manifest.hash if manifest else "", classes)


def _images(recipe: Recipe) -> Path:
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

    if sidecar is not None and recipe.product != ADAPTER:
        raise RecipeError(f"--sidecar {sidecar:g}: is a weight to wear an adapter with, and {recipe.method.kind} learns {recipe.product}. Leave it out.")
    crew = Crew.join()
    model, plan = prepared or prepare(recipe, watcher)
    if crew.first:
        Run.create(out, recipe, receipt(recipe, model, plan))
    crew.wait()
    run = _go(Run.open(out), recipe, model, plan, watcher, crew)
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

    return _go(run, recipe, model, plan, watcher, Crew.join())


def _go(run: Run, recipe: Recipe, model: SDXL, plan: Plan, watcher: Watcher | None, crew: Crew) -> Run:
    from darkroom.train.loop import Trainer
    from darkroom.train.shortage import memory_in_words
    from darkroom.train.swap import placed, swapped

    written = replace(model, scheduler_config=recipe.objective.drawn_with(model.scheduler_config))  # a model that comes out says how it is drawn with
    assert plan.forecast is not None, "every plan of this model has one"
    parts = tuple(model.parts) if recipe.learner.trains_text else ("unet",)
    with ExitStack() as stack:
        stack.enter_context(memory_in_words(recipe, plan.forecast))
        stack.enter_context(placed(model, recipe.train.quantise, recipe.train.swap_blocks, parts))
        attached = recipe.learner.attach(written, recipe.train.seed)
        stack.callback(attached.detach)
        stack.enter_context(swapped(model, recipe.train.swap_blocks, parts))
        listener = watcher if watcher and crew.first else Silent()
        Sitting(run, recipe, model, Trainer(recipe, plan, model, attached, crew), listener).go()
    return run
