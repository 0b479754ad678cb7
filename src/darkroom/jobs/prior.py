"""Pictures of a class, drawn by the base model before anything is learned: what prior preservation keeps (Ruiz et al. 2022, section 3.3).

They lie in the cache, in a folder named by everything they depend on, and are drawn once: a run that is stopped goes on where it was, another one with the
same base and words takes the same pictures, and one that wants more of them draws only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from darkroom.data.archives import holds_shards
from darkroom.data.dataset import Photo, list_pictures, near_folder, read_folder
from darkroom.errors import DatasetError
from darkroom.files import cache_folder, sha256_bytes, write_json
from darkroom.jobs.base import open_base
from darkroom.jobs.generate import draw_files
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Request
from darkroom.train.recipe import Recipe


def class_pictures(recipe: Recipe, watcher: Watcher | None = None, draw: bool = True) -> list[Photo]:
    """The pictures of the class, as many as the recipe wants, their captions its prompt. Draws what is missing; without `draw` gives what is there.

    Raises DatasetError for a folder of one's own that holds too few.
    """
    prior = recipe.data.prior
    if not prior.prompt:
        return []
    if prior.pictures:
        return _own(prior.pictures, prior.prompt, prior.count)
    requests = [_request(recipe, number) for number in range(prior.count)]
    folder = _place(recipe, requests[0])
    files = [folder / f"{number:05d}.png" for number in range(prior.count)]
    missing = [path for path in files if not path.is_file()]
    if missing and not draw:
        return read_some(folder, [path for path in files if path.is_file()], prior.prompt)
    if missing:
        watcher = watcher or Silent()
        watcher.say(f'Drawing {len(missing)} pictures of the class, "{prior.prompt}", into {folder}.')
        write_json(folder.with_suffix(".json"), {"base": recipe.base, "request": requests[0].model_dump(mode="json")})
        draw_files(zip(requests, files, strict=True), recipe.device, recipe.train.precision, watcher, len(files), "drawing the class", resume=True)
    return read_some(folder, files, prior.prompt)


def read_some(folder: Path, files: Sequence[Path], prompt: str) -> list[Photo]:
    """These pictures of the folder."""
    wanted = {path.name for path in files}
    return [photo for photo in read_folder(folder, prompt) if photo.path.name in wanted] if wanted else []


def _own(source: str, prompt: str, count: int) -> list[Photo]:
    shards = read_folder(source, prompt) if holds_shards(source) else []
    found = list_pictures(near_folder(source)) if not shards else []
    if (there := len(shards or found)) < count:
        raise DatasetError(f"{source}: holds {there} pictures, and data.prior.count asks for {count}. Add pictures, or ask for fewer.")
    return shards[:count] or read_some(near_folder(source), found[:count], prompt)


def _request(recipe: Recipe, number: int) -> Request:
    prior, side = recipe.data.prior, recipe.data.resolution
    return Request(prompt=prior.prompt, base=recipe.base, seed=prior.seed + number, steps=prior.steps, guidance=prior.guidance, width=side, height=side)


def _place(recipe: Recipe, first: Request) -> Path:
    """One folder for each base and request; the number of pictures is no part of its name."""
    model = open_base(recipe.base, recipe.device, recipe.train.precision, recipe.base_config)
    told = {**first.model_dump(mode="json", exclude={"base"}), "base": model.hash, "precision": str(model.dtype)}
    return cache_folder() / "classes" / sha256_bytes(json.dumps(told, sort_keys=True).encode())[:24]
