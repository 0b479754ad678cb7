"""Bad input to generate, grid and prompt: exit code 2, value, rule and way out, no picture half written."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from darkroom.cli.main import run


@pytest.fixture
def place(tmp_path):
    Image.new("RGB", (64, 64), (200, 60, 40)).save(tmp_path / "photo.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    mask = Image.new("L", (32, 64), 0)
    mask.paste(255, (0, 0, 16, 64))
    mask.save(tmp_path / "narrow.png")
    whole = Image.new("L", (64, 64), 0)
    whole.paste(255, (0, 0, 32, 64))
    whole.save(tmp_path / "mask.png")
    return tmp_path


def refused(capsys, place, arguments, *words):
    code = run(["generate", "a cat", "--steps", "2", "--out", str(place / "o"), *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert "Traceback" not in err and not out
    for word in words:
        assert word in err, (word, err)
    assert not list((place / "o").glob("*.png")) if (place / "o").exists() else True


def test_masks(capsys, place):
    photo = ("--image", place / "photo.png")
    refused(capsys, place, [*photo, "--mask", place / "narrow.png"], "32 x 64", "64 x 64", "as large")
    refused(capsys, place, [*photo, "--mask", place / "photo.png"], "black all over")
    refused(capsys, place, ["--mask", place / "mask.png"], "mask needs a start picture")
    refused(capsys, place, [*photo, "--keep", place / "none.png"], "no such")
    refused(capsys, place, [*photo, "--mask", place / "mask.png", "--keep", place / "mask.png"], "leave nothing to draw")


def test_start_pictures(capsys, place):
    refused(capsys, place, ["--image", place / "dot.png"], "1 x 1", "too small")
    refused(capsys, place, ["--image", place / "none.png"], "there is no such")
    (place / "letter.png").write_text("dear diary")
    refused(capsys, place, ["--image", place / "letter.png"], "is not a picture")
    refused(capsys, place, ["--image", place / "photo.png", "--strength", 2], "strength", "2")
    refused(capsys, place, ["--image", place / "photo.png", "--strength", 0], "strength", "0")
    refused(capsys, place, ["--image", place / "photo.png", "--strength", 0.1], "leaves no step", "at least 0.5")
    refused(capsys, place, ["--strength", 0.5], "needs a start picture")
    refused(capsys, place, ["--image", place / "photo.png", "--outpaint", "middle=3"], "left=64,right=64")
    refused(capsys, place, ["--image", place / "photo.png", "--outpaint", "left=9999"], "more than 4 times")
    refused(
        capsys, place, ["--image", place / "photo.png", "--strength", 0.5, "--refiner", "pocket-refiner", "--set", "refiner.fraction=0.2"], "no step before"
    )


def test_fields(capsys, place):
    refused(capsys, place, ["--steps", 0], "steps", "0")
    refused(capsys, place, ["--width", 63], "width 63", "The nearest is 64")
    refused(capsys, place, ["--sampler", "Eular a"], '"Eular a" is not known', 'Did you mean "Euler a"')
    refused(capsys, place, ["--sampler", "LCM", "--steps", 100], "LCM with 100 steps", "fewer steps")
    refused(capsys, place, ["--set", "guidanse=3"], '"guidanse"', 'Did you mean "guidance"')
    refused(capsys, place, ["--upscale", 7], "upscale", "7")
    refused(capsys, place, ["--memory", "tiny"], '"tiny"', "sequential")
    refused(capsys, place, ["--language", "compell"], "language", "compel")
    refused(capsys, place, ["--base", "pocket-refiner"], "is a refiner", "--refiner")
    refused(capsys, place, ["--refiner", place / "nowhere"], "nowhere")
    refused(capsys, place, ["--tiny", place / "nowhere", "--previews", 1], "tiny autoencoder")
    refused(capsys, place, ["--set", "clip_skip=9"], "clip")


def test_adapters_and_embeddings(capsys, place):
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    save_file({f"{name}.lora_down.weight": torch.zeros(4, 8), f"{name}.lora_up.weight": torch.zeros(8, 4)}, place / "sd15.safetensors")
    refused(capsys, place, ["--adapter", place / "sd15.safetensors"], "SD 1.x")
    (place / "cut.safetensors").write_bytes((place / "sd15.safetensors").read_bytes()[:-40])
    refused(capsys, place, ["--adapter", place / "cut.safetensors"], "not a whole safetensors")
    refused(capsys, place, ["--adapter", f"{place / 'sd15.safetensors'}:1@sideways"], "sd15.safetensors")
    save_file({"emb_params": torch.zeros(1, 768)}, place / "word.safetensors")
    refused(capsys, place, ["--embedding", place / "word.safetensors"], "word.safetensors")
    (place / "evil.pt").write_bytes(b"\x80\x04")
    refused(capsys, place, ["--embedding", place / "evil.pt"], "pickle")


def test_controls(capsys, place, model):
    from diffusers import ControlNetModel

    refused(capsys, place, ["--control", "photo.png"], "MODEL=IMAGE")
    refused(capsys, place, ["--control", f"{place / 'nowhere'}={place / 'photo.png'}"], "nowhere")
    other = ControlNetModel(
        block_out_channels=(32, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=32, attention_head_dim=8, layers_per_block=1,
        norm_num_groups=8, conditioning_embedding_out_channels=(16, 32),
    )  # fmt: skip
    other.save_pretrained(place / "other")
    refused(capsys, place, ["--control", f"{place / 'other'}={place / 'photo.png'}"], "another family", "cross_attention_dim")
    (place / "evil.pt").write_bytes(b"\x80\x04")
    refused(capsys, place, ["--control", f"{place / 'evil.pt'}={place / 'photo.png'}"], "pickle")
    fitting = ControlNetModel.from_unet(model.unet, conditioning_embedding_out_channels=(16, 32, 96))
    fitting.save_pretrained(place / "fitting")
    refused(capsys, place, ["--control", f"{place / 'fitting'}={place / 'none.png'}"], "none.png")
    refused(capsys, place, ["--control", f"{place / 'fitting'}={place / 'photo.png'},start=0.9,end=0.1"], "the end must come later")
    assert run(["generate", "a cat", "--steps", "2", "--out", str(place / "c"), "--control", f"{place / 'fitting'}={place / 'photo.png'},weight=0.5"]) == 0


def test_prompts(capsys, place):
    for prompt, word in (("a (cat)++ and a [dog]", "--language"), ("<lora:thor:much>", "thor"), ("cat <lora:thor:1>", "There is no such folder")):
        code = run(["generate", prompt, "--steps", "1", "--out", str(place / "o"), "--adapters", str(place / "nowhere")])
        assert code == 2 and word in capsys.readouterr().err
    refused(capsys, place, ["--negative", "one AND two"], "AND", "negative")


def test_grids(capsys, place):
    for arguments, word in (
        (["a cat"], "an axis"), (["a cat", "--axis", "seed"], "FIELD=VALUE"), (["a cat", "--axis", "sed=1,2"], 'Did you mean "seed"'),
        (["a cat", "--arm", "x: y"], "field=value"), ([str(place / "none.toml")], "no such file"), (["a cat", "--axis", "weight=0,1"], "no adapter"),
        (["a cat", "--axis", f"adapter={place / 'run'}@5"], "no such file"),
    ):  # fmt: skip
        assert run(["grid", *arguments, "--out", str(place / "g")]) == 2
        assert word in capsys.readouterr().err, arguments
