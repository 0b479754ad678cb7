"""Single files and folders: every key of the originals, nothing lost on the way there and back, and plain words for what is something else."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.errors import ModelError, OutputError
from darkroom.files import sha256_bytes
from darkroom.sdxl.checkpoint import read_single_file, write_single_file
from darkroom.sdxl.configs import build, empty
from darkroom.sdxl.family import FIRST_CONV, Header, must_be, read_header, recognise
from darkroom.sdxl.folder import write_folder
from darkroom.sdxl.layout import layout
from darkroom.sdxl.model import load

CPU = torch.device("cpu")
PUBLISHED = "3417e4dabcea9327d05c3c560dcc9c94b4ce22e074aee74af19b311d2f607a16"
"""SHA-256 over "key [shape]" lines of sd_xl_base_1.0.safetensors as ljleb/sd-mecha lists it (model_configs/sdxl-sgm.yaml; 2,515 keys of the model)."""


@pytest.fixture
def refiner():
    return load(pocket.folder("refiner"), CPU, torch.float32)


@pytest.fixture
def single(model, tmp_path):
    path = tmp_path / "pocket.safetensors"
    write_single_file(model, path, torch.float32)
    return path


def read(path, dtype=torch.float32, part="", **more):
    return read_single_file(path, CPU, dtype, config=pocket.folder(part), **more)


def states(model):
    return {f"{part}.{name}": tensor for part, module in {**model.parts, "vae": model.vae}.items() for name, tensor in module.state_dict().items()}


def same(mine, theirs, dtype=torch.float32):
    mine, theirs = states(mine), states(theirs)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name].to(dtype), theirs[name].to(dtype))] == []


def test_every_key_and_shape_is_that_of_the_published_file():
    pieces = layout(empty("base"))
    assert len(pieces) == 2515
    assert hashlib.sha256("\n".join(f"{key} {list(piece.shape)}" for key, piece in pieces.items()).encode()).hexdigest() == PUBLISHED


def test_the_refiner_has_the_keys_that_sgm_gives_it():
    pieces = layout(empty("refiner"))
    assert len(pieces) == 1220 + 248 + 390
    assert pieces["conditioner.embedders.0.model.text_projection"].shape == (1280, 1280)
    assert "model.diffusion_model.output_blocks.2.1.conv.weight" in pieces, "an upsampler after a ResNet alone is number 1"
    assert "model.diffusion_model.output_blocks.5.2.conv.weight" in pieces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("part", ["", "refiner"])
def test_there_and_back_is_a_cast_and_no_more(model, refiner, tmp_path, part, dtype):
    ours = refiner if part else model
    write_single_file(ours, tmp_path / "a.safetensors", dtype)
    found = read(tmp_path / "a.safetensors", part=part)
    expected = {name: tensor.to(dtype).float() for name, tensor in states(ours).items()}
    assert all(torch.equal(expected[name], tensor) for name, tensor in states(found).items())
    assert states(found).keys() == expected.keys()
    assert (found.text_encoder is None) == bool(part)
    assert found.zeroes_empty == ours.zeroes_empty
    assert found.scheduler_config["beta_schedule"] == "scaled_linear"


def test_back_and_there_is_the_same_file(model, single, tmp_path):
    again = read(single)
    again.source = model.source
    write_single_file(again, tmp_path / "b.safetensors", torch.float32)
    assert (tmp_path / "b.safetensors").read_bytes() == single.read_bytes()


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_read_predicts_the_same_bits(model, single, foreign):
    if foreign:  # written by the library, which aligns to the width of a number alone
        save_file(load_file(single) | {"aside": torch.zeros(1, dtype=torch.int8)}, single)
    found = read(single)
    x, context, ids = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 160), torch.ones(1, 6)
    extra = {"text_embeds": torch.randn(1, 96), "time_ids": ids}
    with torch.no_grad():
        one, two = (m.unet(x, torch.tensor([300]), context, added_cond_kwargs=extra)[0] for m in (model, found))
        assert torch.equal(one, two)
        words = model.tokenizer(["a cat"], padding="max_length", return_tensors="pt").input_ids
        for mine, theirs in ((model.text_encoder, found.text_encoder), (model.text_encoder_2, found.text_encoder_2)):
            assert torch.equal(mine(words).last_hidden_state, theirs(words).last_hidden_state)


def test_the_header_says_what_it_is(model, single):
    data = single.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    facts = header.pop("__metadata__")
    assert facts["modelspec.sai_model_spec"] == "1.0.1"
    assert facts["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert facts["modelspec.resolution"] == "64x64"
    assert facts["modelspec.hash_sha256"] == "0x" + sha256_bytes(data[8 + length :])
    assert list(header) == sorted(header)
    assert list(facts) == sorted(facts)
    places = {key: 8 + length + entry["data_offsets"][0] for key, entry in header.items()}
    assert not any(places[key] % 64 for key in header if key.endswith("to_q.weight")), "a mapped matrix must lie as an allocated one"
    loaded = load_file(single)  # safetensors' own reader
    assert loaded["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"].tolist() == [list(range(77))]
    assert loaded["conditioner.embedders.1.model.logit_scale"].item() == pytest.approx(4.6052, abs=1e-4)
    assert loaded["first_stage_model.encoder.mid.attn_1.q.weight"].shape[2:] == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_widths_lie_where_safetensors_can_map_them(model, tmp_path, dtype):
    write_single_file(model, tmp_path / "a.safetensors", dtype)
    with safe_open(tmp_path / "a.safetensors", "pt") as opened:
        kinds = {opened.get_tensor(key).dtype for key in opened.keys()}  # noqa: SIM118 - not a dict
    assert kinds == {dtype, torch.int64}


def test_a_model_that_predicts_v_says_so(model, tmp_path):
    model.scheduler_config |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    try:
        write_single_file(model, tmp_path / "v.safetensors", torch.float16)
    finally:
        model.scheduler_config["prediction_type"] = "epsilon"
        del model.scheduler_config["rescale_betas_zero_snr"]
    assert {"v_pred", "ztsnr"} <= load_file(tmp_path / "v.safetensors").keys()
    found = read(tmp_path / "v.safetensors").scheduler_config
    assert (found["prediction_type"], found["rescale_betas_zero_snr"], found["timestep_spacing"]) == ("v_prediction", True, "trailing")


def test_numbers_that_do_not_fit_are_refused_and_leave_the_old_file(model, tmp_path):
    weight = model.vae.decoder.conv_in.bias
    kept = weight[0].item()
    (tmp_path / "a.safetensors").write_text("old")
    try:
        for value, word in ((1e5, "100000, and float16 ends at 65504"), (float("nan"), "NaN or infinity")):
            weight[0] = value
            with pytest.raises(ModelError, match=word):
                write_single_file(model, tmp_path / "a.safetensors", torch.float16)
    finally:
        weight[0] = kept
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_text() == "old"


def test_an_adapter_must_come_off_first(model, tmp_path):
    from darkroom.methods import LoRA

    attached = LoRA(rank=1).attach(model, 0)
    try:
        for write in (write_single_file, write_folder):
            with pytest.raises(ValueError, match="an adapter is on the model"):
                write(model, tmp_path / "a.safetensors", torch.float16)
    finally:
        attached.detach()


def other_vae(model, folder):
    """The pocket's VAE with other numbers, as a folder of diffusers."""
    shutil.copytree(pocket.folder() / "vae", folder)
    numbers = {name: tensor.float() * 0.5 + 0.01 for name, tensor in model.vae.state_dict().items()}
    save_file(numbers, folder / "diffusion_pytorch_model.safetensors")
    return numbers


def old_names(numbers):
    """As diffusers named an autoencoder's attention before 0.18."""
    found = {}
    for name, tensor in numbers.items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{old}")
        found[name] = tensor
    return found


@pytest.mark.parametrize("shape", ["folder", "model folder", "diffusers file", "old diffusers file", "sgm file", "whole checkpoint"])
def test_another_vae_goes_in(model, tmp_path, shape):
    numbers = other_vae(model, tmp_path / "other" / "vae")
    place = tmp_path / "vae.safetensors"
    sgm = {
        key: piece.pack([numbers[name] for name in piece.names]).contiguous()
        for key, piece in layout({**model.parts, "vae": model.vae}).items()
        if piece.part == "vae"
    }
    match shape:
        case "folder":
            place = tmp_path / "other" / "vae"
        case "model folder":
            place = tmp_path / "other"
        case "diffusers file":
            save_file(numbers, place)
        case "old diffusers file":
            save_file(old_names(numbers), place)
            assert any(".query." in name for name in load_file(place))
        case "sgm file":
            save_file({key.removeprefix("first_stage_model."): tensor for key, tensor in sgm.items()}, place)
        case "whole checkpoint":
            write_single_file(model, tmp_path / "first.safetensors", torch.float32, vae=tmp_path / "other")
            place = tmp_path / "first.safetensors"
    write_single_file(model, tmp_path / "a.safetensors", torch.float32, vae=place)
    found = read(tmp_path / "a.safetensors")
    assert all(torch.equal(numbers[name], tensor) for name, tensor in found.vae.state_dict().items())
    assert torch.equal(found.unet.conv_in.weight, model.unet.conv_in.weight)
    write_single_file(model, tmp_path / "own.safetensors", torch.float32)
    swapped = read(tmp_path / "own.safetensors", vae=place)
    assert all(torch.equal(numbers[name], tensor) for name, tensor in swapped.vae.state_dict().items())


def test_a_vae_of_another_model_is_refused(model, tmp_path):
    write_folder(build("refiner", 32), tmp_path / "other", torch.float16)
    for place in (tmp_path / "other", tmp_path / "other" / "vae" / "diffusion_pytorch_model.safetensors"):
        with pytest.raises(ModelError, match=r"another model|missing"):
            write_single_file(model, tmp_path / "a.safetensors", torch.float32, vae=place)


HEADERS = {
    "SDXL inpainting": {FIRST_CONV: (320, 9, 3, 3), "conditioner.embedders.0.transformer.x": (1,), "conditioner.embedders.1.model.x": (1,)},
    "SDXL EDM": {FIRST_CONV: (320, 4, 3, 3), "conditioner.embedders.0.transformer.x": (1,), "edm_mean": (1,)},
    "SD 1.x": {FIRST_CONV: (320, 4, 3, 3), "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)},
    "SD 2.x": {FIRST_CONV: (320, 4, 3, 3), "cond_stage_model.model.ln_final.bias": (1024,)},
    "SD 3": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536)},
    "FLUX": {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
    "adapter": {"lora_unet_x.lora_down.weight": (1, 1)},
    "ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
    "U-Net": {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)},
    "VAE": {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)},
    "text encoder": {"text_model.embeddings.token_embedding.weight": (49408, 768)},
    "embedding": {"clip_l": (4, 768), "clip_g": (4, 1280)},
    "unknown": {"something": (3, 4, 5)},
}  # fmt: skip


@pytest.mark.parametrize("family", HEADERS)
def test_what_is_no_sdxl_is_called_by_its_name(family):
    assert recognise(HEADERS[family]) == family
    with pytest.raises(ModelError, match="is no SDXL checkpoint but"):
        must_be(Header(Path("x.safetensors"), HEADERS[family]), "SDXL base", "SDXL refiner")


def test_a_file_like_the_published_is_known(model, refiner, single, tmp_path):
    assert read_header(single).family == "SDXL base"
    write_single_file(refiner, tmp_path / "r.safetensors", torch.float16)
    assert read_header(tmp_path / "r.safetensors").family == "SDXL refiner"
    with pytest.raises(ModelError, match="is no SDXL base checkpoint but an SDXL refiner"):
        must_be(read_header(tmp_path / "r.safetensors"), "SDXL base")


def test_bad_files_are_refused_in_words(model, single, tmp_path):
    tensors = load_file(single)
    key = "model.diffusion_model.out.2.weight"
    changed = {
        "wide": (tensors | {key: torch.zeros(4, 32, 3, 3)}, r"out\.2\.weight is \(4, 32, 3, 3\) and not \(4, 64, 3, 3\)"),
        "less": ({name: tensor for name, tensor in tensors.items() if name != key}, "1 of .* are missing: .*out.2.weight"),
        "more": (tensors | {"model.diffusion_model.motion.0.weight": torch.zeros(1)}, "does not have: .*motion"),
    }
    for name, (state, word) in changed.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        with pytest.raises(ModelError, match=word):
            read(tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=r"those of SDXL 1\.0.*base_config"):
        read_single_file(single, CPU, torch.float32)
    with pytest.raises(ModelError, match="configures the other one"):
        read(single, part="refiner")
    (tmp_path / "cut.safetensors").write_bytes(single.read_bytes()[:-5])
    for name, word in (("cut.safetensors", "not a whole"), ("none.safetensors", "no such file"), ("a.ckpt", "a pickle can run code")):
        with pytest.raises(ModelError, match=word):
            read(tmp_path / name)


def test_keys_that_trainers_leave_behind_do_no_harm(model, single, tmp_path):
    extra = {
        "denoiser.sigmas": torch.zeros(1000),
        "model_ema.decay": torch.zeros(()),
        "conditioner.embedders.0.transformer.text_projection.weight": torch.zeros(2, 2),
    }
    tensors = {key: tensor for key, tensor in load_file(single).items() if not key.endswith(("position_ids", "logit_scale"))}
    save_file(tensors | extra, tmp_path / "a.safetensors")
    same(model, read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("part", ["", "refiner"])
def test_a_written_folder_loads_as_the_model_it_was(model, refiner, tmp_path, part):
    ours = refiner if part else model
    write_folder(ours, tmp_path / "out", torch.float32)
    found = load(tmp_path / "out", CPU, torch.float32)
    same(ours, found)
    assert found.zeroes_empty == ours.zeroes_empty
    assert {key: found.scheduler_config[key] for key in ours.scheduler_config if key[0] != "_"} == {
        k: v for k, v in ours.scheduler_config.items() if k[0] != "_"
    }
    for mine, theirs in ((ours.tokenizer, found.tokenizer), (ours.tokenizer_2, found.tokenizer_2)):
        if mine is not None:
            assert mine(["a photo, of; a cäT!"], padding="max_length").input_ids == theirs(["a photo, of; a cäT!"], padding="max_length").input_ids
            assert mine.pad_token_id == theirs.pad_token_id
    keys = load_file(tmp_path / "out" / "text_encoder_2" / "model.safetensors").keys()
    assert {key.split(".")[0] for key in keys} == {"text_model", "text_projection"}, "older transformers wants the prefix"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_there_is_not_overwritten(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="is there already"):
        write_folder(model, tmp_path / "out", torch.float16)
