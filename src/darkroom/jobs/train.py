"""Pictures and a recipe to a run folder with an adapter in it; and the same again from where it stopped."""

from __future__ import annotations

import importlib.metadata
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import __version__
from darkroom.data.adopt import adopt
from darkroom.data.dataset import Photo, content_hash, read_folder, read_held_out, read_learned
from darkroom.data.manifest import Manifest, is_dataset
from darkroom.device import hardware
from darkroom.errors import RunError
from darkroom.files import sha256_file, write_json
from darkroom.jobs.base import open_base
from darkroom.jobs.watch import Silent, Watcher
from darkroom.train.recipe import Recipe
from darkroom.train.run import ADAPTER, Run

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.model import SDXL
    from darkroom.train.loop import Trainer
    from darkroom.train.preflight import Plan

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "pillow", "numpy")


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a training, after its state was saved."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"Stopped at step {step}; everything is saved. Go on with: darkroom resume {run}")


def prepare(recipe: Recipe) -> tuple[SDXL, Plan]:
    """The model and the plan: the whole preflight. Raises a DarkroomError for whatever cannot work."""
    folder = _images(recipe)
    manifest = adopt(folder)[0] if is_dataset(folder) else None
    photos = read_learned(manifest, recipe.template) if manifest else read_folder(folder, recipe.template)  # before the model: a mistake is told at once
    held_out = _held_out(recipe, manifest)
    model = open_base(recipe.base, recipe.device, recipe.train.precision, recipe.base_config)
    from darkroom.train.preflight import plan

    return model, plan(recipe, photos, model, held_out, manifest.hash if manifest else "")


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
    model, plan = prepared or prepare(recipe)
    run = _go(Run.create(out, recipe, receipt(recipe, model, plan)), recipe, model, plan, watcher or Silent())
    if sidecar is not None:
        from darkroom.jobs.label import write_sidecar

        write_sidecar(run.folder / ADAPTER, recipe, sidecar)
    return run


def resume_training(folder: Path, watcher: Watcher | None = None) -> Run:
    """Go on from the newest checkpoint: the result is byte-equal to that of a run that was never interrupted. Raises RunError."""
    run = Run.open(folder)
    recipe = run.recipe
    if run.finished:
        raise RunError(f"{folder}: is finished; its adapter is {folder / ADAPTER}. To train longer, start a new run with a larger train.length.")
    model, plan = prepare(recipe)
    then, now = run.facts, receipt(recipe, model, plan)
    for what in ("pictures_sha256", "base_sha256"):
        if then[what] != now[what]:
            thing = {"pictures_sha256": "pictures or captions", "base_sha256": "base model"}[what]
            raise RunError(f"{folder}: the {thing} changed since the run began, so that it cannot go on exactly. Put them back, or start a new run.")
    return _go(run, recipe, model, plan, watcher or Silent())


def _go(run: Run, recipe: Recipe, model: SDXL, plan: Plan, watcher: Watcher) -> Run:
    from darkroom.train.loop import Trainer, checkpointing, fit
    from darkroom.train.optimizers.state import settled
    from darkroom.train.validation import held_out_loss

    attached = recipe.method.attach(model, recipe.train.seed)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        start = _restore(run, trainer, watcher)
        trainer.feed.encode_all(
            start * recipe.train.accumulate, plan.steps * recipe.train.accumulate, lambda done, total: watcher.move("encoding", done, total)
        )
        if start == 0:
            _previews(run, recipe, model, 0, watcher)
            if plan.held_out:
                run.log({"step": 0, "validation": held_out_loss(trainer)})
        began, loss, held = time.perf_counter(), 0.0, 0.0
        step = start
        with checkpointing(recipe, model), _polite() as asked:
            for step, figures in fit(trainer, start, plan.steps):
                loss = figures["loss"] if step == start + 1 else 0.95 * loss + 0.05 * figures["loss"]
                if plan.held_out and (step % plan.validate_every == 0 or step == plan.steps):
                    with settled(trainer.optimizer):
                        figures["validation"] = held = held_out_loss(trainer)
                run.log({"step": step, **figures})
                speed = (step - start) / (time.perf_counter() - began)
                aside = f"  held out {held:.4f}" if held else ""
                watcher.move("training", step, plan.steps, f"loss {loss:.4f}{aside}  {speed:.1f} steps/s")
                if step % plan.save_every == 0 or step == plan.steps or asked.is_set():
                    _save(run, recipe, model, trainer, step)
                if asked.is_set() and step < plan.steps:
                    raise Stopped(run.folder, step)
                if step % plan.preview_every == 0 or step == plan.steps:
                    with settled(trainer.optimizer):
                        _previews(run, recipe, model, step, watcher)
        _finish(run, recipe, model, trainer, time.perf_counter() - began, step - start)
    finally:
        attached.detach()
    return run


def _restore(run: Run, trainer: Trainer, watcher: Watcher) -> int:
    saved = run.checkpoints()
    if not saved:
        run.forget_after(0)
        return 0
    trainer.load_state(*saved[-1].load())
    run.forget_after(saved[-1].step)
    watcher.say(f"Going on from step {saved[-1].step}.")
    return saved[-1].step


def _dtype(recipe: Recipe) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[recipe.train.save_dtype]


def _write_adapter(path: Path, run: Run, recipe: Recipe, model: SDXL, trainer: Trainer, step: int) -> None:
    from darkroom.jobs.label import label
    from darkroom.sdxl.formats import write_adapter
    from darkroom.train.optimizers.state import settled

    with settled(trainer.optimizer):  # until it is written: the tensors may be the weights themselves
        tensors = trainer.attached.tensors(_dtype(recipe))
        write_adapter(path, tensors, label(recipe, model, trainer, step, tensors, run.facts))


def _save(run: Run, recipe: Recipe, model: SDXL, trainer: Trainer, step: int) -> None:
    tensors, facts = trainer.state()
    run.save(step, tensors, facts, lambda path: _write_adapter(path, run, recipe, model, trainer, step))


def _previews(run: Run, recipe: Recipe, model: SDXL, step: int, watcher: Watcher) -> None:
    """Pictures as they look now, by the sampler of `generate`, under the adapter that is being learned."""
    from darkroom.sampling.draw import Kit, complete, draw
    from darkroom.sampling.request import Request, save_png

    model = replace(model, scheduler_config=recipe.objective.drawn_with(model.scheduler_config))
    prompts = recipe.preview.prompts or (recipe.template,)
    for index, prompt in enumerate(prompts):
        request = Request(prompt=prompt, base=recipe.base, seed=recipe.preview.seed + index, steps=recipe.preview.steps, guidance=recipe.preview.guidance)
        whole = complete(model, request)
        save_png(draw(Kit(model), whole), whole, run.folder / "previews" / f"{step:06d}_{index}.png")
        watcher.move("previews", index + 1, len(prompts))


def _finish(run: Run, recipe: Recipe, model: SDXL, trainer: Trainer, seconds: float, taken: int) -> None:
    _write_adapter(run.folder / ADAPTER, run, recipe, model, trainer, trainer.plan.steps)
    results = {
        "adapter_sha256": sha256_file(run.folder / ADAPTER),
        "steps": trainer.plan.steps,
        "seconds_of_last_sitting": round(seconds, 2),
        "seconds_per_step": round(seconds / max(1, taken), 4),
        "peak_memory_mib": peak_memory_mib(),
    }
    write_json(run.folder / "facts.json", run.facts | {"result": results})


def receipt(recipe: Recipe, model: SDXL, plan: Plan) -> dict[str, Any]:
    """Everything the result depends on, and where it was made."""
    return {
        "darkroom": __version__,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "hardware": hardware(),
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "seed": recipe.train.seed,
        "base": recipe.base,
        "base_sha256": model.hash,
        "base_files": model.hashes,
        "pictures_sha256": content_hash(plan.photos),
        **({"dataset": Path(recipe.data.images).name, "dataset_sha256": plan.dataset} if plan.dataset else {}),
        "pictures": [_told(photo) for photo in {photo.path: photo for photo in plan.photos}.values()],
        "held_out": [_told(photo) for photo in plan.held_out],
        "preflight": plan.facts,
    }


def _told(photo: Photo) -> dict[str, Any]:
    found = {"file": photo.path.name, "sha256": photo.sha256, "width": photo.width, "height": photo.height, "caption": photo.caption}
    return found | ({"repeats": photo.repeats} if photo.repeats > 1 else {})


def peak_memory_mib() -> int:
    """The most this process has held: of the GPU where there is one, else of main memory (0 where the system does not tell)."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() >> 20)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak >> (20 if platform.system() == "Darwin" else 10))


@contextmanager
def _polite() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C only asks: the step is finished and saved. A second one interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
