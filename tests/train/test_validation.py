"""The held-out loss: the same noise whatever the run, and a figure that learning moves. And epochs that show a picture several times."""

from __future__ import annotations

import shutil

import pytest
import torch

from darkroom import pocket
from darkroom.data.adopt import adopt
from darkroom.device import generator
from darkroom.errors import DatasetError
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.train.feed import Shown
from darkroom.train.loop import Trainer
from darkroom.train.validation import held_out_loss


@pytest.fixture
def held(quick, tmp_path):
    """The cats learned from, and the demo's three others held out."""
    folder = tmp_path / "held"
    folder.mkdir()
    for picture in (pocket.CATS / "held_out").glob("*.png"):
        shutil.copy(picture, folder)
    validation = quick.validation.model_copy(update={"pictures": str(folder), "every": quick.train.save_every, "draws": 3})
    return quick.model_copy(update={"validation": validation})


def trained(recipe, **train):
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=train)})


def first_loss(recipe):
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, recipe.train.seed)
    try:
        return held_out_loss(Trainer(recipe, plan, model, attached))
    finally:
        attached.detach()


def test_it_is_the_plain_error_at_stratified_timesteps(held, model):
    """Against the equation written out with diffusers' own scheduler: mean of ||noise - prediction||^2 over pictures and thirds of the schedule."""
    from diffusers import DDPMScheduler

    noisy = DDPMScheduler.from_config(model.scheduler_config)
    _, plan = prepare(held)
    attached = held.method.attach(model, 0)
    errors = []
    try:
        trainer = Trainer(held, plan, model, attached)
        with torch.no_grad():
            for photo, fit in zip(plan.held_out, plan.held_fits, strict=True):
                mean, std = trainer.feed._latent(Shown(photo, fit, False, photo.caption))
                for third in range(3):
                    x = mean + std * torch.randn(mean.shape, generator=generator(0, "posterior", 0, photo.sample))
                    dice = generator(0, "validation", third, photo.sample)
                    noise = torch.randn(x.shape, generator=dice)
                    t = torch.tensor([int((third + float(torch.rand((), generator=dice))) / 3 * 1000)])
                    assert third * 1000 / 3 <= t < (third + 1) * 1000 / 3
                    words = trainer.feed._text(photo.caption)
                    ids = torch.tensor([[photo.height, photo.width, fit.top, fit.left, 64, 64]], dtype=torch.float32)
                    extra = {"text_embeds": words.pooled, "time_ids": ids}
                    said = model.unet(noisy.add_noise(x[None], noise[None], t), t, words.states, added_cond_kwargs=extra).sample
                    errors.append(float((said - noise[None]).square().mean()))
        assert held_out_loss(trainer) == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    finally:
        attached.detach()


def test_two_runs_are_measured_with_the_same_noise(held):
    loss = first_loss(held)
    assert first_loss(trained(held, seed=7)) == loss, "a fresh adapter changes nothing, and the seed is not the recipe's"


def test_it_is_logged_and_goes_on_exactly(held, tmp_path):
    run = run_training(held, tmp_path / "whole")
    logged = {row["step"]: row["validation"] for row in run.read_log() if "validation" in row}
    assert sorted(logged) == [0, 2, 4, 6]
    assert len({round(value, 9) for value in logged.values()}) == 4, "the steps move it"
    assert run.facts["preflight"]["held_out"] == len(run.facts["held_out"]) == 3
    shutil.copytree(run.folder, tmp_path / "cut")
    (tmp_path / "cut" / "adapter.safetensors").unlink()
    shutil.rmtree(tmp_path / "cut" / "steps" / "000006")
    resumed = resume_training(tmp_path / "cut")
    assert {row["step"]: row["validation"] for row in resumed.read_log() if "validation" in row} == logged


def test_a_picture_of_the_training_is_refused(held, quick):
    leaked = held.model_copy(update={"validation": held.validation.model_copy(update={"pictures": quick.data.images})})
    with pytest.raises(DatasetError, match="cannot be held out"):
        prepare(leaked)


def test_repeats_are_samples_with_draws_of_their_own(quick, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(quick.data.images, folder)
    manifest, _ = adopt(folder)
    manifest.but([row.but(repeats=3 if index == 0 else 1) for index, row in enumerate(manifest.rows)]).save()
    recipe = quick.model_copy(update={"data": quick.data.model_copy(update={"images": str(folder), "batch_size": 8})})
    model, plan = prepare(recipe)
    assert (plan.facts["pictures"], plan.facts["samples"]) == (6, 8)
    first = [number for number, photo in enumerate(plan.photos) if photo.path.name == manifest.rows[0].file]
    assert len({plan.photos[number].sample for number in first}) == 3
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        assert sorted(plan.order.batch(0)) == list(range(8))
        noise = trainer._draw(0, trainer.feed.shown(0), trainer.feed.batch(0).latents).noise
        assert len({tuple(row.flatten()[:8].tolist()) for row in noise}) == 8, "equal noise for the same picture would be learned twice"
    finally:
        attached.detach()
