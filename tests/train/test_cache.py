"""Caches are keyed by content: what changed is encoded anew, and nothing else."""

import shutil

import pytest
import torch

from darkroom.files import cache_folder
from darkroom.jobs.train import prepare
from darkroom.train import cache
from darkroom.train.loop import Trainer


@pytest.fixture
def encodings(monkeypatch, tmp_path):
    """Count what the model really encodes, over a cache of the test's own."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    counted = {"latents": 0, "text": 0}
    for module, name in ((cache.latents, "latents"), (cache.text, "text")):
        real = module.encode

        def count(*args, real=real, name=name):
            counted[name] += 1
            return real(*args)

        monkeypatch.setattr(module, "encode", count)
    return counted


def encode_all(recipe):
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        trainer.feed.encode_all(0, plan.steps, lambda done, total: None)
        return trainer.feed.batch(0)
    finally:
        attached.detach()


def test_only_what_changed_is_encoded_anew(quick, tmp_path, encodings):
    pictures = tmp_path / "pictures"
    shutil.copytree(quick.data.images, pictures)

    def again(**changes):
        encodings.update(latents=0, text=0)
        encode_all(quick.model_copy(update={"data": quick.data.model_copy(update={"images": str(pictures), **changes})}))
        return encodings["latents"], encodings["text"]

    assert again() == (6, 1)
    assert again() == (0, 0)
    first = sorted(pictures.glob("*.png"))[0]
    first.with_suffix(".txt").write_text("TOK cat, laughing")
    assert again() == (0, 1)  # a caption
    from PIL import Image

    with Image.open(first) as opened:
        changed = opened.convert("RGB")
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(first)
    assert again() == (1, 0)  # a picture
    assert again(resolution=48) == (6, 0)  # the crop


def test_a_damaged_cache_file_is_made_anew(quick, encodings):
    first = encode_all(quick)
    for file in (cache_folder() / "encoded").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:40])
    encodings.update(latents=0, text=0)
    assert torch.equal(encode_all(quick).latents, first.latents)
    assert encodings == {"latents": 6, "text": 1}
