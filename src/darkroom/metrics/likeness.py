"""Does the picture look like the subject?"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from darkroom.metrics.given import Given, pictures_key
from darkroom.metrics.memory import stamp


class Likeness:
    """CLIP-I: 100 x the mean cosine to the reference pictures (Ruiz et al. 2022, section 4.2)."""

    name = "likeness"
    question = "Does it look like the held-out pictures of the subject?"
    unit = "points of 100"
    higher_is_better = True
    per = "picture"
    prompted = False
    blank = ""

    def __init__(self, given: Given) -> None:
        references = given.subject(self.name)
        self.eye = given.looking(self.name)
        self.references = self.eye.see(references)
        self.key = stamp(self.name, self.eye.key, pictures_key(references))

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [float(score) for score in 100 * (self.eye.see(pictures) @ self.references.T).mean(1)]
