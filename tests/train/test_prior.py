"""Prior preservation: pictures of the class beside the subject's, drawn once, weighed, with sizes of their own."""

import shutil

import pytest
import torch

from darkroom.data.dataset import read_folder
from darkroom.errors import DatasetError, RecipeError
from darkroom.jobs.prior import class_pictures
from darkroom.jobs.train import resume_training, run_training
from darkroom.spec import override
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run


def with_prior(recipe, **settings):
    told = {"prompt": "a photo of a cat", "count": 3, "steps": 2, "weight": 0.5} | settings
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"prior": recipe.data.prior.model_copy(update=told)})})


def test_the_class_is_drawn_once_and_only_what_is_missing(quick, monkeypatch):
    from darkroom.sampling import draw

    drawn, real = [], draw.draw_batch
    monkeypatch.setattr(draw, "draw_batch", lambda kit, requests: drawn.extend(requests) or real(kit, requests))
    recipe = with_prior(quick, seed=70)
    assert class_pictures(recipe, draw=False) == []
    assert drawn == []
    first = class_pictures(recipe)
    assert [request.seed for request in drawn] == [70, 71, 72]
    assert {photo.caption for photo in first} == {"a photo of a cat"}
    class_pictures(recipe)
    assert len(drawn) == 3
    more = class_pictures(with_prior(quick, seed=70, count=5))
    assert [request.seed for request in drawn] == [70, 71, 72, 73, 74]
    assert [photo.sha256 for photo in more[:3]] == [photo.sha256 for photo in first]
    assert [photo.sha256 for photo in class_pictures(recipe)] == [photo.sha256 for photo in first]
    more[1].path.write_bytes(more[1].path.read_bytes()[:100])  # half written by a kill
    more[2].path.unlink()
    again = class_pictures(recipe)
    assert [photo.sha256 for photo in again] == [photo.sha256 for photo in first]
    class_pictures(with_prior(quick, seed=70, guidance=2.0))
    assert drawn[-1].guidance == 2.0


def test_a_batch_holds_both_weighed_and_with_sizes_of_their_own(quick, trainer_for):
    trainer = trainer_for(with_prior(quick))
    shown, batch = trainer.feed.shown(0), trainer.feed.batch(0)
    assert [each.prior for each in shown] == [False, False, True, True]
    assert batch.weight.tolist() == [1, 1, 0.5, 0.5]
    assert batch.ids.tolist() == [[256, 256, 0, 0, 64, 64]] * 2 + [[64, 64, 0, 0, 64, 64]] * 2
    assert batch.latents.shape[0] == 4
    noise = trainer._draw(0, shown, batch.latents).noise
    assert len({tuple(row.flatten()[:8].tolist()) for row in noise}) == 4
    seen = [each.photo.sha256 for number in range(3) for each in trainer.feed.shown(number)[2:]]
    assert len(set(seen[:3])) == len(set(seen[3:])) == 3, "each class picture comes once before one comes again"


def test_the_loss_is_diffusers(quick, trainer_for):
    """train_dreambooth_lora_sdxl.py: mean over the instance part, plus prior_loss_weight times the mean over the class part."""
    trainer = trainer_for(with_prior(quick))
    batch, shown = trainer.feed.batch(0), trainer.feed.shown(0)
    drawn = trainer._draw(0, shown, batch.latents)
    with torch.no_grad():
        plain = trainer.recipe.objective.losses(trainer.predict, trainer.schedule, batch, *drawn) / batch.weight
    wanted = plain[:2].mean() + 0.5 * plain[2:].mean()
    torch.testing.assert_close(trainer._learn(0), wanted, rtol=1e-5, atol=0)


def test_it_goes_on_byte_for_byte(quick, tmp_path):
    recipe = with_prior(quick)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"accumulate": 2})})
    whole = run_training(recipe, tmp_path / "whole")
    assert whole.facts["preflight"]["prior"] == {"prompt": "a photo of a cat", "tokens": 5, "pictures": 3, "wanted": 3, "weight": 0.5}
    shutil.copytree(whole.folder, tmp_path / "cut")
    cut = Run.open(tmp_path / "cut")
    cut.product.unlink()
    for later in cut.checkpoints()[1:]:
        shutil.rmtree(later.folder)
    assert resume_training(cut.folder).product.read_bytes() == whole.product.read_bytes()


def test_pictures_of_ones_own(quick, cats):
    assert len(class_pictures(with_prior(quick, pictures=str(cats)))) == 3
    with pytest.raises(DatasetError, match=r"holds 6 pictures, and data\.prior\.count asks for 7"):
        class_pictures(with_prior(quick, pictures=str(cats), count=7))
    assert len(read_folder(cats, "x")) == 6


def test_a_class_prompt_with_the_trigger_is_refused(quick):
    tree = quick.model_dump(mode="json")
    with pytest.raises(RecipeError, match=r'data\.prior\.prompt holds the trigger word "TOK"'):
        Recipe.from_tree(override(tree, ("data.prior.prompt=a photo of TOK cat",)), "test")
    with pytest.raises(RecipeError, match=r"want prior\.prompt"):
        Recipe.from_tree(override(tree, ("data.prior.pictures=cats",)), "test")
