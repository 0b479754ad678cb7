"""A training's figures and previews to TensorBoard and Weights & Biases. Neither can stop it, and a resumed run tells no step twice.

The run folder's own log is the truth. What a program had written when it was killed cannot be known (wandb keeps seconds of figures in memory), so a
resumed run writes its curves anew from log.jsonl and previews/, up to the checkpoint it goes on from; what wandb's server has already is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from darkroom.files import write_json
from darkroom.jobs.label import public_name, public_recipe
from darkroom.jobs.watch import Silent, Watcher
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NAMES = {"loss": "train/loss", "rate": "train/rate", "grad_norm": "train/grad_norm", "validation": "held_out/loss"}
PATIENCE = 60
"""Seconds that wandb's server may take to answer at the start and at the end."""


class Program(Protocol):
    """One that draws curves."""

    name: str

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by the names of `named`."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture file."""

    def close(self, failed: bool) -> None:
        """All of it is written; `failed` where the training did not come to its end."""


class Tracker:
    """Several programs as one. Whichever fails is told of once, and not asked again."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.programs: list[Program] = []

    def open(self, name: str, opened: Callable[[], Program]) -> None:
        """Ask one more program, where it can be opened."""
        try:
            self.programs.append(opened())
        except Exception as error:
            self._warn(name, error)

    def figures(self, step: int, values: Mapping[str, Any]) -> None:
        """What a step gave, by the names of log.jsonl: loss, rate, grad_norm, seconds, validation and whatever else is a number."""
        told = named(values)
        self._each(lambda program: program.figures(step, told))

    def picture(self, step: int, name: str, path: Path) -> None:
        """A preview drawn after `step` steps; `preview_name` gives its name."""
        self._each(lambda program: program.picture(step, name, path))

    def close(self, failed: bool) -> None:
        """The training is over, or broke off."""
        self._each(lambda program: program.close(failed))

    def _each(self, tell: Callable[[Program], None]) -> None:
        for program in list(self.programs):
            try:
                tell(program)
            except Exception as error:  # whatever a library throws, hours of training are worth more than its curves
                self.programs.remove(program)
                self._warn(program.name, error)

    def _warn(self, name: str, error: Exception) -> None:
        reason = str(error).strip() or type(error).__name__
        self.watcher.say(f"{name} gets no more figures: {reason}. The training goes on, and log.jsonl in the run folder has them all.")


@contextmanager
def tracking(recipe: Recipe, folder: Path, start: int, watcher: Watcher | None = None, first: bool = True) -> Iterator[Tracker]:
    """Within the block figures and pictures go to what `recipe.track` asks for. `start` is the step that the run goes on from: log.jsonl ends there.

    Of several processes only the `first` tells anything.
    """
    tracker = Tracker(watcher or Silent())
    if recipe.track.tensorboard and first:
        tracker.open("TensorBoard", lambda: Board(folder, recipe))
    if recipe.track.wandb and first:
        tracker.open("wandb", lambda: Wandb(folder, recipe))
    if start and tracker.programs:
        _tell_again(tracker, Run(folder), start)
    failed = True
    try:
        yield tracker
        failed = False
    finally:
        tracker.close(failed)


def _tell_again(tracker: Tracker, run: Run, start: int) -> None:
    """Everything up to step `start`, in its order."""
    pictures: dict[int, list[Path]] = {}
    for path in sorted((run.folder / "previews").glob("[0-9]*_*.png")):
        pictures.setdefault(int(path.stem.split("_")[0]), []).append(path)
    rows: dict[int, dict[str, Any]] = {}
    for row in run.read_log():
        rows.setdefault(row["step"], {}).update(row)
    for step in sorted(step for step in rows.keys() | pictures.keys() if step <= start):
        if step in rows:
            tracker.figures(step, rows[step])
        for path in pictures.get(step, ()):
            tracker.picture(step, preview_name(path), path)


def preview_name(path: Path) -> str:
    """What a preview is called in every program: previews/000100_1.png is "preview 1", the second prompt's."""
    return f"preview {path.stem.split('_')[-1]}"


def named(values: Mapping[str, Any]) -> dict[str, float]:
    """Names in groups, as both programs show them; seconds become steps in a second. What is no number is left out."""
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool) and key != "step"}
    seconds = numbers.pop("seconds", 0.0)
    told = {NAMES.get(key, f"train/{key}"): value for key, value in numbers.items()}
    return told | ({"speed/steps_per_second": 1 / seconds} if seconds > 0 else {})


class Board:
    """TensorBoard's event files, in RUN/tensorboard."""

    name = "TensorBoard"

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard"
        for old in place.glob("events.out.tfevents.*"):  # all of it is told again
            old.unlink()
        self.writer: SummaryWriter = SummaryWriter(str(place), purge_step=0, flush_secs=10)
        """purge_step: a TensorBoard that looks on meanwhile forgets what it had read."""
        self.writer.add_text("recipe", _indented(recipe.to_toml()), 0)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """One curve for each name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """On the page of images."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as opened:
            self.writer.add_image(name, np.asarray(opened.convert("RGB")), step, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Every event on disk."""
        self.writer.close()


def _indented(text: str) -> str:
    """As Markdown shows code."""
    return "".join(f"    {line}\n" for line in text.splitlines())


class Wandb:
    """A run of Weights & Biases, under one id for as long as the run folder lives. Sent: figures, previews, use of the machine, and the recipe without its
    folders; not the command line, the code, the terminal or the machine's name."""

    name = "wandb"

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own faults would be reported to a third party
        import wandb

        track, place = recipe.track, folder / "wandb"
        offline = track.wandb_mode in ("offline", "dryrun")
        identity = _identity(folder)
        for old in place.glob(f"offline-run-*-{identity}"):  # all of it is told again
            if not any(old.glob("*.synced")):
                shutil.rmtree(old, ignore_errors=True)
        config = public_recipe(recipe, public_name(recipe.base)).model_dump(mode="json", exclude={"track"})
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
            init_timeout=PATIENCE, finish_timeout=PATIENCE, finish_timeout_raises=True,
        )  # fmt: skip
        self.wandb = wandb
        self.run = wandb.init(
            project=track.wandb, id=identity, name=folder.resolve().name, dir=str(folder), config=config, settings=settings, reinit="create_new",
            mode="offline" if track.wandb_offline else None, resume=None if offline else "allow",
        )  # fmt: skip
        self.known = self.run.step - 1
        """The last step that the server has; -1 of a new run, and offline."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """A row of the history."""
        if step > self.known:
            self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """In the row of its step."""
        if step > self.known:
            self.run.log({name: self.wandb.Image(str(path))}, step=step)

    def close(self, failed: bool) -> None:
        """Waits until the server has everything, for at most PATIENCE seconds."""
        self.run.finish(exit_code=int(failed))


def _identity(folder: Path) -> str:
    """The id that wandb knows the run by, made once and kept in track.json."""
    kept = folder / "track.json"
    try:
        return str(json.loads(kept.read_text(encoding="utf-8"))["wandb"])
    except (OSError, ValueError, KeyError):
        identity = uuid.uuid4().hex[:8]
        write_json(kept, {"wandb": identity})
        return identity
