"""Does the picture look good?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from darkroom.errors import ModelError
from darkroom.metrics.eye import Eye


class Aesthetic:
    """The LAION aesthetic predictor's head on the normalised CLIP embedding; about 1 to 10."""

    name = "aesthetic"
    question = "Does it look clean and good?"
    unit = "points of 10"
    higher_is_better = True

    def __init__(self, eye: Eye, references: Sequence[Image.Image] = ()) -> None:
        if eye.head is None:
            raise ModelError(f"{eye.source}: has no aesthetic.safetensors, so that the aesthetic metric cannot be used with it. Leave it out of `metrics`.")
        self.eye, self.head = eye, eye.head

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        seen = self.eye.see(pictures)
        return [float(score) for score in self.head(seen.to(next(self.head.parameters()).device)).flatten()]
