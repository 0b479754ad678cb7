"""One sitting of a training: from where it stands to its end, or to Ctrl-C. Everything is written on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.files import cache_folder, copy_whole, write_json
from darkroom.jobs.previews import Previews
from darkroom.jobs.receipt import peak_memory_mib, product_hash
from darkroom.jobs.stopping import Stopped, polite
from darkroom.jobs.track import preview_name, tracking
from darkroom.jobs.watch import Watcher, tell_figures, tell_picture
from darkroom.places import push_near
from darkroom.train.recipe import Recipe
from darkroom.train.run import Checkpoint, Run

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from darkroom.sdxl.model import SDXL
    from darkroom.train.crew import Crew
    from darkroom.train.forecast import Peak
    from darkroom.train.loop import Trainer

ENCODERS = ("vae", "text_encoder", "text_encoder_2")


@dataclass
class Sitting:
    """A run and what goes on with it. Of several processes only the first one writes."""

    run: Run
    recipe: Recipe
    model: SDXL
    trainer: Trainer
    watcher: Watcher
    told: list[str] = field(default_factory=list)
    """What was said of the training's health."""
    _peak: Peak | None = field(default=None, init=False)

    @cached_property
    def previews(self) -> Previews:
        """What this run draws of itself."""
        return Previews(self.recipe, self.model, self.trainer.attached, self.run.folder / self.recipe.product, self.trainer.plan.photos[0])

    def go(self) -> None:
        """Train to the end. Raises RunError, OutputError; `Stopped` on Ctrl-C."""
        start = self._restore()
        with tracking(self.recipe, self.run.folder, start, self.watcher, self.trainer.crew.first) as self.tracker:
            self._from(start)

    def _from(self, start: int) -> None:
        from darkroom.train.forecast import Peak
        from darkroom.train.loop import checkpointing, fit
        from darkroom.train.swap import lodged

        trainer, plan, accumulate = self.trainer, self.trainer.plan, self.recipe.train.accumulate
        if (settled := self._settled()) is not None:  # killed between settling and the end
            self._finish(0.0, 0, settled)
            return
        self._peak = Peak(self.model.device)
        with lodged(self.model, *self._visitors):
            trainer.feed.encode_all(
                start * accumulate, plan.steps * accumulate, lambda done, total: self.watcher.move("encoding", done, total), self._encoders()
            )
        trainer.crew.wait()
        if start == 0:
            self._previews(0)
            if plan.held_out:
                self._log({"step": 0, "validation": self._held_out()})
        began, step, settled = time.perf_counter(), start, None
        with checkpointing(self.recipe, trainer.attached.learning(self.model), trainer.attached.own), polite() as asked:
            for step, figures in fit(trainer, start, plan.steps):
                self._tell()
                self._measure(step, figures)
                tell_figures(self.watcher, step, plan.steps, figures | {"memory_mib": peak_memory_mib(self.model.device)})
                stop = bool(trainer.crew.agree(asked.is_set()))
                settled = self._settled() if "validation" in figures else None
                if self._due(step, plan.save_every) or stop or self._goes_back(figures):
                    self._save(step)
                if settled is not None:
                    break
                if stop and step < plan.steps:
                    raise Stopped(self.run.folder, step)
                if self._due(step, plan.preview_every):
                    self._previews(step)
        self._finish(time.perf_counter() - began, step - start, settled)

    def _settled(self) -> int | None:
        """The step at which the training settled, where the recipe asks and it has: the same in every process."""
        from darkroom.train.settle import measured, settled_at

        rule = self.recipe.validation.settle
        if rule is None:
            return None
        found = int(self.trainer.crew.agree(settled_at(measured(self.run.read_log()), rule) or 0))
        return found or None

    def _goes_back(self, figures: Mapping[str, float]) -> bool:
        """Whether a checkpoint is wanted because the training may come back to this step."""
        return self.recipe.validation.settle is not None and "validation" in figures

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.trainer.plan.steps

    def _restore(self) -> int:
        """Put back the newest checkpoint; how many steps it has taken."""
        crew = self.trainer.crew
        saved = self.run.checkpoints() if crew.first else []
        step = int(crew.agree(saved[-1].step if saved else 0))
        if step:
            self.trainer.load_state(*self._loaded(Checkpoint(self.run.folder / "steps" / f"{step:06d}")))
            self.watcher.say(f"Going on from step {step}.")
        if crew.first:
            self.run.forget_after(step if saved else -1)
        crew.wait()
        return step

    def _loaded(self, saved: Checkpoint) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The first process reads and hands out; of a model that is laid over processes each reads its rows, whoever wrote the checkpoint."""
        crew = self.trainer.crew
        if crew.size == 1:
            return saved.load()
        if self.trainer.attached.split:
            from darkroom.train.parted import read_rows

            with crew.as_one():
                facts = saved.facts  # first: it sees to it that all parts are there
                return read_rows(saved.folder, self.trainer), facts
        with crew.as_one():
            tensors, facts = saved.load() if crew.first else ({}, {})
        return crew.handed_out(tensors), json.loads(crew.told(json.dumps(facts))[0])

    def _encoders(self) -> Crew:
        """Who shares the work of encoding: processes that find in the cache what others put there."""
        crew = self.trainer.crew
        if crew.sees(cache_folder()):
            return crew
        self.watcher.say("Not all machines share one cache: each encodes all pictures for itself. DARKROOM_CACHE names a folder that all see.")
        return crew.beside

    @property
    def _visitors(self) -> Sequence[str]:
        """Parts that come to the device where they are needed. What is laid over processes is there already, or is shown whole by the method."""
        return ("vae",) if self.trainer.attached.split and self.recipe.method.trains_text else ENCODERS

    def _measure(self, step: int, figures: dict[str, float]) -> None:
        """The held-out loss, where it is due, into the figures; and the figures into the log."""
        plan = self.trainer.plan
        if plan.held_out and self._due(step, plan.validate_every):
            figures["validation"] = self._held_out()
        self._log({"step": step, **figures})

    def _held_out(self) -> float:
        from darkroom.train.validation import held_out_loss

        with self._shown() as first:
            loss = held_out_loss(self.trainer) if first else 0.0
        return self.trainer.crew.agree(loss)

    def _log(self, row: dict[str, Any]) -> None:
        if self.trainer.crew.first:
            self.run.log(row)
            self.tracker.figures(row["step"], row)

    def _tell(self) -> None:
        """Say what the training's health has to say, once."""
        news, self.trainer.vitals.told[:] = list(self.trainer.vitals.told), []
        for text in news:
            self.watcher.say(text)
        self.told += news

    def _write(self, place: Path, step: int) -> None:
        """The first process does, unless it is there from before a kill. Of a model that is laid over processes all give it what they have."""
        with self._shown() as first:
            if first and not place.exists():
                self._write_shown(place, step)

    def _write_shown(self, place: Path, step: int) -> None:
        from darkroom.jobs.label import label

        facts = self.run.facts
        self.trainer.attached.write(place, _dtype(self.recipe), lambda tensors: label(self.recipe, self.model, self.trainer, step, tensors, facts))

    @contextmanager
    def _shown(self) -> Iterator[bool]:
        """Within the block the first process, for which it is True, has the weights as they are drawn with and written: they may be those that learn."""
        from darkroom.train.optimizers.state import settled

        crew, attached = self.trainer.crew, self.trainer.attached
        if not (crew.first or attached.split):
            yield False
            return
        with settled(self.trainer.optimizer), attached.whole():
            yield crew.first

    def _save(self, step: int) -> None:
        crew = self.trainer.crew
        if self.trainer.attached.split:
            self._save_parts(step)
        elif crew.first:
            tensors, facts = self.trainer.state()
            self.run.save(step, tensors, facts, lambda place: self._write(place, step))
        if crew.first:
            self.run.prune(self.recipe.train.keep)
            push_near(self.run.folder, self.watcher)
        crew.wait()

    def _save_parts(self, step: int) -> None:
        """Each process writes its part, and the first one, once all have, what makes it a checkpoint."""
        from darkroom.train.parted import STATE, write_parts

        crew = self.trainer.crew
        tensors, facts = self.trainer.state()
        with crew.as_one():
            if crew.first:
                self.run.begin(step)
        with self.run.writing(step):
            parts = write_parts(self.run.unfinished(step) / STATE, tensors, crew)
        with self._shown() as first:
            if first:
                self.run.end(step, {**facts, "parts": parts}, lambda place: self._write_shown(place, step))

    def _previews(self, step: int) -> None:
        from darkroom.sampling.request import save_png
        from darkroom.train.swap import lodged

        with self._shown() as first, lodged(self.model, *(self._visitors if first else ())):
            for index, (picture, request) in enumerate(self.previews.draw() if first else ()):
                place = self.run.folder / "previews" / f"{step:06d}_{index}.png"
                save_png(picture, request, place)
                self.tracker.picture(step, preview_name(place), place)
                tell_picture(self.watcher, step, place)
                self.trainer.vitals.picture(f"previews/{place.name}", _extremes(picture))
                self.watcher.move("previews", index + 1, len(self.previews.prompts))
        self._tell()

    def _finish(self, seconds: float, taken: int, settled: int | None = None) -> None:
        run, steps = self.run, settled or self.trainer.plan.steps
        product = run.folder / self.recipe.product
        if not settled:
            self._write(product, steps)
        elif self.trainer.crew.first:
            self.watcher.say(f"Settled at step {settled}: the held-out loss has not improved since. Nothing more is trained.")
            if not product.exists():
                copy_whole(run.folder / "steps" / f"{settled:06d}" / product.name, product)
        if self.trainer.crew.first:
            run.share(product)
            results = {
                "adapter_sha256": product_hash(product),
                "steps": steps,
                "seconds_of_last_sitting": round(seconds, 2),
                "seconds_per_step": round(seconds / max(1, taken), 4),
                "peak_memory_mib": peak_memory_mib(self.model.device),
                **self._memory(),
                **({"settled": settled} if settled else {}),
                **({"told": self.told} if self.told else {}),
            }
            write_json(run.folder / "facts.json", run.facts | {"result": results})
            push_near(run.folder, self.watcher)
        self.trainer.crew.wait()

    def _memory(self) -> dict[str, Any]:
        """What the preflight foretold beside what was measured; nothing where nothing was trained in this sitting."""
        from darkroom.train.forecast import checked

        if self.trainer.plan.forecast is None or self._peak is None:
            return {}
        held = sum(p.nbytes for part in (*self.model.parts.values(), self.model.vae) for p in part.parameters())
        return {"memory": checked(self.trainer.plan.forecast, self._peak.measured(held))}


def _extremes(picture: Image.Image) -> Sequence[tuple[int, int]]:
    found: Any = picture.getextrema()
    return found if isinstance(found[0], tuple) else (found,)


def _dtype(recipe: Recipe) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[recipe.train.save_dtype]
