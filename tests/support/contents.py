"""A workspace with something of everything that the studio's pages show, made by plain files in a moment: no model is opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from darkroom.pocket import CATS
from darkroom.sampling.request import Request, save_png
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run
from support.ratings import finished

TENSORS = {"lora_unet_x.lora_down.weight": np.zeros((2, 2), np.float32)}
PROMPTS = ["a cat on a red background", "a cat in the snow"]


def furnish(workspace: Path) -> Path:
    """Cats as a dataset, a finished and an interrupted run with previews, a rated trial with its report, adapters, drawn pictures, a recipe of one's own."""
    shutil.copytree(CATS / "train", workspace / "datasets" / "cats", dirs_exist_ok=True)
    _run(workspace, "one", done=True)
    _run(workspace, "two", done=False)
    _trial(workspace / "trials" / "one")
    (workspace / "adapters").mkdir()
    for name in ("thor", "loki"):
        save_file(TENSORS, workspace / "adapters" / f"{name}.safetensors", {"modelspec.title": name, "modelspec.trigger_phrase": f"TOK {name}"})
    (workspace / "pictures").mkdir()
    for number in range(4):
        path = workspace / "pictures" / f"{number:04d}-seed{number}.png"
        save_png(_picture(64, number), Request(prompt=f"a cat, the {number + 1}th", seed=number, base="pocket"), path)
        os.utime(path, (1_700_000_000 + number,) * 2)  # a file system's clock goes in ticks, in which a quick machine writes several
    (workspace / "recipes").mkdir()
    (workspace / "recipes" / "mine.toml").write_text(load_recipe("demo", data={"images": "datasets/cats", "subject": "TOK cat"}).to_toml(), encoding="utf-8")
    return workspace


def _picture(side: int, number: int) -> Image.Image:
    """Not the same for two numbers, and not of one colour."""
    across = np.linspace(0, 255, side, dtype=np.uint8)
    pixels = np.stack([np.tile(across, (side, 1)), np.tile(across[:, None], (1, side)), np.full((side, side), 40 * number % 256, np.uint8)], axis=-1)
    return Image.fromarray(pixels)


def _run(workspace: Path, name: str, done: bool) -> None:
    recipe = load_recipe("demo", data={"images": str(workspace / "datasets" / "cats"), "subject": "TOK cat"}, preview={"prompts": PROMPTS})
    result = {"result": {"steps": 40, "adapter_sha256": "c" * 64}} if done else {}
    facts = {"pictures": [{}], "pictures_sha256": "p", "base_sha256": "b", "device": "cpu", "preflight": {"pictures": 6, "steps": 40}}
    run = Run.create(workspace / "runs" / name, recipe, facts | result)
    if done:
        save_file(TENSORS, run.product, {"modelspec.trigger_phrase": "TOK cat"})
    for step in range(1, 41 if done else 21):
        run.log({"step": step, "loss": 0.1 + 1 / step, "rate": 1e-4} | ({"validation": 0.2 + 1 / step} if step % 10 == 0 else {}))
    for step in (10, 20):
        folder = run.folder / "steps" / f"{step:06d}"
        folder.mkdir(parents=True)
        for file in ("adapter", "state"):
            save_file(TENSORS, folder / f"{file}.safetensors")
        (folder / "state.json").write_text("{}", encoding="utf-8")
    (run.folder / "previews").mkdir(exist_ok=True)
    for step in (0, 10, 20):
        for prompt in range(len(PROMPTS)):
            _picture(64, step + prompt).save(run.folder / "previews" / f"{step:06d}_{prompt}.png")


def _trial(folder: Path) -> None:
    folder.mkdir(parents=True)
    finished(folder)
    (folder / "report.html").write_text("<!doctype html><html lang=en><title>Report</title><h1>Report</h1></html>", encoding="utf-8")
    spec = {"title": "one", "arms": [{"name": "plain base"}, {"name": "adapter-9"}]}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
