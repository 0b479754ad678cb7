"""What a step is fed: the batch of a number, whatever came before. Every draw depends on (seed, batch or epoch, picture), and caches hold what repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from darkroom.data.buckets import Fit
from darkroom.data.dataset import Photo
from darkroom.device import generator
from darkroom.sampling.denoise import size_ids
from darkroom.sdxl import text
from darkroom.sdxl.model import SDXL
from darkroom.train.cache import caption_text, photo_latents
from darkroom.train.objective import Batch
from darkroom.train.preflight import Plan
from darkroom.train.recipe import Recipe


@dataclass(frozen=True)
class Shown:
    """One picture as a batch shows it."""

    photo: Photo
    fit: Fit
    flipped: bool
    caption: str

    @property
    def ids(self) -> tuple[int, ...]:
        """The true sizes (height, width, top, left, height, width): of the file, of the crop as it was mirrored, of the bucket."""
        fit = self.fit
        left = fit.resized[0] - fit.bucket[0] - fit.left if self.flipped else fit.left
        return (self.photo.height, self.photo.width, fit.top, left, fit.bucket[1], fit.bucket[0])


class Feed:
    """The batches of a run, and the encoded pictures and captions that they are made of."""

    def __init__(self, recipe: Recipe, plan: Plan, model: SDXL) -> None:
        self.recipe, self.plan, self.model = recipe, plan, model
        self._texts: dict[str, text.Text] = {}
        self._latents: dict[tuple[str, Fit, bool], tuple[torch.Tensor, torch.Tensor]] = {}

    def encode_all(self, progress: Callable[[int, int], None]) -> None:
        """Fill the caches (autoencoder and text) before the first step."""
        flips = (False, True) if self.recipe.data.flip else (False,)
        jobs = [(photo, fit, flip) for photo, fit in zip(self.plan.photos, self.plan.fits, strict=True) for flip in flips]
        for done, (photo, fit, flip) in enumerate(jobs, 1):
            self._latent(photo, fit, flip)
            if not self.recipe.method.trains_text:
                self._text(photo.caption)
            progress(done, len(jobs))

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run, on the device."""
        return self.assembled([self._shown(index, number) for index in self.plan.order.batch(number)], self.recipe.train.seed, number)

    def _shown(self, index: int, number: int) -> Shown:
        photo, fit, data = self.plan.photos[index], self.plan.fits[index], self.recipe.data
        dice = torch.rand(2, generator=generator(self.recipe.train.seed, "dice", number, photo.sample))
        return Shown(photo, fit, bool(data.flip and dice[0] < 0.5), "" if dice[1] < data.caption_dropout else photo.caption)

    def assembled(self, shown: Sequence[Shown], seed: int, number: int) -> Batch:
        """The batch of these pictures; the noise of the autoencoder's posterior is drawn by (seed, number, picture)."""
        latents = []
        for each in shown:
            mean, std = self._latent(each.photo, each.fit, each.flipped)
            latents.append(mean + std * torch.randn(mean.shape, generator=generator(seed, "posterior", number, each.photo.sample)))
        device, dtype = self.model.device, self.model.dtype
        found = text.Text.stack([self._text(each.caption) for each in shown]).to(device, dtype)
        # ids stay float32: bfloat16 has no 3025, and the U-Net casts them only after their sinusoids
        ids = size_ids([each.ids for each in shown]).to(device)
        return Batch(torch.stack(latents).to(device), found, ids, torch.ones(len(shown), device=device))

    def _latent(self, photo: Photo, fit: Fit, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        key = (photo.sha256, fit, flipped)
        if key not in self._latents:
            self._latents[key] = photo_latents(self.model, photo, fit, flipped)
        return self._latents[key]

    def _text(self, caption: str) -> text.Text:
        if self.recipe.method.trains_text:
            return text.encode(self.model, [caption])
        if caption not in self._texts:
            self._texts[caption] = caption_text(self.model, caption).to(self.model.device, self.model.dtype)
        return self._texts[caption]
