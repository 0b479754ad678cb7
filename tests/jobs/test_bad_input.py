"""Bad input through the command line: exit code 2, a message that names the file or key and the way out, no traceback, nothing lost."""

import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from darkroom.cli.main import run

SUBJECT = ("--subject", "TOK cat")
QUICK = ("--set", "train.length=1 steps", "--set", "preview.steps=1")


@pytest.fixture
def pictures(cats, tmp_path):
    shutil.copytree(cats, tmp_path / "pictures")
    return tmp_path / "pictures"


def refused(capsys, arguments, *words):
    code = run([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    for word in words:
        assert word in err, (word, err)
    assert not out


def train(images, out, *more):
    return ["train", "dreambooth", "--images", images, *SUBJECT, "--out", out, *QUICK, *more]


def test_an_empty_folder(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(capsys, train(tmp_path / "empty", tmp_path / "run"), str(tmp_path / "empty"), "holds no picture")
    refused(capsys, train(tmp_path / "nowhere", tmp_path / "run"), "there is no such folder")


def test_a_truncated_jpeg_among_good_ones(capsys, tmp_path, pictures):
    from PIL import Image

    Image.open(next(pictures.glob("*.png"))).convert("RGB").save(pictures / "z.jpg")
    (pictures / "z.jpg").write_bytes((pictures / "z.jpg").read_bytes()[:900])
    refused(capsys, train(pictures, tmp_path / "run"), "z.jpg", "cannot be read whole", "Take it out")
    assert not (tmp_path / "run").exists()


def test_a_text_file_named_png(capsys, tmp_path, pictures):
    (pictures / "letter.png").write_text("dear diary")
    refused(capsys, train(pictures, tmp_path / "run"), "letter.png", "is not a picture")


def test_a_misspelt_key(capsys, tmp_path, pictures):
    refused(capsys, train(pictures, tmp_path / "run", "--set", "trian.steps=5"), '"trian"', 'Did you mean "train"')
    refused(capsys, train(pictures, tmp_path / "run", "--set", "train.lenght=5"), '"train.lenght"', 'Did you mean "length"')
    refused(capsys, train(pictures, tmp_path / "run", "--set", "train.length=500"), "train.length", "500 steps")
    refused(capsys, train(pictures, tmp_path / "run", "--set", "method.rank=-4"), "method.rank", "-4")
    refused(capsys, ["train", "dreamboth", "--images", pictures], 'Did you mean "dreambooth"')
    refused(capsys, train(pictures, tmp_path / "run", "--set", "nonsense"), "path=value")


def test_a_missing_trigger_word(capsys, tmp_path, pictures):
    next(pictures.glob("*.png")).with_suffix(".txt").write_text("a yellow cat")
    refused(capsys, train(pictures, tmp_path / "run"), "a yellow cat", "trigger word", "TOK")
    refused(capsys, ["train", "dreambooth", "--images", pictures, "--out", tmp_path / "run"], "data.subject is empty", "--subject")


def test_an_adapter_of_another_shape(capsys, tmp_path):
    name = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    save_file({f"{name}.lora_down.weight": torch.zeros(4, 640), f"{name}.lora_up.weight": torch.zeros(640, 4)}, tmp_path / "big.safetensors")
    refused(capsys, ["generate", "a cat", "--adapter", tmp_path / "big.safetensors", "--out", tmp_path / "o"], "big.safetensors", "made for another base")


def test_an_adapter_of_another_family(capsys, tmp_path):
    for key, family in (
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "SD 1.x"),
        ("lora_unet_double_blocks_0_img_attn_proj", "FLUX"),
        ("lora_unet_nowhere", "name nothing"),
    ):
        save_file({f"{key}.lora_down.weight": torch.zeros(4, 8), f"{key}.lora_up.weight": torch.zeros(8, 4)}, tmp_path / "a.safetensors")
        refused(capsys, ["generate", "a cat", "--adapter", tmp_path / "a.safetensors", "--out", tmp_path / "o"], "a.safetensors", family)
    assert not list((tmp_path / "o").glob("*.png"))


def test_a_pickle_is_never_unpickled(capsys, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for name in ("evil.pt", "evil.ckpt", "evil.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        refused(capsys, ["generate", "a cat", "--adapter", tmp_path / name, "--out", tmp_path / "o"], name)
        refused(capsys, ["generate", "a cat", "--base", tmp_path / name, "--out", tmp_path / "o"], name)
    assert not (tmp_path / "executed").exists()


def test_broken_adapters(capsys, tmp_path):
    name = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"
    down, up = torch.zeros(4, 128), torch.zeros(128, 4)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up * float("nan")}, tmp_path / "nan.safetensors")
    save_file({f"{name}.lora_down.weight": down}, tmp_path / "half.safetensors")
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    for file, word in (("nan", "NaN"), ("half", "are both needed"), ("cut", "not a whole safetensors"), ("none", "no such file")):
        refused(capsys, ["generate", "a cat", "--adapter", tmp_path / f"{file}.safetensors", "--out", tmp_path / "o"], file, word)
    refused(capsys, ["generate", "a cat", "--adapter", f"{tmp_path / 'nan.safetensors'}:much", "--out", tmp_path / "o"], "is no weight")


def test_a_place_that_cannot_be_written(capsys, tmp_path, pictures):
    (tmp_path / "file").write_text("in the way")
    refused(capsys, train(pictures, tmp_path / "file" / "run"), "cannot be written", "--out")
    refused(capsys, ["generate", "a cat", "--out", tmp_path / "file" / "o"], "cannot be written", "--out")


def test_bases_that_are_none(capsys, tmp_path):
    (tmp_path / "sd15").mkdir()
    (tmp_path / "sd15" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "dir").mkdir()
    for base, word in (("sd15", "StableDiffusionPipeline"), ("dir", "no model_index.json"), ("none.safetensors", "no such file"), ("none", "no hub id")):
        refused(capsys, ["generate", "a cat", "--base", tmp_path / base, "--out", tmp_path / "o"], base, word)
    refused(capsys, ["generate", "a cat", "--base", "someone/nothing", "--out", tmp_path / "o"], "someone/nothing", "hub")


def test_requests_that_cannot_be(capsys, tmp_path):
    out = ("--out", tmp_path / "o")
    refused(capsys, ["generate", *out], "needs a prompt")
    refused(capsys, ["generate", "a cat", "--steps", "0", *out], "steps", "0")
    refused(capsys, ["generate", "a cat", "--width", "65", *out], "multiple of 16", "64")
    refused(capsys, ["generate", "a cat", "--sampler", "eular", *out], 'Did you mean "Euler"')
    refused(capsys, ["generate", "a cat", "--device", "cuda:99", *out], "cuda:99", "auto")
    refused(capsys, ["generate", "--again", tmp_path / "none.png"], "none.png", "no such file")


def test_again_wants_a_png_of_ours(capsys, tmp_path, cats):
    refused(capsys, ["generate", "--again", next(cats.glob("*.png"))], "carries no Darkroom request")


def test_json_says_the_error_as_one_object(capsys, tmp_path):
    import json

    assert run(["generate", "a cat", "--sampler", "eular", "--json", "--out", str(tmp_path)]) == 2
    out, _ = capsys.readouterr()
    assert json.loads(out)["kind"] == "RecipeError"


def test_a_trial_that_could_show_nothing(capsys, tmp_path, cats):
    base = ["trial", "--adapter", tmp_path / "a.safetensors", "--out", tmp_path / "t"]
    refused(capsys, [*base, "--prompt", "a cat"], "one prompt only")
    refused(capsys, ["trial", "--out", tmp_path / "t"], "TRIAL.toml")
    two = [*base, "--prompt", "a cat", "--prompt", "a dog"]
    refused(capsys, two, "there is no such file")
    (tmp_path / "a.safetensors").write_bytes(b"")
    refused(capsys, [*two, "--set", 'metrics=["clipp"]'], 'Did you mean "clip"')
    refused(capsys, [*two, "--reference", tmp_path / "none"], "there is no such folder")
    (tmp_path / "t.toml").write_text('prompts = ["a", "b"]\n[[arms]]\nname = "x"\n[[arms]]\nname = "y"\n')
    refused(capsys, ["trial", tmp_path / "t.toml"], "are the same")
