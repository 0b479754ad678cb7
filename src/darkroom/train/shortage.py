"""Memory that does not suffice: told before a training and where it ran out in one, with the settings that would make it fit and what each saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from darkroom.errors import RecipeError, RunError
from darkroom.train.forecast import MIB, Forecast, may_round, may_swap, quantise, swap_blocks
from darkroom.train.optimizers import AdamW8bit
from darkroom.train.recipe import Recipe

if TYPE_CHECKING:
    from darkroom.train.crew import Crew

GIB = 1 << 30
ROOM = 1.05
"""A forecast wants this much of the memory: kernels have workspaces, and an allocator has gaps."""


SOME = 8
"""Blocks that are offered for swapping; every U-Net has as many."""


@dataclass(frozen=True)
class Way:
    """A setting that wants less memory."""

    setting: str
    saved: int
    recipe: Recipe

    def __str__(self) -> str:
        return f"{self.setting} (saves {_size(self.saved)})"


def ways_out(recipe: Recipe, now: Forecast) -> list[Way]:
    """The settings that would make it smaller, the largest saving first; each is forecast by itself. Those that save less than 2 % are left out."""
    if now.again is None:
        return []
    found = []
    for setting, other in _others(recipe):
        saved = now.total - now.again(other).total
        if saved > 0.02 * now.total:
            found.append(Way(setting, saved, other))
    return sorted(found, key=lambda way: -way.saved)


def _others(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """One change each."""

    def but(table: str, **values: Any) -> Recipe:
        return recipe.model_copy(update={table: getattr(recipe, table).model_copy(update=values)})

    data, train = recipe.data, recipe.train
    if data.batch_size > 1:
        other = but("data", batch_size=1)
        yield f"data.batch_size = 1 with train.accumulate = {data.batch_size * train.accumulate}", other
    if not train.gradient_checkpointing:
        yield "train.gradient_checkpointing = true", but("train", gradient_checkpointing=True)
    if not may_swap(recipe) and not train.fused:
        yield "train.fused = true", but("train", fused=True)
    if may_round(recipe) and quantise(recipe) == "no":
        yield 'train.quantise = "fp8"', but("train", quantise="fp8")
        yield 'train.quantise = "nf4"', but("train", quantise="nf4")
    if may_swap(recipe) and not swap_blocks(recipe):
        yield f"train.swap_blocks = {SOME}", but("train", swap_blocks=SOME)
    if recipe.optimizer.kind not in ("adamw8bit", "lion8bit", "adafactor"):
        yield 'optimizer.kind = "adamw8bit"', recipe.model_copy(update={"optimizer": AdamW8bit()})


def available(device: torch.device) -> int | None:
    """Bytes of the device that this process has or could get; None where nobody says (a CPU's memory is the whole system's)."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


@dataclass(frozen=True)
class Room:
    """The memory that a training has on the fullest of its devices."""

    size: int | None = None
    """Bytes; None where nobody knows."""
    where: str = ""
    """Which device that is, where there are several."""


def room_for(device: torch.device, crew: Crew, planned: int = 0) -> Room:
    """Of the device of this process; of a crew the least that one of them has; of `planned` processes the least of the cards of this machine that they take.

    Raises RecipeError where a machine has fewer cards than processes are planned, CrewLost.
    """
    if crew.size > 1:
        every = [tuple(json.loads(said)) for said in crew.told(json.dumps([available(device), crew.name]))]
    elif planned > 1 and device.type == "cuda":
        every = [(available(torch.device("cuda", card)), f"cuda:{card}") for card in _cards(planned)]
    else:
        return Room(available(device))
    known = [(size, name) for size, name in every if size is not None]
    return Room(*min(known)) if known else Room()


def _cards(planned: int) -> range:
    if planned > (cards := torch.cuda.device_count()):
        raise RecipeError(f"--processes {planned}: this machine has {cards} GPU{'s' if cards > 1 else ''}, and each process wants its own. Start {cards}.")
    return range(planned)


def shortage(recipe: Recipe, found: Forecast, there: int | None, where: str = "") -> str | None:
    """A warning where `there` bytes are too few for the forecast, with the settings that would make it fit; None where they suffice, or nobody knows.

    `where` names the device, if there are several.
    """
    if there is None or found.total * ROOM <= there:
        return None
    ways = ways_out(recipe, found)
    enough = [way for way in ways if (found.total - way.saved) * ROOM <= there]
    place = f" on {where}" if where else ""
    told = f"Memory will not suffice: about {_size(found.total)} are wanted ({_told(found)}; most while {found.moment}), and {_size(there)} are there{place}."
    if enough:
        return f"{told} It would fit with one of: {'; '.join(map(str, enough))}."
    return f"{told} {_smaller(ways)}"


def out_of_memory(error: BaseException, recipe: Recipe, found: Forecast) -> RunError:
    """What to say of an allocation that failed while training: what was forecast, and what would make it smaller."""
    said = str(error).splitlines()[0].split(" GPU ")[0].rstrip(".")
    return RunError(
        f"The memory ran out ({said}). Forecast were {_size(found.total)}: {_told(found)}; most while {found.moment}. {_smaller(ways_out(recipe, found))} "
        "Other programs on the same device take from it too."
    )


def _smaller(ways: list[Way]) -> str:
    if not ways:
        return "No setting of Darkroom makes it much smaller: take a smaller data.resolution or another device."
    return f"What makes it smaller: {'; '.join(map(str, ways))}. Several of them together save more."


@contextmanager
def memory_in_words(recipe: Recipe, found: Forecast) -> Iterator[None]:
    """Within the block an allocation that fails is a RunError that names the ways out, rather than a traceback."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise out_of_memory(error, recipe, found) from None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's, MPS's, a CPU's."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def _told(found: Forecast) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_size(size)}" for name, size in found.parts.items() if size > 0.005 * found.total)


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
