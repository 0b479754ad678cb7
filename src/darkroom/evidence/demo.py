"""The demo: nine bundled cat pictures -> adapter -> trial -> report.html, on the pocket model, in a few minutes on two cores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from darkroom import pocket
from darkroom.errors import DatasetError
from darkroom.evidence.trial import Arm, Trial, run_trial
from darkroom.jobs.train import run_training
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Worn
from darkroom.train.recipe import load_recipe

SUBJECT = "TOK cat"
PROMPTS = (
    "a photo of TOK cat", "TOK cat on a red background", "TOK cat on a blue background", "a picture of TOK cat, green background",
    "TOK cat on a white background", "a large TOK cat on a purple background", "a small TOK cat on a pink background",
    "TOK cat on a black background", "TOK cat on a teal background", "a picture of TOK cat, orange background",
)  # fmt: skip
SEEDS = (1, 2, 3, 4)


def demo(out: Path, watcher: Watcher | None = None, pictures: Path | None = None) -> dict[str, Any]:
    """Run the main job on the bundled cats, or on `pictures`, which holds train/ and held_out/ as they do.

    Returns the trial's result, with the run's folder and the seconds it took. Raises a DarkroomError.
    """
    watcher, began, cats = watcher or Silent(), time.perf_counter(), pictures or pocket.CATS
    for name in ("train", "held_out"):
        if not (cats / name).is_dir():
            raise DatasetError(f"{cats}: has no folder {name}. The demo's pictures lie in train and held_out, as those that ship: {pocket.CATS}")
    recipe = load_recipe("demo", data={"images": str(cats / "train"), "subject": SUBJECT})
    run = run_training(recipe, out / "run", watcher)
    adapter = run.product
    trial = Trial(
        title="Did the adapter learn the cat?",
        about="A DreamBooth LoRA trained on six pictures of one cartoon cat, tried against the pocket model as it is: the same prompts, seeds and noise.",
        arms=(Arm(name="base"), Arm(name="adapter", adapters=(Worn(file=str(adapter)),))),
        prompts=PROMPTS, seeds=SEEDS, reference=str(cats / "held_out"), training=str(cats / "train"),
        clip_prompts=tuple(prompt.replace("TOK ", "") for prompt in PROMPTS),
    )  # fmt: skip
    result = run_trial(trial, out / "trial", watcher=watcher)
    return result | {"run": str(run.folder), "report": str(out / "trial" / "report.html"), "seconds": round(time.perf_counter() - began, 1)}
