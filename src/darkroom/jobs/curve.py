"""One run as two pictures: its losses over the steps, and its previews as a film strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import RunError
from darkroom.files import atomic, writable_folder
from darkroom.jobs.readings import KEEP
from darkroom.jobs.runs import Told, look
from darkroom.train.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

INK, PAPER, GREY, BLUE, RED = "#1c1a17", "#fbfaf7", "#b9b4a8", "#1f5f8b", "#b3432b"
FRAMES = 12
"""Previews in a strip, at most: the first, the last, and others evenly between."""


def show_run(folder: Path, out: Path | None = None) -> tuple[Told, dict[str, Path]]:
    """Draw `loss.png` and `previews.png` into `out` (the run's own shown/ by default); what came of the run, and the pictures that could be drawn.

    A damaged run is drawn as far as it can be read. Raises RunError where the folder holds no run, OutputError where nothing can be written.
    """
    if not (folder / "recipe.toml").exists() and not (folder / "facts.json").exists():
        raise RunError(f"{folder}: is no run folder (recipe.toml and facts.json are missing). `darkroom runs` lists those there are.")
    told, place, made = look(folder), out or folder / "shown", dict[str, Path]()
    if rows := _logged(folder):
        made["loss"] = writable_folder(place) / "loss.png"
        draw_losses(rows, made["loss"], f"{told.name}: {told.method}".rstrip(": "))
    if strip := film_strip(folder, told):
        made["previews"] = writable_folder(place) / "previews.png"
        with atomic(made["previews"]) as part:
            strip.save(part, format="PNG")
    return told, made


def _logged(folder: Path) -> list[dict[str, Any]]:
    try:
        return Run(folder).read_log()
    except (OSError, UnicodeDecodeError):
        return []


def draw_losses(rows: Sequence[dict[str, Any]], file: Path, title: str = "") -> None:
    """Loss (as it was, and smoothed over some 20 steps), held-out loss with its lowest marked, and the rate below. Raises OutputError."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(9, 5.4), dpi=120, facecolor=PAPER, layout="constrained")
    upper, lower = page.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _losses(upper, rows)
    rates = [(row["step"], row["rate"]) for row in rows if "rate" in row]
    lower.plot([step for step, _ in rates], [rate for _, rate in rates], color=INK, linewidth=1)
    lower.set_ylabel("rate")
    lower.set_xlabel("step")
    lower.set_ylim(bottom=0)
    upper.set_title(title, loc="left", color=INK)
    for axes in (upper, lower):
        axes.set_facecolor(PAPER)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    with atomic(file) as part:
        page.savefig(part, format="png", metadata={"Software": None})


def _losses(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    steps, losses = [row["step"] for row in rows if "loss" in row], [row["loss"] for row in rows if "loss" in row]
    axes.plot(steps, losses, color=GREY, linewidth=0.7, label="loss")
    axes.plot(steps, smoothed(losses), color=BLUE, linewidth=1.8, label="loss, smoothed")
    measured = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    if measured:
        step, best = min(measured, key=lambda each: each[1])
        name = f"held-out loss, lowest {best:.4f} at step {step}"
        axes.plot(*zip(*measured, strict=True), color=RED, marker="o", markersize=4, linewidth=1.4, label=name)
        axes.plot([step], [best], color=RED, marker="o", markersize=10, fillstyle="none")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)  # above: nothing is covered


def smoothed(losses: Sequence[float]) -> list[float]:
    """What the live table shows: each is 0.95 of the one before and 0.05 of its own."""
    found: list[float] = []
    for loss in losses:
        found.append(KEEP * found[-1] + (1 - KEEP) * loss if found else loss)
    return found


def film_strip(folder: Path, told: Told, side: int = 160) -> Image.Image | None:
    """Previews as one picture: a row a prompt, a column a step. None where there are none."""
    from darkroom.sampling.sheet import Block, sheet

    frames: dict[int, dict[int, Path]] = {}
    for path in sorted((folder / "previews").glob("[0-9]*_[0-9]*.png")):
        step, _, index = path.stem.partition("_")
        if step.isdecimal() and index.isdecimal() and _whole(path):
            frames.setdefault(int(step), {})[int(index)] = path
    rows = sorted({index for found in frames.values() for index in found})
    steps = spread([step for step, found in sorted(frames.items()) if len(found) == len(rows)], FRAMES)
    if not steps:
        return None
    labels = _prompts(folder)
    names = [labels[index] if index < len(labels) else f"preview {index}" for index in rows]
    columns = [Block("after so many steps", [str(step) for step in steps])]
    return sheet(names, columns, [[frames[step][index] for step in steps] for index in rows], side, told.name)


def _whole(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            opened.load()
    except (OSError, UnidentifiedImageError, SyntaxError):
        return False
    return True


def _prompts(folder: Path) -> tuple[str, ...]:
    from darkroom.errors import RecipeError

    try:
        recipe = Run(folder).recipe
    except (RecipeError, OSError):
        return ()
    return recipe.preview.prompts or (recipe.template,)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of them: the first, the last, and others evenly between."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def lines(told: Told, made: dict[str, Path]) -> list[str]:
    """What came of the run, and where the pictures are."""
    found = [
        ("run", str(told.folder)),
        ("state", told.words),
        ("method", told.method),
        ("steps", f"{told.done}/{told.total if told.total is not None else '?'}"),
    ]
    found += [("loss", f"{told.loss:.4f} over the last steps")] if told.loss is not None else []
    found += [("held out", f"{told.best:.4f} at step {told.best_step}, the lowest")] if told.best is not None else []
    found += [("learned", str(told.folder / told.product))] if told.product else []
    return [f"{name:<9} {value}" for name, value in [*found, *((name, str(path)) for name, path in made.items())] if value]
