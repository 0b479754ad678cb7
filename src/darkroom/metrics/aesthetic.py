"""Does the picture look good?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from darkroom.metrics.given import Given
from darkroom.metrics.heads import find_head
from darkroom.metrics.memory import stamp, weights_key


class Aesthetic:
    """A LAION aesthetic head on the normalised CLIP embedding; about 1 to 10.

    The head is `given.models["aesthetic"]` (a file or hub id/file), else the one that lies beside the eye, else, for OpenAI's ViT-L/14, the published one.
    """

    name = "aesthetic"
    question = "Does it look clean and good?"
    unit = "points of 10"
    higher_is_better = True
    per = "picture"
    prompted = False
    blank = ""

    def __init__(self, given: Given) -> None:
        self.eye = given.looking(self.name)
        self.head = find_head(self.eye, given.models.get(self.name, ""))
        self.key = stamp(self.name, self.eye.key, weights_key(self.head))

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        seen = self.eye.see(pictures)
        return [float(score) for score in self.head(seen.to(next(self.head.parameters()).device)).flatten()]
