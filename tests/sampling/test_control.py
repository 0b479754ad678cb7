"""What a ControlNet reads."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from darkroom.errors import ModelError, RecipeError
from darkroom.sampling.control import prepare

CPU = torch.device("cpu")
OWN = ({"image_mean": [0.9, 0.1, 0.4], "image_std": [0.1, 0.3, 0.2]}, [0.9, 0.1, 0.4], [0.1, 0.3, 0.2])


@pytest.fixture
def picture():
    found = Image.new("RGB", (128, 96), (40, 60, 200))
    ImageDraw.Draw(found).rectangle((32, 24, 95, 71), (250, 220, 90))
    return found


def test_edges_are_where_the_square_is(picture):
    pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")
    found = np.asarray(prepare("edge", picture, (128, 96), CPU))
    assert set(np.unique(found)) == {0, 255} and found.shape == (96, 128, 3)
    rows, columns = np.nonzero(found[..., 0])
    assert abs(rows.min() - 24) <= 2 and abs(rows.max() - 71) <= 2 and abs(columns.min() - 32) <= 2 and abs(columns.max() - 95) <= 2
    assert (found[..., 0] > 0).mean() < 0.05


def test_colours_are_flat_blocks_with_the_areas_mean(picture):
    found = np.asarray(prepare("colour", picture, (128, 96), CPU))
    assert len(np.unique(found.reshape(8, 12, 8, 16, 3).transpose(0, 2, 1, 3, 4).reshape(64, 192, 3).std(1).round(3))) == 1
    assert tuple(found[48, 64]) == (250, 220, 90) and tuple(found[0, 0]) == (40, 60, 200)


def test_as_it_is_only_takes_the_size(picture):
    assert prepare("as_is", picture, (128, 96), CPU).tobytes() == picture.tobytes()
    assert prepare("as_is", picture, (64, 64), CPU).size == (64, 64)


def tiny_dpt(folder):
    """A random DPT, saved."""
    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8, reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    network = DPTForDepthEstimation(config).eval()
    with torch.no_grad():  # a fresh network says next to nothing
        for parameter in network.head.parameters():
            parameter.mul_(100)
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize(("told", "mean", "std"), [(None, [0.5] * 3, [0.5] * 3), OWN])
def test_depth_runs_a_real_network(picture, tmp_path, told, mean, std):
    """The picture follows the network's output, scaled to 0..255; the network reads colours as its own preprocessor_config.json says."""
    network = tiny_dpt(tmp_path / "dpt")
    if told:
        (tmp_path / "dpt" / "preprocessor_config.json").write_text(json.dumps(told | {"size": {"height": 32, "width": 32}}))
    found = np.asarray(prepare("depth", picture, (32, 32), CPU, depth_model=str(tmp_path / "dpt")), float)[..., 0]
    pixels = (np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS), np.float32) / 255 - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        raw = network(pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None]).predicted_depth[0]
    assert found.min() == 0 and found.max() == 255
    expected = torch.nn.functional.interpolate(raw[None, None], size=(32, 32), mode="bicubic", antialias=True)[0, 0].numpy()
    assert np.abs(found - (expected - expected.min()) / np.ptp(expected) * 255).max() <= 1


def test_without_opencv_it_says_what_to_install(picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RecipeError, match=r'needs OpenCV: pip install "sdxl-darkroom\[vision\]"'):
        prepare("edge", picture, (32, 32), CPU)


def test_a_missing_depth_model_and_an_unknown_kind(picture, tmp_path):
    with pytest.raises(ModelError, match="prepare=as_is"):
        prepare("depth", picture, (32, 32), CPU, depth_model=str(tmp_path / "nowhere"))
    with pytest.raises(RecipeError, match="edge"):
        prepare("edges", picture, (32, 32), CPU)
