"""`darkroom dataset encode`: latents and captions of a training, made ahead of it by as many workers as there are. The training then encodes nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.device import Precision
from darkroom.errors import ModelError
from darkroom.files import cache_folder, write_bytes
from darkroom.jobs.base import open_base
from darkroom.jobs.engine import Engine, Local, Work
from darkroom.jobs.watch import Silent, Watcher
from darkroom.places import shared

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL
    from darkroom.train.feed import Shown
    from darkroom.train.recipe import Recipe


@dataclass(frozen=True)
class Encoding(Work["Shown | str", tuple[str, bytes]]):
    """The model that encodes. A picture as a batch shows it, or a caption, becomes the file that the cache keeps of it: its name and its bytes."""

    base: str
    device: str
    precision: Precision
    config: str
    memory: str
    share: int = 4
    """Of few pictures: the latents of one at 1024 pixels are half a megabyte."""
    holds: bool = True

    def open(self) -> Callable[[Sequence[Shown | str]], Sequence[tuple[str, bytes]]]:
        """Raises ModelError."""
        model = open_base(self.base, self.device, self.precision, self.config, "model" if self.memory == "model" else "full")
        return lambda wanted: [_encoded(model, one) for one in wanted]


def encode(recipe: Recipe, watcher: Watcher | None = None, engine: Engine | None = None) -> dict[str, Any]:
    """Fill the cache with what a training by this recipe will read. Nothing is trained; what is there already is not made again.

    One picture, one caption at a time, as a training does it: whoever encodes them, the bytes are the same. Raises whatever the preflight of the training
    raises, DatasetError where workers do not see the pictures, ModelError where they have another model, OutputError.
    """
    from darkroom.jobs.train import here, prepare
    from darkroom.train.feed import Feed

    watcher, engine, begun = watcher or Silent(), engine or Local(), time.perf_counter()
    recipe = here(recipe, watcher)
    model, plan = prepare(recipe, watcher)
    if Path(recipe.data.images).is_dir():
        engine.reaches(Path(recipe.data.images))
    shown, captions = Feed(recipe, plan, model, None).wanted(0, plan.steps * recipe.train.accumulate)
    wanted: list[Shown | str] = [*captions, *shown]
    places = {_place(model, one): one for one in wanted}
    shared.bring(places)
    new = {place: one for place, one in places.items() if not place.is_file()}
    small = recipe.train.quantise != "no" or recipe.train.swap_blocks > 0
    work = Encoding(recipe.base, model.device.type, recipe.train.precision, recipe.base_config, "model" if small else "full")
    for done, (place, (name, data)) in enumerate(zip(new, engine.each(work, map(_bare, new.values())), strict=True), 1):
        if name != place.name:
            raise ModelError(f"{recipe.base}: a worker has other weights under this name than this machine, or another precision. Give all of them one model.")
        write_bytes(place, data)
        shared.offer(place)
        watcher.move("encoding", done, len(new))
    texts = sum(isinstance(one, str) for one in new.values())
    return {
        "pictures": len(new) - texts, "captions": texts, "known": len(places) - len(new), "cache": str(cache_folder() / "encoded"),
        "bytes": sum(place.stat().st_size for place in new), "seconds": round(time.perf_counter() - begun, 2),
    }  # fmt: skip


def encode_lines(found: dict[str, Any]) -> list[str]:
    """What was done, for a terminal."""
    return [
        f"{found['pictures']} pictures and {found['captions']} captions encoded in {found['seconds']:g} s ({found['bytes'] / 2**20:.1f} MiB); "
        f"{found['known']} were there already",
        f"A training by this recipe reads them from {found['cache']}, and encodes nothing.",
    ]


def _bare(wanted: Shown | str) -> Shown | str:
    """Without what an encoding does not depend on: it travels."""
    return wanted if isinstance(wanted, str) else dataclasses.replace(wanted, photo=dataclasses.replace(wanted.photo, captions={}))


def _place(model: SDXL, wanted: Shown | str) -> Path:
    from darkroom.train.cache import latents_place, text_place

    return text_place(model, wanted) if isinstance(wanted, str) else latents_place(model, wanted.photo, wanted.fit, wanted.flipped)


def _encoded(model: SDXL, wanted: Shown | str) -> tuple[str, bytes]:
    from safetensors.torch import save

    from darkroom.train.cache import encoded_caption, encoded_photo

    made = encoded_caption(model, wanted) if isinstance(wanted, str) else encoded_photo(model, wanted.cut(wanted.photo.read()))
    return _place(model, wanted).name, save({key: value.contiguous() for key, value in made.items()})
