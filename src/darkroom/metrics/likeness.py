"""Does the picture look like the subject?"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from darkroom.errors import DatasetError
from darkroom.metrics.eye import Eye


class Likeness:
    """CLIP-I: 100 x the mean cosine to the reference pictures (Ruiz et al. 2022, section 4.2)."""

    name = "likeness"
    question = "Does it look like the held-out pictures of the subject?"
    unit = "points of 100"
    higher_is_better = True

    def __init__(self, eye: Eye, references: Sequence[Image.Image] = ()) -> None:
        if not references:
            raise DatasetError("likeness needs pictures of the subject to compare with. Name a folder with --reference, or leave likeness out.")
        self.eye, self.references = eye, eye.see(references)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [float(score) for score in 100 * (self.eye.see(pictures) @ self.references.T).mean(1)]
