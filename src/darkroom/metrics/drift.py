"""Has the class moved, where nobody named the subject?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from darkroom.errors import DatasetError
from darkroom.metrics.diversity import apart
from darkroom.metrics.given import Given, pictures_key
from darkroom.metrics.memory import stamp

SAME = 1 - 1e-6  # cosine: the very same picture, drawn again


class Drift:
    """Prior drift: 100 x (the mean cosine distance to the bare base's pictures of the same prompt - those pictures' own mean distance from each other).

    0 on average where nothing moved, however diverse the base is: the energy distance's first two terms (Székely & Rizzo 2013, eq. 2) for one picture. A base
    picture that is the very same one counts not, so that a model that changed nothing drifts by 0. NaN for a prompt that the base did not draw.
    Meant for prompts of the class without the trigger ("a cat", not "a TOK cat"): with the trigger, moving is the purpose.
    """

    name = "drift"
    question = "Has what it draws without the trigger moved away from the base's own pictures?"
    unit = "points of 100"
    higher_is_better = False
    per = "picture"
    prompted = True
    blank = "the base did not draw their prompts"

    def __init__(self, given: Given) -> None:
        if len(given.base) < 2:
            raise DatasetError(
                f"drift needs pictures that the bare base drew, without the trigger, and there are {len(given.base)}: name a folder with --base-pictures, "
                "two pictures of a prompt or more, or leave drift out."
            )
        if given.base_prompts and len(given.base_prompts) != len(given.base):
            raise DatasetError(f"{len(given.base_prompts)} prompts for {len(given.base)} pictures of the base: name one for each.")
        self.prompted = bool(given.base_prompts)
        self.eye = given.looking(self.name)
        self.base = self.eye.see(given.base).double()
        self.of: dict[str, list[int]] = {}
        for i, prompt in enumerate(given.base_prompts):
            self.of.setdefault(prompt, []).append(i)
        self.floors = {prompt: float(apart(self.base[members]).mean()) for prompt, members in self.of.items() if len(members) > 1}
        if self.of and not self.floors:
            raise DatasetError(
                "drift needs two pictures of some prompt by the bare base, to know how far its own pictures are from each other: draw more seeds."
            )
        self.key = stamp(self.name, self.eye.key, pictures_key(given.base), *given.base_prompts)

    def __call__(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One score for each picture."""
        return [self._moved(seen, prompt) for seen, prompt in zip(self.eye.see(pictures).double(), prompts, strict=True)]

    def _moved(self, seen: torch.Tensor, prompt: str) -> float:
        members = self.of.get(prompt, []) if self.of else list(range(len(self.base)))
        near = self.base[members] @ seen
        others = near[near < SAME]
        if not len(others):
            return 0.0 if members else float("nan")
        return 100 * (1 - float(others.mean())) - self._floor(prompt)

    def _floor(self, prompt: str) -> float:
        """How far the base's own pictures are from each other; of a prompt with one picture, the mean over the other prompts."""
        if not self.of:
            return float(apart(self.base).mean())
        return self.floors.get(prompt, sum(self.floors.values()) / len(self.floors))
