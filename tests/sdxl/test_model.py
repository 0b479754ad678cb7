"""One loader: a folder, a hub id, and what is told from what."""

import json
import shutil

import pytest
import torch

from darkroom import pocket
from darkroom.errors import ModelError
from darkroom.sdxl.model import load

CPU = torch.device("cpu")


def test_a_hub_id_loads_what_the_folder_holds(model, tmp_path, monkeypatch):
    """The hub's own cache layout, offline: the code that fetches is the one that users run."""
    import huggingface_hub.constants as constants

    snapshot = tmp_path / "models--someone--tiny-sdxl" / "snapshots" / "abc"
    shutil.copytree(pocket.folder(), snapshot, ignore=shutil.ignore_patterns("refiner", "scorer", "sheet*", "README.md"))
    (tmp_path / "models--someone--tiny-sdxl" / "refs").mkdir()
    (tmp_path / "models--someone--tiny-sdxl" / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = load("someone/tiny-sdxl", CPU, torch.float32)
    assert found.source == "someone/tiny-sdxl"
    assert found.hash == model.hash
    assert all(torch.equal(a, b) for a, b in zip(found.unet.parameters(), model.unet.parameters(), strict=True))


def test_the_pocket_is_an_sdxl(model):
    assert (model.resolution, model.pixel_factor, model.grain) == (64, 4, 16)
    assert model.unet.config.addition_embed_type == "text_time"
    assert model.text_encoder.config.hidden_size + model.text_encoder_2.config.hidden_size == model.unet.config.cross_attention_dim
    assert len(model.tokenizer) == len(model.tokenizer_2) == 49408
    betas = (model.scheduler_config["beta_start"], model.scheduler_config["beta_end"], model.scheduler_config["beta_schedule"])
    assert betas == (0.00085, 0.012, "scaled_linear")


def test_text_encoders_of_another_model_are_refused(tmp_path):
    shutil.copytree(pocket.folder(), tmp_path / "mixed", ignore=shutil.ignore_patterns("refiner", "scorer"))
    shutil.rmtree(tmp_path / "mixed" / "text_encoder_2")
    shutil.copytree(pocket.folder() / "text_encoder", tmp_path / "mixed" / "text_encoder_2")
    with pytest.raises(ModelError, match=r"text_encoder_2|belong to different models"):
        load(tmp_path / "mixed", CPU, torch.float32)


def test_a_truncated_weight_file_is_named(tmp_path):
    shutil.copytree(pocket.folder(), tmp_path / "cut", ignore=shutil.ignore_patterns("refiner", "scorer"))
    file = tmp_path / "cut" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="unet"):
        load(tmp_path / "cut", CPU, torch.float32)


def test_a_unet_without_size_conditioning_is_no_sdxl(tmp_path):
    shutil.copytree(pocket.folder(), tmp_path / "other", ignore=shutil.ignore_patterns("refiner", "scorer"))
    config = tmp_path / "other" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"addition_embed_type": None}))
    with pytest.raises(ModelError, match="size conditioning"):
        load(tmp_path / "other", CPU, torch.float32)


def test_all_together_at_most_60_mb():
    assert sum(file.stat().st_size for file in pocket.WEIGHTS.rglob("*") if file.is_file()) <= 60e6
