"""What metrics are given: pictures to compare with, the eye to look through, and files of other models. Each metric takes what it needs of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from PIL import Image

from darkroom.errors import DatasetError, ModelError
from darkroom.metrics.eye import Eye
from darkroom.metrics.memory import Memory, Recent, pixels_key, stamp


@dataclass(frozen=True)
class Given:
    """What there is to score with. `Given(eye, references)` is enough for most; a metric that lacks something says what, as DatasetError or ModelError."""

    eye: Eye | None = None
    """A CLIP: for clip, aesthetic, likeness, diversity, drift."""
    references: Sequence[Image.Image] = ()
    """Held-out pictures of the subject: for likeness, dino, imagenet."""
    training: Sequence[Image.Image] = ()
    """The pictures that were learned from: for copying."""
    base: Sequence[Image.Image] = ()
    """What the bare base draws, without the trigger: for drift."""
    base_prompts: Sequence[str] = ()
    """Their prompts in the same order, said as the scored pictures' are; none: they are compared with every picture."""
    models: Mapping[str, str] = field(default_factory=dict)
    """By metric: a file, folder or hub id of its model, where it has one of its own."""
    device: torch.device | str = "cpu"
    memory: Memory = field(default_factory=Recent)
    """Where features of other networks than the eye are remembered; the eye has its own."""

    def looking(self, metric: str) -> Eye:
        """The eye. Raises ModelError where there is none."""
        if self.eye is None:
            raise ModelError(f"{metric} looks through a CLIP: name one with --scorer, or leave {metric} out.")
        return self.eye

    def subject(self, metric: str) -> Sequence[Image.Image]:
        """The held-out pictures. Raises DatasetError where there are none."""
        if not self.references:
            raise DatasetError(f"{metric} needs pictures of the subject to compare with. Name a folder with --reference, or leave {metric} out.")
        return self.references


class Metric(Protocol):
    """One question asked of pictures. Adding one is one file and one word in `METRICS`."""

    name: str
    question: str
    unit: str
    higher_is_better: bool
    per: str
    """ "picture": its score depends on the picture and its prompt alone. "prompt": on the other pictures of its prompt too, so that all of them, of one arm or
    folder and no other, must be given at once."""
    prompted: bool
    """Whether the score depends on the prompt, so that a picture without one has none."""
    blank: str
    """Of which pictures it answers NaN, as in "they are of one colour"; empty: of none, and NaN is a fault."""
    key: str
    """A hash of everything else its scores depend on: weights, references, options."""

    def __init__(self, given: Given) -> None: ...

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture; NaN where the question cannot be asked of it."""
        ...


def pictures_key(pictures: Iterable[Image.Image]) -> str:
    """A hash over pictures, in their order."""
    return stamp(*(pixels_key(picture) for picture in pictures))
