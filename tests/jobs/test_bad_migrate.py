"""What cannot be imported says why, in words: the value, the rule and the way out."""

import re

import pytest

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import import_diffusers, import_kohya

SCRIPT = "accelerate launch train_dreambooth_lora_sdxl.py"
NEEDED = "--pretrained_model_name_or_path x/sdxl --instance_data_dir pics --instance_prompt 'a photo of TOK cat'"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "empty"),
        ("accelerate launch", "names no script"),
        ("accelerate launch train_dreambooth_lora.py --x 1", "Its SDXL twin is train_dreambooth_lora_sdxl.py"),
        ("python train_text_to_image.py", "Stable Diffusion 1.x and 2.x"),
        ("accelerate launch train_dreambooth_lora_flux.py", "another family"),
        ("accelerate launch train_dreambooth_sdxl_lora.py", 'Did you mean "train_dreambooth_lora_sdxl.py"'),
        ("accelerate launch sdxl_train_network.py", "darkroom import kohya"),
        ("accelerate launch train_text_to_image_sdxl.py --x", "whole U-Net, which no recipe can say yet"),
        ("accelerate launch textual_inversion_sdxl.py", "a new word, which no recipe can say yet"),
        ("accelerate launch train_dreambooth_lora_sdxl.py --instance_prompt=x", "--pretrained_model_name_or_path is missing"),
        (f"{SCRIPT} {NEEDED} --class_prompt cat", "does nothing without --with_prior_preservation"),
        (f"{SCRIPT} {NEEDED} --with_prior_preservation", "needs --class_data_dir"),
        (f"{SCRIPT} {NEEDED} --dataset_name d", "exclude each other"),
        (f"{SCRIPT} {NEEDED} --seed 1 --seed 2", "given twice"),
        (f"{SCRIPT} {NEEDED} --seed", "has no value behind it"),
        (f"{SCRIPT} {NEEDED} --rank four", "--rank = 'four': is no number"),
        (f"{SCRIPT} {NEEDED} stray", '"stray" belongs to no option'),
        (f"{SCRIPT} {NEEDED} --report_to='wandb", "quotation mark"),
        (f"{SCRIPT} {NEEDED} --learning_rate=0", "optimizer.rate"),
        (f"{SCRIPT} {NEEDED.replace('x/sdxl', 'runwayml/stable-diffusion-v1-5')}", "not an SDXL model"),
    ],
)
def test_commands_that_cannot_be_imported_say_why(command, words):
    with pytest.raises(RecipeError, match=re.escape(words)):
        import_diffusers(command)


LORA = 'network_module = "networks.lora"\n'


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{not json", "is no JSON"),
        ("a.toml", "a = ", "is no TOML"),
        ("a.json", "[]", "holds no settings"),
        ("a.toml", "colour = 3", "holds no setting of kohya's programs"),
        ("a.toml", "learning_rate = 4e-7", "names no network_module"),
        ("a.json", '{"sdxl": false, "LoRA_type": "Standard"}', "Stable Diffusion 1.x"),
        ("a.json", '{"v2": true, "sdxl": true, "LoRA_type": "Standard"}', "Stable Diffusion 2.x"),
        ("a.json", '{"flux1_checkbox": true, "LoRA_type": "Flux1"}', "FLUX.1"),
        ("a.json", '{"sdxl": true, "learning_rate_te1": 0, "epoch": 1}', "whole U-Net"),
        ("a.json", '{"sdxl": true, "init_word": "cat", "epoch": 1}', "textual inversion"),
        ("a.toml", LORA + "unet_lr = 0\nnetwork_train_unet_only = true", "both the U-Net and the text encoders"),
        ("a.toml", LORA + 'use_8bit_adam = true\noptimizer_type = "Lion"', "Keep one"),
        ("a.toml", LORA + "[a]\nseed = 1\n[b]\nseed = 2", "given twice"),
        ("a.toml", LORA + 'network_dim = "wide"', "network_dim = 'wide': is no number"),
        ("a.toml", LORA + 'resolution = "big"', "neither a side nor width,height"),
        ("a.toml", "datasets = 3", "[[datasets]]"),
        ("a.toml", "[[datasets]]\n[[datasets.subsets]]\nis_reg = true\nimage_dir = 'x'", "nothing to learn from"),
    ],
)
def test_settings_that_cannot_be_imported_say_why(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=re.escape(words)):
        import_kohya(tmp_path / name)
    with pytest.raises(RecipeError, match="no such file"):
        import_kohya(tmp_path / "missing.json")
