"""A model whose weights stay in their files is the model: every tensor, every name, and what is written of it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.errors import ModelError, OutputError
from darkroom.sdxl.adapters.places import Catalogue
from darkroom.sdxl.checkpoint import read_single_file, write_single_file
from darkroom.sdxl.configs import build
from darkroom.sdxl.folder import write_folder
from darkroom.sdxl.model import load
from darkroom.sdxl.unread import Cast, Unread, counted, write_model

F32 = torch.float32


@pytest.fixture(scope="module")
def unread():
    return Unread.open(pocket.folder(), name="pocket")


def test_every_tensor_is_the_models(unread, model):
    for part, module in {**model.parts, "vae": model.vae}.items():
        for name, tensor in module.state_dict().items():
            assert torch.equal(unread.tensor(part, name).float(), tensor), name
    assert unread.catalogue.places == Catalogue.of(model).places and unread.catalogue.source == "pocket" == unread.name
    assert unread.model.hash == model.hash and unread.dtype == torch.float16


def test_files_are_those_of_a_loaded_model(unread, model, tmp_path):
    """The same tensors as `write_single_file` and `write_folder`, which hold the whole model."""
    write_model(unread.model, unread.tensor, tmp_path / "a.safetensors", F32, {"modelspec.title": "x"})
    write_single_file(model, tmp_path / "b.safetensors", F32, metadata={"modelspec.title": "x"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    write_model(unread.model, unread.tensor, tmp_path / "a", F32, {})
    write_folder(model, tmp_path / "b", F32)
    names = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    for name in names:
        if name.name != "config.json":  # a loaded model's names the place it was loaded from
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_single_file_of_another_size_goes_with_a_folder(unread, tmp_path):
    write_model(unread.model, unread.tensor, tmp_path / "x.safetensors", torch.float16, {})
    again = Unread.open(tmp_path / "x.safetensors", pocket.folder())
    assert again.name == "x.safetensors" and again.metadata["modelspec.title"] == "x"
    assert all(torch.equal(again.tensor(part, name), unread.tensor(part, name)) for part, m in unread.parts.items() for name in m.state_dict())
    with pytest.raises(ModelError, match=r"have other shapes than those of SDXL 1\.0"):
        Unread.open(tmp_path / "x.safetensors")


def test_what_a_model_predicts_goes_along(unread, tmp_path):
    write_model(unread.model, unread.tensor, tmp_path / "plain.safetensors", torch.float16, {})
    save_file(load_file(tmp_path / "plain.safetensors") | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, tmp_path / "v.safetensors")
    v = Unread.open(tmp_path / "v.safetensors", pocket.folder())
    assert v.model.scheduler_config["prediction_type"] == "v_prediction" and v.model.scheduler_config["rescale_betas_zero_snr"]
    write_model(v.model, v.tensor, tmp_path / "w.safetensors", torch.float16, {})
    assert {"v_pred", "ztsnr"} <= load_file(tmp_path / "w.safetensors").keys()
    write_model(v.model, v.tensor, tmp_path / "w", torch.float16, {})
    assert load(tmp_path / "w", torch.device("cpu"), F32).scheduler_config["prediction_type"] == "v_prediction"


def test_a_refiner_has_no_first_encoder(tmp_path):
    write_folder(build("refiner", 32), tmp_path / "refiner", F32)
    refiner = Unread.open(tmp_path / "refiner")
    assert refiner.parts.keys() == {"unet", "text_encoder_2", "vae"} and refiner.model.tokenizer is None
    write_model(refiner.model, refiner.tensor, tmp_path / "r.safetensors", F32, {})
    found = read_single_file(tmp_path / "r.safetensors", torch.device("cpu"), F32, tmp_path / "refiner")
    assert found.text_encoder is None and torch.equal(found.unet.conv_in.weight, refiner.tensor("unet", "conv_in.weight"))
    with pytest.raises(ModelError, match="configures the other one"):
        Unread.open(tmp_path / "r.safetensors", pocket.folder())


def test_another_vae_is_swapped_in_with_its_configuration(unread, model, tmp_path):
    """From a folder of a VAE alone; the rest stays."""
    import copy
    import json

    vae = copy.deepcopy(model.vae)
    vae.register_to_config(force_upcast=True)
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(0.25)
    vae.save_pretrained(tmp_path / "fixed")
    other = unread.with_vae(tmp_path / "fixed")
    write_model(other.model, other.tensor, tmp_path / "x", F32, {})
    assert json.loads((tmp_path / "x" / "vae" / "config.json").read_text())["force_upcast"] is True
    assert json.loads((pocket.folder() / "vae" / "config.json").read_text())["force_upcast"] is False
    found = load(tmp_path / "x", torch.device("cpu"), F32)
    assert torch.equal(found.vae.decoder.conv_out.bias, torch.full((3,), 0.25))
    assert torch.equal(found.unet.conv_in.weight, model.unet.conv_in.weight)
    with pytest.raises(ModelError, match="no such file or folder"):
        unread.with_vae(tmp_path / "nowhere")


def test_the_cast_is_measured(unread):
    cast = Cast(unread.tensor, torch.bfloat16)
    moved = []
    tensors = counted(cast.tensor, unread, lambda what, done, total: moved.append((what, done, total)))
    errors = sizes = 0.0
    for name in list(unread.parts["vae"].state_dict())[:5]:
        exact = tensors("vae", name).double()
        errors += float((exact.bfloat16().double() - exact).square().sum())
        sizes += float(exact.square().sum())
    assert cast.ruler.error == pytest.approx((errors / sizes) ** 0.5) and 0 < cast.ruler.error < 0.004
    assert moved[-1][:2] == ("writing", 5)


def test_nothing_is_written_over(unread, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for out in ("x.safetensors", "full"):
        with pytest.raises(OutputError, match="is there already"):
            write_model(unread.model, unread.tensor, tmp_path / out, F32, {})
    assert (tmp_path / "x.safetensors").read_bytes() == b"mine"
