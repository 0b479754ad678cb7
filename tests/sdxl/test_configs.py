"""The true shapes, without a weight: counts as they are published, and the narrow sisters that stand in for them."""

import pytest
import torch

from darkroom.errors import ModelError
from darkroom.sdxl import text
from darkroom.sdxl.configs import build, configs, empty, folder_configs


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def sdxl():
    return {kind: empty(kind) for kind in ("base", "refiner")}


def test_parameters_are_as_many_as_published(sdxl):
    base = {part: count(module) for part, module in sdxl["base"].items()}
    assert base == {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    refiner = {part: count(module) for part, module in sdxl["refiner"].items()}
    assert refiner == {"unet": 2_259_526_660, "vae": 83_653_863, "text_encoder_2": 694_659_840}


def test_nothing_of_it_is_in_memory(sdxl):
    tensors = [tensor for parts in sdxl.values() for module in parts.values() for tensor in module.state_dict().values()]
    assert len(tensors) > 4000
    assert all(tensor.is_meta for tensor in tensors)


@pytest.mark.parametrize("scale", [8, 32])
@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_a_sister_has_the_same_names(sdxl, kind, scale):
    for part, module in empty(kind, scale).items():
        mine, theirs = module.state_dict(), sdxl[kind][part].state_dict()
        assert mine.keys() == theirs.keys()
        assert all(mine[name].ndim == theirs[name].ndim for name in mine)
    assert 50 < count(sdxl[kind]["unet"]) / count(empty(kind, 8)["unet"]) < 70


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="scale = 3"):
        configs("base", 3)


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_a_built_model_predicts(kind):
    model = build(kind, scale=32)
    with torch.no_grad():
        said = text.encode(model, ["a cat"])
        ids = torch.zeros(1, 6 if kind == "base" else 5)
        found = model.unet(torch.randn(1, 4, 16, 16), torch.tensor([500]), said.states, added_cond_kwargs={"text_embeds": said.pooled, "time_ids": ids})[0]
        picture = model.vae.decode(found).sample
    assert found.isfinite().all()
    assert picture.shape == (1, 3, 128, 128)
    assert model.resolution == 1024
    assert (model.text_encoder is None) == (kind == "refiner") == (not model.zeroes_empty)
    assert text.count_tokens(model, "a photo of a cat") == 5


def test_equal_seeds_draw_equal_weights():
    one, two, other = (build("refiner", 32, seed).unet.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        folder_configs(tmp_path)
