"""What a base model's headers tell, against what diffusers and transformers count."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.errors import ModelError
from darkroom.sdxl.checkpoint import write_single_file
from darkroom.sdxl.configs import build, empty
from darkroom.sdxl.survey import TRUE, lines, survey


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_the_true_counts_are_the_libraries_own(kind):
    assert {part: count(module) for part, module in empty(kind).items()} == TRUE[kind]


def test_a_folder_and_a_file_tell_the_same(model, tmp_path):
    write_single_file(model, tmp_path / "x.safetensors", torch.float16, metadata={"modelspec.author": "me"})
    folder, file = survey(pocket.folder()), survey(tmp_path / "x.safetensors")
    counts = {part: count(module) for part, module in {**model.parts, "vae": model.vae}.items()}
    for found in (folder, file):
        assert {part: fact["parameters"] for part, fact in found["parts"].items()} == counts
        assert found["parameters"] == sum(counts.values()) and found["family"] == "SDXL base" and not found["missing"]
        assert found["prediction"] == "noise" and not found["zero_snr"] and all(fact["dtypes"].keys() == {"F16"} for fact in found["parts"].values())
    assert file["metadata"]["modelspec.author"] == "me"
    said = "\n".join(lines(file))
    assert "SDXL 1.0 has 2,567,463,684" in said and "author: me" in said and "a whole SDXL base checkpoint" in said


def test_true_shapes_are_called_so():
    """Lines need no weights to tell SDXL's own size from another."""
    count = TRUE["base"]["vae"]
    vae = {"parameters": count, "true": count, "tensors": 1, "dtypes": {"F16": count}}
    said = lines({"path": "x", "what": "y", "form": "z", "size": 1, "parameters": count, "missing": ["unet"], "metadata": {}, "parts": {"vae": vae}})
    assert "as SDXL 1.0" in said[1] and said[2].split() == ["unet", "missing"]


def test_mixtures_marks_and_strangers_are_named(tmp_path):
    write_single_file(build("refiner", 32), tmp_path / "r.safetensors", torch.float16)
    state = load_file(tmp_path / "r.safetensors")
    vae = {key: tensor.float() if key.startswith("first_stage_model.decoder") else tensor for key, tensor in state.items()}
    save_file(vae | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0), "model_ema.decay": torch.zeros(3)}, tmp_path / "x.safetensors")
    found = survey(tmp_path / "x.safetensors")
    assert found["family"] == "SDXL refiner" and found["prediction"] == "v" and found["zero_snr"]
    assert set(found["parts"]["vae"]["dtypes"]) == {"F16", "F32"} and found["parts"]["other"]["parameters"] == 3
    assert "changes no picture" in "\n".join(lines(found))
    bare = {key.removeprefix("first_stage_model."): tensor for key, tensor in state.items() if key.startswith("first_stage_model.")}
    save_file(bare, tmp_path / "vae.safetensors")
    assert survey(tmp_path / "vae.safetensors")["family"] == "VAE" and "prediction" not in survey(tmp_path / "vae.safetensors")


def test_refusals_say_what_to_do(tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors")
    (tmp_path / "model.ckpt").write_bytes(b"\x80")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\xff\x00\x00\x00\x00\x00\x00\x00{")
    for name, word in (
        ("lora.safetensors", "darkroom adapter show"), ("model.ckpt", "a pickle can run code"), ("none.safetensors", "no such file"),
        ("empty", "no model_index.json"), ("cut.safetensors", "not a whole safetensors file"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=word):
            survey(tmp_path / name)
