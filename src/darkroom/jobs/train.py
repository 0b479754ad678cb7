"""Pictures and a recipe to a run folder with an adapter in it; and the same again from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom import __version__
from darkroom.data.archives import find_archives, holds_shards
from darkroom.data.dataset import Photo, content_hash, open_dataset, read_folder, read_held_out, read_learned, rows_of
from darkroom.data.manifest import Manifest
from darkroom.data.streamed import Streamed, look_into
from darkroom.errors import RecipeError, RunError
from darkroom.files import sha256_bytes
from darkroom.jobs.base import open_base
from darkroom.jobs.fitting import Sitting
from darkroom.jobs.prior import class_pictures
from darkroom.jobs.receipt import receipt
from darkroom.jobs.stopping import Stopped, at_once
from darkroom.jobs.watch import Silent, Watcher
from darkroom.methods.chosen import ADAPTER
from darkroom.places import is_address
from darkroom.train.hold import held
from darkroom.train.launch import asked, check_precision, divided, several
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL
    from darkroom.train.crew import Crew
    from darkroom.train.preflight import Plan

KEPT = {"pictures_sha256": "pictures or captions", "base_sha256": "base model"}
"""What must be as it was when a run is gone on with."""

__all__ = ["Stopped", "prepare", "receipt", "resume_training", "run_training"]


def prepare(recipe: Recipe, watcher: Watcher | None = None, draw: bool = True, processes: int = 0) -> tuple[SDXL, Plan]:
    """The model and the plan: the whole preflight. Pictures of the class are drawn where they are missing, unless `draw` is False.

    `processes` is how many the training is planned for; 0: as many as there are now. Raises a DarkroomError for whatever cannot work.
    """
    with at_once():
        return _prepared(recipe, watcher, draw, processes)


def _prepared(recipe: Recipe, watcher: Watcher | None, draw: bool = True, processes: int = 0) -> tuple[SDXL, Plan]:
    recipe = asked(recipe)
    recipe.track.check()
    with _as_one():
        recipe = here(recipe, watcher)
        dataset = _dataset(recipe, watcher or Silent())
        photos = read_learned(dataset, recipe.template) if dataset else read_folder(recipe.data.images, recipe.template)  # before the model: mistakes first
        held_out = _held_out(recipe, dataset)
    from darkroom.train.crew import Crew

    crew = Crew.join()  # before the model: from here "cuda" is this process's own card
    small = recipe.train.quantise != "no" or recipe.train.swap_blocks > 0 or divided(recipe)
    with crew.as_one():
        model = open_base(recipe.base, recipe.device, recipe.train.precision, recipe.base_config, "model" if small else "full")
        check_precision(model.dtype)
    from darkroom.train.preflight import plan
    from darkroom.train.shortage import room_for

    if recipe.validation.settle and not held_out:
        raise RecipeError(
            "validation.settle (--stop-when-settled) goes by the loss on held-out pictures, and there are none. Name their folder with "
            "--set validation.pictures=FOLDER, or hold some out: darkroom dataset prepare FOLDER --held-out 10%"
        )
    with crew.first_alone():
        classes = class_pictures(recipe, watcher, draw)
    room = room_for(model.device, crew, processes)
    with crew.as_one():
        found = plan(recipe, photos, model, held_out, rows_of(dataset).hash if dataset else "", classes, processes or crew.size, room)
    _check_alike(crew, recipe, model, found)
    return model, found


@contextmanager
def _as_one() -> Iterator[None]:
    """What fails in the block for one of several processes is told to all. Of one alone torch is not imported yet."""
    if not several():
        yield
        return
    from darkroom.train.crew import Crew

    with Crew.join().as_one():
        yield


def _check_alike(crew: Crew, recipe: Recipe, model: SDXL, plan: Plan) -> None:
    """All processes must learn the same, from whichever disk each reads. Raises RunError, in all of them."""
    if crew.size == 1:
        return
    from darkroom.jobs.label import public_name, public_recipe

    told = {
        "Darkroom": __version__, "recipe": public_recipe(recipe, public_name(recipe.base)).to_toml(), "base model": model.hash,
        "pictures or captions": content_hash(plan.photos), "pictures of the class": content_hash([*plan.classes]),
    }  # fmt: skip
    mine = {what: sha256_bytes(value.encode()) for what, value in told.items()}
    every = [json.loads(said) for said in crew.told(json.dumps([crew.name, mine]))]
    for name, theirs in every:
        if differs := [what for what in mine if theirs[what] != every[0][1][what]]:
            what = ", nor the same ".join(differs)
            raise RunError(f"{name} does not have the same {what} as {every[0][0]}. Bring the same to every machine, or to a disk that all share.")


def here(recipe: Recipe, watcher: Watcher | None = None) -> Recipe:
    """The recipe with working copies in place of addresses; shards stay where they are and are streamed. Raises PlaceError."""
    sources = {"data.images": recipe.data.images, "validation.pictures": recipe.validation.pictures, "data.prior.pictures": recipe.data.prior.pictures}
    streamed = [key for key, source in sources.items() if is_address(source) and holds_shards(source)]
    return recipe.near(*streamed, listener=watcher)


def _dataset(recipe: Recipe, watcher: Watcher) -> Manifest | Streamed | None:
    """The dataset or the shards of the recipe's pictures; None for a plain folder. Raises RecipeError where none is named, DatasetError.

    Of several processes each looks into its share of the shards, and finds what the others saw in the cache.
    """
    source = recipe.data.images
    if not source:
        raise RecipeError("data.images is empty: name the folder of your pictures with --images FOLDER.")
    if several() and holds_shards(source):
        from darkroom.train.crew import Crew

        crew, archives = Crew.join(), find_archives(source)
        with crew.as_one():
            look_into(archives, crew.share(archives.found), lambda done, total: watcher.move("looking into shards", done, total))
    dataset = open_dataset(source, lambda done, total: watcher.move("reading", done, total))
    if isinstance(dataset, Streamed) and dataset.without:
        watcher.say(f"{dataset.without} samples of the shards have no picture and are left out.")
    return dataset


def _held_out(recipe: Recipe, dataset: Manifest | Streamed | None) -> list[Photo]:
    if recipe.validation.pictures:
        return read_folder(recipe.validation.pictures, recipe.template)
    return read_held_out(dataset, recipe.template) if dataset else []


def run_training(
    recipe: Recipe, out: Path, watcher: Watcher | None = None, prepared: tuple[SDXL, Plan] | None = None, sidecar: float | None = None
) -> Run:  # fmt: skip
    """Train from the first step; `sidecar` writes A1111's side-car with that preferred weight. Raises a DarkroomError; `Stopped` on Ctrl-C."""
    from darkroom.train.crew import Crew

    if sidecar is not None and recipe.product != ADAPTER:
        raise RecipeError(f"--sidecar {sidecar:g}: is a weight to wear an adapter with, and {recipe.method.kind} learns {recipe.product}. Leave it out.")
    recipe = asked(recipe)
    with at_once(out):
        crew, recipe = Crew.join(), here(recipe, watcher)
        model, plan = prepared or _prepared(recipe, watcher)
        _check_shared(out, recipe, crew)
        with crew.as_one():
            if crew.first:
                Run.create(out, recipe, receipt(recipe, model, plan))
        run = _go(Run(out), recipe, model, plan, watcher, crew)
    if sidecar is not None and crew.first:
        from darkroom.jobs.label import write_sidecar

        write_sidecar(run.product, recipe, sidecar)
    return run


def resume_training(folder: Path, watcher: Watcher | None = None) -> Run:
    """Go on from the newest checkpoint: the result is byte-equal to that of a run that was never interrupted. Raises RunError."""
    with at_once(folder):
        written, then = _begun(folder)
        recipe = here(asked(written), watcher)
        model, plan = _prepared(recipe, watcher)
        now = receipt(recipe, model, plan)
        for what, thing in KEPT.items():
            if then[what] != now[what]:
                raise RunError(f"{folder}: the {thing} changed since the run began, so that it cannot go on exactly. Put them back, or start a new run.")
        from darkroom.train.crew import Crew

        _check_shared(folder, recipe, crew := Crew.join())
        return _go(Run(folder), recipe, model, plan, watcher, crew)


def _begun(folder: Path) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a run and what it was begun with; of several processes the first alone needs to see the folder. Raises RunError."""
    if not several():
        return _opened(folder)
    from darkroom.train.crew import Crew

    crew, said = Crew.join(), ""
    with crew.as_one():
        if crew.first:
            recipe, then = _opened(folder)
            said = json.dumps([recipe.model_dump(mode="json"), then])
    tree, then = json.loads(crew.told(said)[0])
    return Recipe.from_tree(tree, str(folder / "recipe.toml")), then


def _opened(folder: Path) -> tuple[Recipe, dict[str, str]]:
    run = Run.open(folder)
    if run.finished:
        raise RunError(f"{folder}: is finished; what it learned is {run.product}. To train longer, start a new run with a larger train.length.")
    facts = run.facts
    return run.recipe, {what: facts[what] for what in KEPT}


def _check_shared(folder: Path, recipe: Recipe, crew: Crew) -> None:
    """Where every process writes, all must see the same folder. Raises RunError, OutputError."""
    if divided(recipe) and not crew.sees(folder):
        raise RunError(
            f"{folder}: not all machines of this training see this folder, and with train.sharding each process writes its part of a checkpoint there. "
            "Choose a place on a disk that all share with --out, under the same path; or, if the model fits every card, --set train.sharding=no."
        )


def _go(run: Run, recipe: Recipe, model: SDXL, plan: Plan, watcher: Watcher | None, crew: Crew) -> Run:
    from darkroom.train.loop import Trainer
    from darkroom.train.sharding import attach
    from darkroom.train.shortage import memory_in_words
    from darkroom.train.swap import placed, swapped

    written = replace(model, scheduler_config=recipe.objective.drawn_with(model.scheduler_config))  # a model that comes out says how it is drawn with
    assert plan.forecast is not None, "every plan of this model has one"
    parts = () if divided(recipe) else tuple(model.parts) if recipe.learner.trains_text else ("unet",)
    with ExitStack() as stack:
        stack.enter_context(crew.heard())
        with crew.as_one():
            if crew.first:
                stack.enter_context(held(run.folder))
                run.sweep()
        stack.enter_context(memory_in_words(recipe, plan.forecast))
        stack.enter_context(placed(model, recipe.train.quantise, recipe.train.swap_blocks, parts))
        attached = attach(recipe, written, crew)
        stack.callback(attached.detach)
        stack.enter_context(swapped(model, recipe.train.swap_blocks, parts))
        listener = watcher if watcher and crew.first else Silent()
        Sitting(run, recipe, model, Trainer(recipe, plan, model, attached, crew), listener).go()
    return run
