"""What a step is fed: the batch of a number, whatever came before. Every draw depends on (seed, batch or epoch, picture), and caches hold what repeats."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from PIL import Image

from darkroom.data.ahead import ahead, in_order_of_shards, stretch
from darkroom.data.buckets import Fit, fit
from darkroom.data.crops import cropped
from darkroom.data.dataset import Photo
from darkroom.data.masks import mask_weights
from darkroom.data.wording import framed, worded
from darkroom.device import generator
from darkroom.methods import ControlNet
from darkroom.methods.attached import Attached
from darkroom.places import shared
from darkroom.sampling.denoise import size_ids
from darkroom.sdxl import text
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.reader import encode_caption
from darkroom.train.cache import Kept, caption_text, cut, latents_kept, latents_place, photo_latents
from darkroom.train.condition import condition
from darkroom.train.crew import Crew
from darkroom.train.objective import Batch
from darkroom.train.preflight import Plan
from darkroom.train.recipe import Recipe
from darkroom.train.swap import lodged
from darkroom.values import seed_for

MOST_VARIANTS = 16
"""Captions to a picture that are encoded beforehand and kept; beyond that (shuffled tags) they are encoded as they come."""


@dataclass(frozen=True)
class Shown:
    """One picture as a batch shows it."""

    photo: Photo
    fit: Fit
    flipped: bool
    caption: str
    weight: float = 1.0
    prior: bool = False
    """Whether it is a picture of the class."""

    def cut(self, picture: Image.Image) -> Image.Image:
        """A picture of the photo's size as the batch shows the photo."""
        return cut(picture, self.fit, self.flipped)

    @property
    def ids(self) -> tuple[int, ...]:
        """The true sizes (height, width, top, left, height, width): of the file, of the crop as it was mirrored, of the bucket."""
        fit = self.fit
        left = fit.resized[0] - fit.bucket[0] - fit.left if self.flipped else fit.left
        return (self.photo.height, self.photo.width, fit.top, left, fit.bucket[1], fit.bucket[0])


class Feed:
    """The batches of a run, and the encoded pictures and captions that they are made of. With nothing attached it tells what is wanted, and no more."""

    def __init__(self, recipe: Recipe, plan: Plan, model: SDXL, attached: Attached | None) -> None:
        self.recipe, self.plan, self.model, self.attached = recipe, plan, model, attached
        self._trigger = recipe.inversion.word if recipe.inversion else recipe.trigger
        self.cached: set[str] = set()
        self._texts: Kept[text.Text] = Kept(lambda found: found.states.nbytes + found.pooled.nbytes)
        self._latents: Kept[tuple[torch.Tensor, torch.Tensor]] = Kept(lambda found: found[0].nbytes * 2)
        self._pictures: Kept[torch.Tensor] = Kept(lambda found: found.nbytes)
        self._masks: Kept[torch.Tensor] = Kept(lambda found: found.nbytes)

    def encode_all(self, start: int, stop: int, progress: Callable[[int, int], None], crew: Crew | None = None) -> None:
        """Encode what batches `start` to `stop` - 1 will show, before the first of them. Captions of which there are too many wait until they are shown.

        Of several processes each encodes its share, and finds those of the others in the cache. Pictures are read ahead, and shards from front to back.
        """
        crew = crew or Crew()
        shown, captions = self.wanted(start, stop)
        texts = crew.share(captions)
        mine = stretch(in_order_of_shards(shown, _photo), crew.rank, crew.size)
        for done, caption in enumerate(texts, 1):
            self._text(caption)
            progress(done, len(texts) + len(mine))
        for done, (each, picture) in enumerate(self._read(mine), len(texts) + 1):
            self._latent(each, picture)
            progress(done, len(texts) + len(mine))
        crew.wait()

    def wanted(self, start: int, stop: int) -> tuple[list[Shown], list[str]]:
        """What batches `start` to `stop` - 1 will show, and the held-out pictures, each once; and the captions of both that are encoded beforehand."""
        wanted, captions = {}, set()
        for number in range(start, stop):
            for each in self.shown(number):
                wanted[each.photo.sha256, each.fit, each.flipped] = each
                captions.add(each.caption)
        held = [held_out_shown(self.recipe, photo, fit) for photo, fit in zip(self.plan.held_out, self.plan.held_fits, strict=True)]
        for each in held:
            wanted[each.photo.sha256, each.fit, each.flipped] = each
        few = captions if len(captions) <= MOST_VARIANTS * len(self.plan.photos) else set()
        self.cached = few | {each.caption for each in held}
        return list(wanted.values()), [] if self.recipe.method.trains_text else sorted(self.cached)

    def _read(self, shown: Sequence[Shown]) -> Iterator[tuple[Shown, Image.Image | None]]:
        """What is to be encoded, with its picture read ahead; first those whose latents are kept, which needs none."""
        kept, new = list[Shown](), list[Shown]()
        shared.bring(latents_place(self.model, each.photo, each.fit, each.flipped) for each in shown)
        for each in shown:
            (kept if latents_kept(self.model, each.photo, each.fit, each.flipped) else new).append(each)
        yield from ((each, None) for each in kept)
        yield from ahead(new, _photo, Shown.cut)

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run, on the device."""
        return self.assembled(self.shown(number), self.recipe.train.seed, number)

    def shown(self, number: int) -> list[Shown]:
        """What batch `number` shows, pictures of the class behind the subject's: nothing is encoded."""
        own = [self._shown(index, number) for index in self.plan.order.batch(number)]
        return own + self._classes(own, number) if self.plan.classes else own

    def _classes(self, own: Sequence[Shown], number: int) -> list[Shown]:
        """A picture of the class for each of the subject's, cut to its bucket, in an order that goes round all of them."""
        data, photos, found = self.recipe.data, self.plan.classes, list[Shown]()
        for place, beside in enumerate(own, number * data.batch_size):
            photo = photos[_shuffled(len(photos), self.recipe.train.seed, place // len(photos))[place % len(photos)]]
            again = sum(each.photo.sha256 == photo.sha256 for each in found)
            photo = replace(photo, sample=f"class {photo.sha256}" + (f"#{again + 1}" if again else ""))
            dice = torch.rand(1, generator=generator(self.recipe.train.seed, "dice", number, photo.sample))
            cut = fit(photo.width, photo.height, [beside.fit.bucket])
            found.append(Shown(photo, cut, bool(data.flip and dice[0] < 0.5), data.prior.prompt, data.prior.weight, prior=True))
        return found

    def _shown(self, index: int, number: int) -> Shown:
        photo, data, seed = self.plan.photos[index], self.recipe.data, self.recipe.train.seed
        epoch = number // self.plan.order.batches_per_epoch
        dice = torch.rand(2, generator=generator(seed, "dice", number, photo.sample))
        caption = worded(photo.captions, photo.caption, data.wording, seed, epoch, photo.sample, self._trigger)
        fit = cropped(self.plan.fits[index], data.crop, photo.focus, seed, epoch, photo.sample, self.model.pixel_factor)
        return Shown(photo, fit, bool(data.flip and dice[0] < 0.5), caption)

    def assembled(self, shown: Sequence[Shown], seed: int, number: int) -> Batch:
        """The batch of these pictures; the noise of the autoencoder's posterior is drawn by (seed, number, picture)."""
        latents = []
        for each in shown:
            mean, std = self._latent(each)
            latents.append(mean + std * torch.randn(mean.shape, generator=generator(seed, "posterior", number, each.photo.sample)))
        device, dtype = self.model.device, self.model.dtype
        said = {caption: self._text(caption) for caption in dict.fromkeys(each.caption for each in shown)}
        found = text.Text.stack([said[each.caption] for each in shown]).to(device, dtype)
        # ids stay float32: bfloat16 has no 3025, and the U-Net casts them only after their sinusoids
        ids = size_ids([self._ids(each) for each in shown]).to(device)
        return Batch(
            torch.stack(latents).to(device),
            found,
            ids,
            torch.tensor([each.weight for each in shown], device=device),
            self._mask_of(shown, device),
            self._conditions(shown, device),
        )

    def _ids(self, each: Shown) -> tuple[float, ...]:
        """A refiner is told an aesthetic score in place of the size that is drawn (Podell et al. 2023, section 2.5)."""
        return each.ids if self.model.tokenizer is not None else (*each.ids[:4], self.recipe.data.aesthetic)

    def _latent(self, each: Shown, picture: Image.Image | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        key = (each.photo.sha256, each.fit, each.flipped)
        return self._latents.get(key, lambda: photo_latents(self.model, each.photo, each.fit, each.flipped, picture))

    def _conditions(self, shown: Sequence[Shown], device: torch.device) -> torch.Tensor | None:
        """(B, 3, H, W) from 0 to 1: what a ControlNet reads beside each picture; None where none is learned."""
        if not isinstance(self.recipe.method, ControlNet):
            return None
        read = partial(condition, self.recipe.method)
        found = [self._pictures.get((each.photo.sha256, each.fit, each.flipped), partial(read, each.photo, each.cut, self.model.device)) for each in shown]
        return torch.stack(found).to(device)

    def _mask_of(self, shown: Sequence[Shown], device: torch.device) -> torch.Tensor | None:
        """(B, 1, h, w), ones for a picture without a mask; None where no picture of the batch has one."""
        if not any(each.photo.mask for each in shown):
            return None
        return torch.stack([self._masks.get((each.photo.mask, each.fit, each.flipped), partial(self._mask, each)) for each in shown]).to(device)

    def _mask(self, each: Shown) -> torch.Tensor:
        factor, (width, height) = self.model.pixel_factor, each.fit.bucket
        if each.photo.mask is None:
            return torch.ones(1, height // factor, width // factor)
        return torch.from_numpy(mask_weights(each.photo.mask, each.fit, each.flipped, factor))[None]

    def _text(self, caption: str) -> text.Text:
        if self.recipe.method.trains_text:
            assert self.attached is not None, "a feed without anything attached only tells what is wanted"
            return encode_caption(self.attached.learning(self.model), caption, self.attached.words)
        return self._texts.get(caption, lambda: self._encoded(caption))

    def _encoded(self, caption: str) -> text.Text:
        if caption in self.cached:
            return caption_text(self.model, caption).to(self.model.device, self.model.dtype)
        with torch.no_grad(), lodged(self.model, "text_encoder", "text_encoder_2"):
            return text.encode(self.model, [caption])


def held_out_shown(recipe: Recipe, photo: Photo, fit: Fit) -> Shown:
    """A held-out picture as its loss is measured: never mirrored, and called as it is whatever the wording draws."""
    return Shown(photo, fit, False, framed(photo.caption, recipe.data.wording.prefix, recipe.data.wording.suffix))


def _photo(shown: Shown) -> Photo:
    return shown.photo


@lru_cache(maxsize=8)
def _shuffled(count: int, seed: int, cycle: int) -> list[int]:
    order = list(range(count))
    random.Random(seed_for(seed, "classes", cycle)).shuffle(order)
    return order
