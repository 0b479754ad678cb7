"""The loss on pictures that are not learned from, always with the same noise: comparable from step to step and between runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from darkroom.data.buckets import Fit
from darkroom.data.dataset import Photo
from darkroom.device import generator
from darkroom.train.feed import held_out_shown

if TYPE_CHECKING:
    from darkroom.train.loop import Trainer

SEED = 0  # not the recipe's: two runs with other seeds are measured with the same noise


@torch.no_grad()
def held_out_loss(trainer: Trainer) -> float:
    """The mean squared error of the prediction over all held-out pictures, unweighted, at `validation.draws` timesteps of each.

    The timesteps are stratified: one from each of `draws` equal parts of the schedule, so that few of them say much (a plain mean over random timesteps
    is mostly the noise of which were drawn). Noise and timesteps are functions of the picture alone.
    """
    plan = trainer.plan
    losses = [loss for photo, fit in zip(plan.held_out, plan.held_fits, strict=True) for loss in _losses(trainer, photo, fit)]
    return sum(losses) / len(losses)


def _losses(trainer: Trainer, photo: Photo, fit: Fit) -> Iterator[float]:
    draws, most, shown = trainer.recipe.validation.draws, trainer.recipe.data.batch_size, held_out_shown(trainer.recipe, photo, fit)
    for first in range(0, draws, most):
        numbers = range(first, min(first + most, draws))
        batch = trainer.feed.assembled([shown] * len(numbers), SEED, 0)
        dice = [generator(SEED, "validation", number, photo.sample) for number in numbers]
        noise = torch.stack([torch.randn(batch.latents.shape[1:], generator=each) for each in dice]).to(batch.latents)
        parts = torch.tensor([(number + float(torch.rand((), generator=each))) / draws for number, each in zip(numbers, dice, strict=True)])
        t = (parts * trainer.schedule.length).long()
        error = (
            trainer.predict(trainer.schedule.add_noise(batch.latents, noise, t), t, batch).float() - trainer.schedule.target(batch.latents, noise, t).float()
        )
        yield from error.square().flatten(1).mean(1).tolist()
