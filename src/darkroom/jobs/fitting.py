"""One sitting of a training: from where it stands to its end, or to Ctrl-C. Everything is written on the way."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.files import copy_whole, write_json
from darkroom.jobs.previews import Previews
from darkroom.jobs.receipt import peak_memory_mib, product_hash
from darkroom.jobs.track import preview_name, tracking
from darkroom.jobs.watch import Watcher, tell_figures, tell_picture
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from darkroom.sdxl.model import SDXL
    from darkroom.train.forecast import Peak
    from darkroom.train.loop import Trainer

ENCODERS = ("vae", "text_encoder", "text_encoder_2")


class Stopped(KeyboardInterrupt):
    """Ctrl-C during a training, after its state was saved."""

    def __init__(self, run: Path, step: int) -> None:
        super().__init__(f"Stopped at step {step}; everything is saved. Go on with: darkroom resume {run}")


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
        return Previews(self.recipe, self.model, self.trainer.attached, self.run.product, self.trainer.plan.photos[0])

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
        with lodged(self.model, *ENCODERS):
            trainer.feed.encode_all(start * accumulate, plan.steps * accumulate, lambda done, total: self.watcher.move("encoding", done, total), trainer.crew)
        if start == 0:
            self._previews(0)
            if plan.held_out:
                self._log({"step": 0, "validation": self._held_out()})
        began, step, settled = time.perf_counter(), start, None
        with checkpointing(self.recipe, self.model, trainer.attached.own), _polite() as asked:
            for step, figures in fit(trainer, start, plan.steps):
                self._tell()
                self._measure(step, figures)
                tell_figures(self.watcher, step, plan.steps, figures | {"memory_mib": peak_memory_mib()})
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
        saved = self.run.checkpoints()
        step = saved[-1].step if saved else 0
        if saved:
            self.trainer.load_state(*saved[-1].load())
            self.watcher.say(f"Going on from step {step}.")
        if self.trainer.crew.first:
            self.run.forget_after(step if saved else -1)
        self.trainer.crew.wait()
        return step

    def _measure(self, step: int, figures: dict[str, float]) -> None:
        """The held-out loss, where it is due, into the figures; and the figures into the log."""
        plan = self.trainer.plan
        if plan.held_out and self._due(step, plan.validate_every):
            figures["validation"] = self._held_out()
        self._log({"step": step, **figures})

    def _held_out(self) -> float:
        from darkroom.train.optimizers.state import settled
        from darkroom.train.validation import held_out_loss

        crew = self.trainer.crew
        with settled(self.trainer.optimizer):
            return crew.agree(held_out_loss(self.trainer) if crew.first else 0.0)

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
        from darkroom.jobs.label import label
        from darkroom.train.optimizers.state import settled

        facts = self.run.facts
        with settled(self.trainer.optimizer):  # until it is written: the tensors may be the weights themselves
            self.trainer.attached.write(place, _dtype(self.recipe), lambda tensors: label(self.recipe, self.model, self.trainer, step, tensors, facts))

    def _save(self, step: int) -> None:
        if self.trainer.crew.first:
            tensors, facts = self.trainer.state()
            self.run.save(step, tensors, facts, lambda place: self._write(place, step))
            self.run.prune(self.recipe.train.keep)
        self.trainer.crew.wait()

    def _previews(self, step: int) -> None:
        from darkroom.sampling.request import save_png
        from darkroom.train.optimizers.state import settled
        from darkroom.train.swap import lodged

        if not self.trainer.crew.first:
            return
        with settled(self.trainer.optimizer), lodged(self.model, *ENCODERS):
            for index, (picture, request) in enumerate(self.previews.draw()):
                place = self.run.folder / "previews" / f"{step:06d}_{index}.png"
                save_png(picture, request, place)
                self.tracker.picture(step, preview_name(place), place)
                tell_picture(self.watcher, step, place)
                self.trainer.vitals.picture(f"previews/{place.name}", _extremes(picture))
                self.watcher.move("previews", index + 1, len(self.previews.prompts))
        self._tell()

    def _finish(self, seconds: float, taken: int, settled: int | None = None) -> None:
        run, steps = self.run, settled or self.trainer.plan.steps
        if self.trainer.crew.first:
            if settled:
                self.watcher.say(f"Settled at step {settled}: the held-out loss has not improved since. Nothing more is trained.")
                copy_whole(run.folder / "steps" / f"{settled:06d}" / run.product.name, run.product)
            else:
                self._write(run.product, steps)
            run.share(run.product)
            results = {
                "adapter_sha256": product_hash(run.product),
                "steps": steps,
                "seconds_of_last_sitting": round(seconds, 2),
                "seconds_per_step": round(seconds / max(1, taken), 4),
                "peak_memory_mib": peak_memory_mib(),
                **self._memory(),
                **({"settled": settled} if settled else {}),
                **({"told": self.told} if self.told else {}),
            }
            write_json(run.folder / "facts.json", run.facts | {"result": results})
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
