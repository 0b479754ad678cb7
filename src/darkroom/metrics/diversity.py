"""Do pictures of one prompt differ from each other?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from darkroom.metrics.given import Given
from darkroom.metrics.memory import stamp


class Diversity:
    """100 x the mean cosine distance to the other pictures of the same prompt (as DIV of Ruiz et al. 2022, section 4.3, with CLIP for LPIPS).

    The mean over the pictures of a prompt is its mean pairwise distance. NaN for a picture that is alone with its prompt.
    """

    name = "diversity"
    question = "Do the pictures of one prompt differ from each other?"
    unit = "points of 100"
    higher_is_better = True
    per = "prompt"
    prompted = True
    blank = "they are alone with their prompt"

    def __init__(self, given: Given) -> None:
        self.eye = given.looking(self.name)
        self.key = stamp(self.name, self.eye.key)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture. All pictures of a prompt must be there, and none of another arm."""
        seen = self.eye.see(pictures).double()
        scores = [float("nan")] * len(pictures)
        for prompt in dict.fromkeys(prompts):
            members = [i for i, other in enumerate(prompts) if other == prompt]
            if len(members) > 1:
                for i, score in zip(members, apart(seen[members]), strict=True):
                    scores[i] = float(score)
        return scores


def apart(seen: torch.Tensor) -> torch.Tensor:
    """(n, d) unit vectors -> (n,) 100 x the mean cosine distance to the n - 1 others."""
    near = seen @ seen.T
    return 100 * (1 - (near.sum(1) - near.diagonal()) / (len(seen) - 1))
