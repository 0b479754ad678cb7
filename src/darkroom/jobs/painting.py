"""Pictures as a worker draws them: models and adapters that are held, a batch of requests at a time, and PNGs as bytes. Whoever asks writes the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.device import Precision
from darkroom.jobs.base import Easel, open_base
from darkroom.jobs.engine import Work
from darkroom.sampling.request import Request, png_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from darkroom.sampling.memo import Memo
    from darkroom.sampling.memory import Memory
    from darkroom.sampling.peek import Previews


@dataclass(frozen=True)
class Group:
    """Requests that differ in their seeds alone, drawn at once."""

    requests: tuple[Request, ...]
    there: tuple[Request | None, ...]
    """What each one's file was drawn from, where it is there and may stay."""
    first: Path
    """Where the first picture goes."""

    def __str__(self) -> str:
        return f"{self.first} and {len(self.requests) - 1} more" if len(self.requests) > 1 else str(self.first)


Drawn = tuple[bytes | None, ...]
"""A PNG for each request, None for one whose file is what it would be."""


@dataclass(frozen=True)
class Painting(Work[Group, Drawn]):
    """How models are opened."""

    device: str
    precision: Precision
    memory: Memory
    here: Painter | None = field(default=None, repr=False)
    """The asking process's own, which no other process gets."""
    share: int = 1
    holds: bool = True

    def open(self) -> Callable[[Sequence[Group]], Sequence[Drawn]]:
        """Models are opened as requests want them."""
        return self.here or Painter(Easel(self.device, self.precision, self.memory))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}


@dataclass(frozen=True)
class Sizing(Work[str, tuple[int, int]]):
    """Resolution and pixels a latent of bases, told by those who will draw with them."""

    device: str
    precision: Precision
    memory: Memory
    share: int = 1
    holds: bool = True

    def open(self) -> Callable[[Sequence[str]], Sequence[tuple[int, int]]]:
        """Each base is opened, and kept for the drawing."""
        return lambda bases: [
            (model.resolution, model.pixel_factor) for model in (open_base(base, self.device, self.precision, memory=self.memory) for base in bases)
        ]


class Painter:
    """Draws groups, one after the other, on one easel."""

    def __init__(self, easel: Easel, memo: Memo | None = None, previews: Previews | None = None) -> None:
        self.easel, self.memo, self.previews = easel, memo, previews

    def __call__(self, groups: Sequence[Group]) -> list[Drawn]:
        """Raises a DarkroomError."""
        return [self._drawn(group) for group in groups]

    def __del__(self) -> None:
        self.easel.__exit__()  # a worker's model outlives its work: adapters are taken off

    def _drawn(self, group: Group) -> Drawn:
        from darkroom.sampling.draw import draw_batch

        kit, first = self.easel.kit(group.requests[0])
        kit.memo = self.memo
        kit.peek = self.previews.watch(kit.model, group.first) if self.previews else None
        wholes = [first.model_copy(update={"seed": request.seed}) for request in group.requests]
        wanted = [whole for whole, there in zip(wholes, group.there, strict=True) if whole != there]
        pictures = iter(draw_batch(kit, wanted) if wanted else ())
        return tuple(png_bytes(next(pictures), whole) if whole != there else None for whole, there in zip(wholes, group.there, strict=True))
