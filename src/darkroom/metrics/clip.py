"""Does the picture show what the prompt says?"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from darkroom.metrics.given import Given
from darkroom.metrics.memory import stamp


class ClipScore:
    """100 x the cosine of picture and prompt, not below 0 (Hessel et al. 2021, eq. 1 with w = 100, as torchmetrics prints it)."""

    name = "clip"
    question = "Does it show what the prompt says?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = True
    blank = ""

    def __init__(self, given: Given) -> None:
        self.eye = given.looking(self.name)
        self.key = stamp(self.name, self.eye.key)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        unique = sorted(set(prompts))
        said = dict(zip(unique, self.eye.read(unique), strict=True))
        return [max(0.0, 100 * float(seen @ said[prompt])) for seen, prompt in zip(self.eye.see(pictures), prompts, strict=True)]
