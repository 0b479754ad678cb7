"""Blends are the arithmetic they say, place by place, and the ruler beside them measures what was written."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.errors import ModelError, RecipeError
from darkroom.sdxl.blend import Blend, blend, part_of, places
from darkroom.sdxl.checkpoint import read_single_file, write_single_file
from darkroom.sdxl.configs import build
from darkroom.sdxl.folder import write_folder

F32 = torch.float32


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three models of one shape, the second as a diffusers folder."""
    folder = tmp_path_factory.mktemp("parents")
    paths = [folder / "a.safetensors", folder / "b", folder / "c.safetensors"]
    for seed, path in enumerate(paths):
        model = build("refiner", 32, seed)
        (write_single_file if path.suffix else write_folder)(model, path, F32)
    write_single_file(build("refiner", 32, 1), folder / "b.safetensors", F32)
    return paths


def tensors(three):
    folder = three[0].parent
    return [load_file(folder / f"{letter}.safetensors") for letter in "abc"]


def test_a_weighted_sum_is_one(three, tmp_path):
    a, b, _ = tensors(three)
    blend(tmp_path / "x.safetensors", three[:2], Blend(weight=0.25), F32)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == a.keys()
    for key, tensor in found.items():
        expected = a[key] if part_of(key) == "vae" else torch.lerp(a[key].double(), b[key].double(), 0.25)
        torch.testing.assert_close(tensor.double(), expected.double(), rtol=1e-5, atol=1e-6)


def test_a_difference_is_added(three, tmp_path):
    a, b, c = tensors(three)
    blend(tmp_path / "x.safetensors", three, Blend("difference", 0.7, {"vae": 1.0}), F32)
    for key, tensor in load_file(tmp_path / "x.safetensors").items():
        weight = 1.0 if part_of(key) == "vae" else 0.7
        torch.testing.assert_close(tensor, a[key] + weight * (b[key] - c[key]), rtol=1e-5, atol=1e-5)


def test_ends_are_exact(three, tmp_path):
    a, b, _ = tensors(three)
    for weight, parent in ((0.0, a), (1.0, b)):
        blend(tmp_path / "x.safetensors", three[:2], Blend(weight=weight, blocks={"vae": weight}), F32)
        found = load_file(tmp_path / "x.safetensors")
        assert all(torch.equal(found[key], parent[key]) for key in parent)


def test_each_place_has_its_weight(three, tmp_path):
    a, b, _ = tensors(three)
    blocks = {"unet": 0.0, "input_blocks": 1.0, "input_blocks.4": 0.0, "output_blocks.2": 1.0, "text_encoder_2": 1.0}
    blend(tmp_path / "x.safetensors", three[:2], Blend(blocks=blocks), F32)
    found = load_file(tmp_path / "x.safetensors")
    for key in found:
        word = places(key)[0]
        from_b = (word.startswith("input_blocks.") and word != "input_blocks.4") or word in ("output_blocks.2", "text_encoder_2")
        assert torch.equal(found[key], (b if from_b else a)[key]), key


def test_the_ruler_measures_what_was_written(three, tmp_path):
    a, b, _ = tensors(three)
    found = blend(tmp_path / "x.safetensors", three[:2], Blend(weight=0.3), torch.bfloat16)
    written = load_file(tmp_path / "x.safetensors")
    for parent, distances in zip((a, b), found, strict=True):
        assert distances.parts.keys() == {"unet", "text_encoder_2", "vae", "all"}
        for part, distance in distances.parts.items():
            keys = [key for key in parent if part in ("all", part_of(key)) and not key.endswith("logit_scale")]
            apart = sum((written[key].double() - parent[key].double()).square().sum().item() for key in keys)
            size = sum(parent[key].double().square().sum().item() for key in keys)
            assert distance == pytest.approx(math.sqrt(apart / size), rel=1e-6)
    assert 0 < found[0].parts["vae"] < 0.005, "the VAE is A's, but for rounding"
    assert found[0].parts["unet"] < found[1].parts["unet"]


def test_the_result_is_a_checkpoint_like_any_other(model, tmp_path):
    write_single_file(model, tmp_path / "a.safetensors", F32)
    blend(tmp_path / "x.safetensors", [pocket.folder(), tmp_path / "a.safetensors"], Blend(), torch.float16)
    found = read_single_file(tmp_path / "x.safetensors", torch.device("cpu"), F32, pocket.folder())
    for name, tensor in model.unet.state_dict().items():
        assert torch.equal(tensor.half().float(), found.unet.state_dict()[name]), "a model blended with itself is itself"
    first = (tmp_path / "x.safetensors").read_bytes()
    blend(tmp_path / "x.safetensors", [pocket.folder(), tmp_path / "a.safetensors"], Blend(), torch.float16)
    assert (tmp_path / "x.safetensors").read_bytes() == first


def test_what_does_not_fit_is_refused_in_words(model, three, tmp_path):
    out, state = tmp_path / "x.safetensors", tensors(three)[0]
    write_single_file(model, tmp_path / "base.safetensors", torch.float16)
    save_file({key: tensor for key, tensor in state.items() if "out.2.bias" not in key}, tmp_path / "less.safetensors")
    save_file(state | {"v_pred": torch.empty(0)}, tmp_path / "v.safetensors")
    write_single_file(build("refiner", 16), tmp_path / "wide.safetensors", torch.float16)
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "lora.safetensors")
    cases = [
        ("base.safetensors", "is an SDXL base, and .* an SDXL refiner"), ("less.safetensors", "less.safetensors: .*out.2.bias is missing"),
        ("wide.safetensors", "models of different sizes"), ("v.safetensors", "predicts v, and .* predicts noise"), ("lora.safetensors", "but an adapter"),
        ("none.safetensors", "no such file"),
    ]  # fmt: skip
    for name, word in cases:
        with pytest.raises(ModelError, match=word):
            blend(out, [three[0], tmp_path / name], Blend())
    for parents, recipe, word in (
        (three, Blend(), "3 checkpoints: a sum takes 2"), (three[:2], Blend("difference"), "2 checkpoints: a difference takes 3"),
        (three[:2], Blend(blocks={"middle_blok": 1.0}), 'Did you mean "middle_block"'), (three[:2], Blend(weight=math.nan), "is no number"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=word):
            blend(out, parents, recipe)
    assert not out.exists()
