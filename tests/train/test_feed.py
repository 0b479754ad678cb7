"""What a step is fed: captions worded anew each epoch, crops that move, masks that weigh, small pictures in small buckets; and a resume that sees the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.errors import DatasetError, RecipeError
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.methods import LyCORIS
from darkroom.spec import override
from darkroom.train.cache import Kept
from darkroom.train.loop import Trainer
from darkroom.train.recipe import Recipe


@pytest.fixture
def pictures(cats, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(cats, folder)
    return folder


def but(recipe: Recipe, *settings: str, **data: Any) -> Recipe:
    tree = override(recipe.model_dump(mode="json", exclude_none=True), settings)
    tree["data"] |= data
    return Recipe.from_tree(tree, "test")


@contextmanager
def training(recipe: Recipe) -> Iterator[Trainer]:
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        yield Trainer(recipe, plan, model, attached)
    finally:
        attached.detach()


def captioned(folder, **by: str) -> None:
    manifest, _ = adopt(folder)
    manifest.but([row.but(captions=by, chosen=next(iter(by))) for row in manifest.rows]).save()


def test_a_mix_is_kept_to_and_every_epoch_words_anew(quick, pictures):
    captioned(pictures, blip="a TOK cat that sits", original="TOK")
    recipe = but(quick, "data.wording.mix={blip=0.75, original=0.25}", "data.wording.suffix=, photo", images=str(pictures))
    with training(recipe) as trainer:
        batches = trainer.plan.order.batches_per_epoch
        said = [each.caption for number in range(100 * batches) for each in trainer.feed.shown(number)]
        assert len(said) == 600 and set(said) == {"a TOK cat that sits , photo", "TOK , photo"}
        assert abs(said.count("a TOK cat that sits , photo") / 600 - 0.75) < 4 * (0.75 * 0.25 / 600) ** 0.5
        rows = trainer.plan.facts["captions"]
        assert {(row["caption"], row["share"]) for row in rows} == {("a TOK cat that sits , photo", 0.75), ("TOK , photo", 0.25)}


def test_tags_are_shuffled_behind_the_kept_ones(quick, pictures):
    captioned(pictures, wd="TOK cat, grey, sofa, lamp, window")
    recipe = but(quick, "data.wording.shuffle=true", "data.wording.keep_tags=1", images=str(pictures))
    with training(recipe) as trainer:
        said = {each.caption for number in range(60) for each in trainer.feed.shown(number)}
        assert len(said) > 15 and all(sorted(text.split(", ")[1:]) == ["grey", "lamp", "sofa", "window"] and text.startswith("TOK cat") for text in said)
        trainer.feed.encode_all(0, 4, lambda done, total: None)
        first = trainer.feed.batch(0).text.states
        assert torch.equal(first, trainer.feed.batch(0).text.states)


def test_a_crop_moves_each_epoch_and_its_ids_with_it(quick, pictures):
    for path in pictures.glob("*.png"):
        with Image.open(path) as opened:
            opened.convert("RGB").resize((256, 192)).save(path)
    with training(but(quick, "data.crop=random", "data.bucket_step=64", images=str(pictures))) as trainer:
        assert {fit.bucket for fit in trainer.plan.fits} == {(64, 64)}
        places = {each.fit.left for number in range(30) for each in trainer.feed.shown(number)}
        assert places == {0, 4, 8, 12, 16, 20}, "85 pixels wide, in steps of the autoencoder's 4"
        for each, ids in zip(trainer.feed.shown(5), trainer.feed.batch(5).ids.tolist(), strict=True):
            assert ids == [192, 256, each.fit.top, each.fit.left, 64, 64]


def test_the_subject_is_in_the_crop(quick, pictures):
    for path in pictures.glob("*.png"):
        with Image.open(path) as opened:
            opened.convert("RGB").resize((256, 192)).save(path)
    manifest, _ = adopt(pictures)
    manifest.but([row.but(focus=(1.0, 0.5)) for row in manifest.rows]).save()
    with training(but(quick, "data.crop=subject", "data.bucket_step=64", images=str(pictures))) as trainer:
        assert {fit.left for fit in trainer.plan.fits} == {85 - 64}


def test_a_mask_weighs_the_loss(quick, pictures):
    """Where the mask is black only `unmasked_weight` of the error counts; a picture without one counts whole."""
    manifest, _ = adopt(pictures)
    first = manifest.rows[0]
    mask = np.zeros((first.height, first.width), np.uint8)
    mask[:, : first.width // 2] = 255
    (pictures / "masks").mkdir()
    Image.fromarray(mask).save(pictures / "masks" / "a.png")
    manifest.but([row.but(mask="masks/a.png") if row.file == first.file else row for row in manifest.rows]).save()
    recipe = but(quick, "objective.unmasked_weight=0", "objective.min_snr=0", images=str(pictures), batch_size=6)
    with training(recipe) as trainer:
        assert trainer.plan.facts["masked"] == 1
        batch = trainer.feed.batch(0)
        index = next(i for i, each in enumerate(trainer.feed.shown(0)) if each.photo.mask)
        assert batch.mask is not None and batch.mask.shape == (6, 1, 16, 16)
        assert batch.mask[index].mean() == 0.5 and batch.mask.flatten(1).mean(1).tolist().count(1.0) == 5
        noise, t = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0)), torch.full((6,), 500)
        with torch.no_grad():
            found = recipe.objective.losses(trainer.predict, trainer.schedule, batch, noise, t)
            said = trainer.predict(trainer.schedule.add_noise(batch.latents, noise, t), t, batch)
        half = (said - noise).square()[index, :, :, :8].mean()
        assert float(found[index]) == pytest.approx(float(half), rel=1e-5)


def test_small_pictures_go_to_small_buckets_and_none_is_enlarged_unasked(quick, pictures):
    small = sorted(pictures.glob("*.png"))[0]
    with Image.open(small) as opened:
        opened.convert("RGB").resize((50, 50)).save(small)
    with training(but(quick, images=str(pictures))) as trainer:
        assert [fit.bucket for fit in trainer.plan.fits].count((48, 48)) == 1
        assert trainer.plan.facts["upscaled"] == 0
    with training(but(quick, images=str(pictures), enlarge=True)) as trainer:
        assert {fit.bucket for fit in trainer.plan.fits} == {(64, 64)}
        assert trainer.plan.facts["upscaled"] == 1
    with Image.open(small) as opened:
        opened.resize((9, 9)).save(small)
    with pytest.raises(DatasetError, match=r"9 x 9 pixels are fewer than the smallest bucket, 16 x 16.*data\.enlarge=true"):
        prepare(but(quick, images=str(pictures)))


def test_the_trigger_must_be_in_every_caption_that_is_shown(quick, pictures):
    captioned(pictures, blip="a TOK cat", original="a cat")
    recipe = but(quick, images=str(pictures))
    prepare(recipe)
    with pytest.raises(DatasetError, match=r'says "a cat", without the trigger word "TOK".*data\.wording\.prefix="TOK"'):
        prepare(but(recipe, "data.wording.mix={blip=0.5, original=0.5}"))
    prepare(but(recipe, "data.wording.mix={blip=0.5, original=0.5}", "data.wording.prefix=TOK"))
    with pytest.raises(DatasetError, match=r'"blib".*Did you mean "blip"'):
        prepare(but(recipe, "data.wording.mix={blib=1.0}"))
    with pytest.raises(RecipeError, match="shares lie between 0 and 1"):
        but(recipe, "data.wording.mix={blip=0.7}")


def test_everything_at_once_goes_on_byte_for_byte(quick, pictures, tmp_path):
    captioned(pictures, blip="TOK cat, grey, sofa", original="TOK cat")
    settings = ("data.wording.mix={blip=0.9, original=0.1}", "data.wording.shuffle=true", "data.wording.keep_tags=1", "data.wording.tag_dropout=0.3",
                "data.wording.dropout=0.2", "data.crop=random", "data.flip=true", "train.accumulate=2")  # fmt: skip
    method = LyCORIS(algorithm="dylora", rank=4, dropout=0.2)
    recipe = but(quick, *settings, images=str(pictures)).model_copy(update={"method": method})
    whole = run_training(recipe, tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "cut")
    (tmp_path / "cut" / "adapter.safetensors").unlink()
    for step in ("000004", "000006"):
        shutil.rmtree(tmp_path / "cut" / "steps" / step)
    resumed = resume_training(tmp_path / "cut")
    assert (resumed.folder / "adapter.safetensors").read_bytes() == (whole.folder / "adapter.safetensors").read_bytes()


def test_a_cache_holds_what_was_used_last():
    made: list[int] = []

    def make(key: int) -> bytes:
        made.append(key)
        return bytes(40)

    held: Kept[bytes] = Kept(len, limit=100)
    for key in (1, 2, 1, 3, 1, 2):
        held.get(key, lambda key=key: make(key))
    assert made == [1, 2, 3, 2], "1 was used between, 2 had to go for 3"
