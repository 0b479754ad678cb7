"""Pictures as they look now, under what is being learned: by the very sampler of `generate`, each with its request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom import pocket
from darkroom.methods import ControlNet
from darkroom.sampling.request import Control, Refine, Request
from darkroom.train.recipe import Recipe

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.data.dataset import Photo
    from darkroom.methods.attached import Attached
    from darkroom.sdxl.model import SDXL


@dataclass
class Previews:
    """What a run draws of itself, always with the same noise."""

    recipe: Recipe
    model: SDXL
    attached: Attached
    product: Path
    photo: Photo
    """The picture whose edges, depth or colours a ControlNet follows."""
    _beginner: SDXL | None = field(default=None, init=False)

    @property
    def prompts(self) -> tuple[str, ...]:
        """What is drawn each time; nothing of a refiner that has no base to begin with."""
        if self.model.tokenizer is None and not self.recipe.preview.base:
            return ()
        return self.recipe.preview.prompts or (self.recipe.template,)

    def draw(self) -> Iterator[tuple[Image.Image, Request]]:
        """One picture after another, each with its completed request."""
        from darkroom.sampling.draw import Kit, complete, draw

        if not self.prompts:
            return
        own = replace(self.model, scheduler_config=self.recipe.objective.drawn_with(self.model.scheduler_config))
        refines = self.model.tokenizer is None
        kit = Kit(self._base() if refines else own, own if refines else None, **self.attached.drawing())
        for index, prompt in enumerate(self.prompts):
            whole = complete(kit.model, self.request(index, prompt))
            yield draw(kit, whole), whole

    def request(self, index: int, prompt: str) -> Request:
        """What preview `index` is asked to be."""
        recipe, preview, method = self.recipe, self.recipe.preview, self.recipe.method
        asked = Request(prompt=prompt, base=recipe.base, seed=preview.seed + index, steps=preview.steps, guidance=preview.guidance)
        if self.model.tokenizer is None:
            return asked.model_copy(update={"base": preview.base, "refiner": Refine(model=recipe.base)})
        if isinstance(method, ControlNet):
            from darkroom.data.member import as_file
            from darkroom.train.condition import pair

            image = pair(method, self.photo) if method.pairs else as_file(self.photo.path)
            return asked.model_copy(update={"controls": (Control(model=str(self.product), image=str(image), prepare=method.condition),)})
        return asked

    def _base(self) -> SDXL:
        """The model that begins what a refiner ends, beside which it shares its text encoder and autoencoder."""
        from darkroom.sdxl.model import load

        if self._beginner is None:
            self._beginner = load(pocket.resolve(self.recipe.preview.base), self.model.device, self.model.dtype, share=self.model)
        return self._beginner
