"""Every setting of another program ends in exactly one row, and what is mapped means the same here."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from darkroom.cli.files import import_diffusers_command, import_kohya_command
from darkroom.data.kohya import WORDING
from darkroom.data.wording import Wording
from darkroom.errors import OutputError
from darkroom.jobs.migrate import import_diffusers, import_kohya, lines
from darkroom.jobs.migrate.convert import split_prompt
from darkroom.train.recipe import Recipe, load_recipe

CATS = r"""!accelerate launch train_dreambooth_lora_sdxl.py \
  --pretrained_model_name_or_path="stabilityai/stable-diffusion-xl-base-1.0" \
  --pretrained_vae_model_name_or_path="madebyollin/sdxl-vae-fp16-fix" \
  --instance_data_dir="cats" --output_dir="$output_dir" --instance_prompt="a photo of TOK cat" \
  --resolution=1024\
  --train_batch_size=1 --gradient_checkpointing --gradient_accumulation_steps=4 --snr_gamma=5.0 \
  --learning_rate=1e-4 --max_train_steps=500 --use_8bit_adam --mixed_precision fp16 --seed="7" \
  --validation_prompt="TOK cat on $place" --num_validation_images=2 --validation_epochs 25
"""
NEEDED = "--pretrained_model_name_or_path x/sdxl --instance_data_dir pics --instance_prompt 'a photo of TOK cat'"

GUI = {
    "LoRA_type": "Kohya LoCon", "sdxl": True, "v2": False, "pretrained_model_name_or_path": "baseXL.safetensors", "train_data_dir": "img",
    "max_resolution": "1024,1024", "learning_rate": 0.0002, "unet_lr": 0.0002, "text_encoder_lr": 5e-5, "network_dim": "32", "network_alpha": 16,
    "conv_dim": 32, "conv_alpha": 16, "epoch": 4, "max_train_epochs": "", "max_train_steps": "", "lr_scheduler": "cosine", "lr_warmup": 0, "optimizer": "AdamW",
    "optimizer_args": "weight_decay=0.1 betas=0.9,0.99 foreach=True", "train_batch_size": 2, "mixed_precision": "bf16", "save_precision": "fp16", "seed": "42",
    "save_every_n_epochs": 1, "min_snr_gamma": 5, "noise_offset_type": "Original", "noise_offset": 0.05, "multires_noise_iterations": 6, "enable_bucket": True,
    "bucket_reso_steps": 64, "flip_aug": True, "caption_extension": ".txt", "shuffle_caption": True, "keep_tokens": "1", "sample_every_n_steps": 100,
    "sample_prompts": "TOK cat on a sofa --n blurry --d 7 --s 20 --l 6\nTOK cat --d 8 --s 20", "sample_sampler": "euler_a", "wandb_api_key": "secret-key",
    "flux1_checkbox": False, "t5xxl": "", "metadata_title": "x", "training_comment": "my cat", "noize_offset": 1,
}  # fmt: skip
SCRIPT = """
[model]
pretrained_model_name_or_path = "base.safetensors"
[network]
network_module = "networks.lora"
network_args = ["rank_dropout=0.1"]
network_train_unet_only = true
[rest]
dataset_config = "C:/data/set.toml"
optimizer_type = "AdamW8bit"
conv_dim = 8
unet_lr = 1e-4
lr_scheduler = "cosine_with_restarts"
lr_warmup_steps = 0.1
max_train_steps = 400
save_every_n_steps = 200
caption_dropout_rate = 0.5
train_batch_size = 8
"""
DATASET = """
[general]
caption_dropout_rate = 0.1
shufle_caption = true
[[datasets]]
resolution = 768
batch_size = 4
keep_tokens = 2
  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
  class_tokens = "cat"
  [[datasets.subsets]]
  image_dir = "pics"
  class_tokens = "TOK cat"
  num_repeats = 10
  caption_dropout_rate = 0.2
  [[datasets.subsets]]
  image_dir = "more"
"""


def row(imported, key):
    found = [r for r in imported.rows if r.source_key == key]
    assert len(found) == 1, (key, found)
    return found[0]


def outcomes(imported):
    return {r.source_key: r.outcome for r in imported.rows if r.given}


def loads(imported, tmp_path):
    """The TOML text is the tree, and the recipe that `darkroom train` would read."""
    assert tomllib.loads(imported.toml) == imported.recipe
    file = tmp_path / "imported.toml"
    file.write_text(imported.toml, encoding="utf-8")
    return load_recipe(str(file))


def test_a_dreambooth_command_is_the_same_training(tmp_path):
    imported = import_diffusers(CATS)
    recipe = loads(imported, tmp_path)
    assert (recipe.data.images, recipe.trigger, recipe.template) == ("cats", "TOK", "a photo of TOK cat")
    assert (recipe.data.resolution, recipe.data.bucket_step, recipe.data.batch_size, recipe.train.accumulate) == (1024, 1024, 1, 4)
    assert (recipe.method.rank, recipe.method.alpha, recipe.objective.min_snr, str(recipe.train.length)) == (4, 4.0, 5.0, "500 steps")  # its rank, not ours
    assert (recipe.train.precision, recipe.train.seed, str(recipe.train.save_every), recipe.train.gradient_checkpointing) == ("fp16", 7, "500 steps", True)
    assert recipe.preview.prompts == ("TOK cat on $place",) * 2 and str(recipe.preview.every) == "25 epochs" and recipe.preview.seed == 7
    assert recipe.optimizer.warmup == 0, "500 is its default, and a constant schedule ignores it"
    said = outcomes(imported)
    assert recipe.optimizer.kind == "adamw8bit" and said["--use_8bit_adam"] == "mapped"
    assert said["--output_dir"] == "no_equal" and said["--pretrained_vae_model_name_or_path"] == "implied"
    assert any("$place" in text and "preview.prompts" in text for text in imported.todo)
    assert not any("output_dir" in text for text in imported.todo), "what is not carried over need not be filled in"
    assert "rank = 4                       # --rank 4 (its default)" in imported.toml


def test_the_cat_tutorial(shared, tmp_path):
    text = next((shared / "seeds").glob("003_*.txt")).read_text(encoding="utf-8", errors="replace")
    plain, prior = (import_diffusers(command) for command in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert plain.counts() == {"mapped": 18, "implied": 1, "no_equal": 2, "unknown": 0}
    assert prior.counts() == {"mapped": 22, "implied": 2, "no_equal": 2, "unknown": 0}
    for imported, length, accumulate, every in ((plain, "500 steps", 4, "25 epochs"), (prior, "1000 steps", 2, "1250 steps")):
        recipe = loads(imported, tmp_path)
        assert (str(recipe.train.length), recipe.train.accumulate, str(recipe.preview.every)) == (length, accumulate, every)
        assert recipe.data.images == "$source_data_dir" and any("$source_data_dir" in text for text in imported.todo)
    kept = loads(prior, tmp_path).data.prior
    assert (kept.prompt, kept.count, kept.weight, kept.pictures) == ("photo of cat", 100, 1.0, "")
    assert not loads(plain, tmp_path).data.prior.prompt


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ("--scale_lr --learning_rate 1e-5 --train_batch_size 2 --gradient_accumulation_steps 3", "optimizer.rate", 6e-5),
        ("--num_train_epochs 3 --repeats 20", "train.length", "60 epochs"),
        ("--train_text_encoder --text_encoder_lr 2e-5 --learning_rate 4e-5", "method.text_rate", 0.5),
        ("--lr_scheduler polynomial --lr_power 2", "optimizer.power", 2.0),
        ("--lr_scheduler cosine_with_restarts --lr_num_cycles 3", "optimizer.cycles", 3),
        ("--lr_scheduler linear --lr_warmup_steps 7", "optimizer.schedule", "linear"),
        ("--lr_scheduler constant_with_warmup", "optimizer.warmup", 500),
        ("--optimizer prodigy --learning_rate 1", "optimizer.kind", "prodigy"),
        ("--optimizer prodigy --learning_rate 1 --prodigy_beta3 0.9", "optimizer.beta3", 0.9),
        ("--optimizer prodigy --learning_rate 1 --prodigy_decouple False", "optimizer.decouple", True),  # bool("False") is True, there too
        ("--optimizer prodigy --learning_rate 1 --train_text_encoder --text_encoder_lr 0.5", "method.text_rate", 1.0),
        ("--center_crop --resolution 768", "data.bucket_step", 768),
        ("--center_crop", "data.crop", "centre"),
        ("--resolution 768", "data.crop", "random"),  # that script crops at random unless it is told otherwise
        ("--resolution 768", "data.enlarge", True),
        ("--random_flip", "data.flip", True),
        ("--use_dora", "method.dora", True),
        ("--max_train_st 9", "train.length", "9 steps"),  # argparse takes an unambiguous beginning
        ("--adam_beta1 0.8", "optimizer.betas", [0.8, 0.999]),
    ],
)
def test_diffusers_options_mean_the_same(options, key, value):
    tree = import_diffusers(f"accelerate launch train_dreambooth_lora_sdxl.py {NEEDED} {options}").recipe
    table, name = key.split(".")
    assert tree[table][name] == pytest.approx(value) if isinstance(value, float) else tree[table][name] == value


def test_what_stands_before_the_script_counts_too():
    command = f"""
        export MODEL="x/sdxl" # a comment
        export HF_TOKEN=abc
        CUDA_VISIBLE_DEVICES=1 accelerate launch --num_processes=2 --mixed_precision bf16 --gpu_ids all --warp_drive 9 \\
            train_dreambooth_lora_sdxl.py {NEEDED.replace("x/sdxl", "$MODEL")} --rnak 8
    """
    imported = import_diffusers(command)
    assert imported.recipe["base"] == "x/sdxl" and imported.recipe["train"]["accumulate"] == 2 and imported.recipe["train"]["precision"] == "bf16"
    assert "abc" not in str(imported)
    said = outcomes(imported)
    assert (said["$MODEL"], said["$CUDA_VISIBLE_DEVICES"], said["accelerate --gpu_ids"], said["accelerate --warp_drive"]) == (
        "implied", "no_equal", "no_equal", "unknown",
    )  # fmt: skip
    assert row(imported, "--rnak").outcome == "unknown" and 'Did you mean "rank"?' in row(imported, "--rnak").why


def test_text_to_image_lora_says_what_is_missing():
    command = "accelerate launch train_text_to_image_lora_sdxl.py --pretrained_model_name_or_path=x/sdxl --train_data_dir=pics --train_text_encoder"
    imported = import_diffusers(command)
    assert imported.recipe["train"]["length"] == "100 epochs" and imported.recipe["data"]["batch_size"] == 16 and imported.recipe["method"]["text_rate"] == 1.0
    assert any("--subject" in text for text in imported.todo)


@pytest.mark.parametrize(
    ("prompt", "template", "subject"),
    [
        ("a photo of TOK cat", "a photo of {subject}", "TOK cat"),
        ("photo of a sks dog, 4k", "photo of a {subject}, 4k", "sks dog"),
        ("in the style of <s0><s1>", "in the style of {subject}", "<s0><s1>"),
        ("a photo of a cat, HDR", "a photo of a {subject}, HDR", "cat"),
        ("a p3rs0n standing", "a {subject}", "p3rs0n standing"),
        ("$instance_prompt", "{subject}", "$instance_prompt"),
        ("szn75", "{subject}", "szn75"),
    ],
)
def test_a_prompt_is_taken_apart_and_is_whole_again(prompt, template, subject):
    assert split_prompt(prompt) == (template, subject)
    assert template.replace("{subject}", subject) == prompt


def test_the_gui(tmp_path):
    (tmp_path / "img" / "10_TOK cat").mkdir(parents=True)
    file = tmp_path / "gui.json"
    file.write_text(json.dumps(GUI | {"train_data_dir": str(tmp_path / "img")}), encoding="utf-8")
    imported = import_kohya(file)
    recipe = loads(imported, tmp_path)
    assert (recipe.method.conv_rank, recipe.method.conv_alpha, recipe.data.enlarge, recipe.data.crop) == (32, 16.0, True, "centre")
    assert (recipe.data.wording.shuffle, recipe.data.wording.keep_tags) == (True, 1)
    assert recipe.data.images.endswith("10_TOK cat") and recipe.data.subject == "TOK cat" and recipe.template == "TOK cat"
    assert (str(recipe.train.length), str(recipe.train.save_every), str(recipe.preview.every)) == ("40 epochs", "10 epochs", "100 steps")
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.feed_forward, recipe.method.convolution) == (32, 16.0, True, True)
    assert (recipe.optimizer.rate, recipe.method.text_rate) == (0.0002, pytest.approx(0.25)) and recipe.method.text_encoders
    assert (recipe.optimizer.weight_decay, recipe.optimizer.betas, recipe.optimizer.schedule) == (0.1, (0.9, 0.99), "cosine")
    assert (recipe.preview.prompts, recipe.preview.seed, recipe.preview.steps, recipe.preview.guidance) == (("TOK cat on a sofa", "TOK cat"), 7, 20, 6.0)
    assert (recipe.objective.noise_offset, recipe.objective.min_snr, recipe.train.save_dtype, recipe.train.seed) == (0.05, 5.0, "fp16", 42)
    assert {r.source_key.split(" ")[0] for r in imported.rows if r.given} == GUI.keys()
    assert "secret-key" not in str(imported) and row(imported, "noize_offset").outcome == "unknown"
    assert row(imported, "sample_prompts 1 negative").outcome == "no_equal" and row(imported, "sample_prompts 2 seed").outcome == "implied"
    assert row(imported, "multires_noise_iterations").outcome == "implied" and row(imported, "optimizer_args foreach").outcome == "no_equal"


def test_sd_scripts_and_its_dataset(tmp_path):
    (tmp_path / "set.toml").write_text(DATASET, encoding="utf-8")
    file = tmp_path / "train.toml"
    file.write_text(SCRIPT, encoding="utf-8")
    imported = import_kohya(file)
    recipe = loads(imported, tmp_path)
    assert (recipe.data.images, recipe.data.subject, recipe.data.resolution, recipe.data.batch_size) == ("pics", "TOK cat", 768, 4)
    assert recipe.data.wording.dropout == 0.2 and recipe.data.bucket_step == 768, "the lowest level counts; buckets are off where nothing is said"
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.text_encoders) == (4, 1.0, False), "sd-scripts' defaults"
    assert (str(recipe.train.length), str(recipe.train.save_every), recipe.optimizer.warmup, recipe.optimizer.weight_decay) == (
        "400 steps",
        "200 steps",
        40,
        0.01,
    )
    said = outcomes(imported)
    assert said["caption_dropout_rate"] == said["general.caption_dropout_rate"] == said["train_batch_size"] == "implied"
    assert said["datasets[0].subsets[0].image_dir"] == said["datasets[0].subsets[2].image_dir"] == "no_equal"
    assert (
        said["general.shufle_caption"] == said["conv_dim"] == "unknown"
        and said["network_args rank_dropout"] == "no_equal"
        and said["optimizer_type"] == "mapped"
    )
    caption = row(imported, "caption_extension")
    assert (caption.given, caption.value, caption.outcome) == (False, ".caption", "no_equal"), "the default that leaves captions unread is told"
    alone = import_kohya(tmp_path / "set.toml")
    assert alone.recipe["data"]["images"] == "pics" and "train" not in alone.recipe and any("config_file" in text for text in alone.todo)


def settings(tmp_path, *lines):
    """A config_file of sd-scripts with these lines, imported."""
    file = tmp_path / "c.toml"
    file.write_text("\n".join(['network_module = "networks.lora"', "max_train_epochs = 3", *lines]), encoding="utf-8")
    imported = import_kohya(file)
    return imported, loads(imported, tmp_path)


def test_a_rate_that_sets_itself_and_is_none_here_is_not_carried_over(tmp_path):
    imported, _ = settings(tmp_path, 'optimizer_type = "DAdaptLion"', "learning_rate = 1.0")
    assert imported.recipe["optimizer"]["rate"] == 1e-4 and outcomes(imported)["learning_rate"] == "no_equal"
    assert imported.recipe["train"]["save_every"] == "3 epochs", "sd-scripts saves at the end where nothing is said"


KOHYAS = {
    "AdamW8bit": ("", {"kind": "adamw8bit", "weight_decay": 0.01}),
    "PagedAdamW8bit": ("betas=0.9,0.99", {"kind": "adamw8bit", "betas": (0.9, 0.99)}),
    "Lion": ("", {"kind": "lion", "weight_decay": 0.0, "betas": (0.9, 0.99)}),
    "Lion8bit": ("weight_decay=0.1", {"kind": "lion8bit", "weight_decay": 0.1}),
    "Prodigy": (
        "decouple=True weight_decay=0.01 d_coef=2 use_bias_correction=True safeguard_warmup=True betas=0.9,0.99 growth_rate=inf",
        {"kind": "prodigy", "d_coef": 2.0, "weight_decay": 0.01, "bias_correction": True, "safeguard_warmup": True, "growth_rate": 0.0, "rate": 1.0},
    ),
    "prodigy": ("", {"kind": "prodigy", "bias_correction": False, "safeguard_warmup": False, "weight_decay": 0.0}),
    "DAdaptAdam": ("", {"kind": "dadaptation", "decouple": False, "bias_correction": False}),
    "AdamWScheduleFree": ("warmup_steps=20", {"kind": "schedule_free", "warmup": 20, "schedule": "constant"}),
    "Adafactor": ("scale_parameter=False relative_step=False warmup_init=False", {"kind": "adafactor", "scale_parameter": False, "schedule": "cosine"}),
    "adafactor": ("", {"kind": "adafactor", "relative_step": True, "scale_parameter": True, "rate": 1.0, "schedule": "constant"}),
}


@pytest.mark.parametrize("name", KOHYAS)
def test_sd_scripts_optimizers_are_ours(tmp_path, name):
    arguments, expected = KOHYAS[name]
    quoted = ", ".join(f'"{part}"' for part in arguments.split())
    lines_ = (f'optimizer_type = "{name}"', f"optimizer_args = [{quoted}]", "learning_rate = 1.0", 'lr_scheduler = "cosine"', "network_train_unet_only = true")
    imported, recipe = settings(tmp_path, *lines_)
    assert {key: getattr(recipe.optimizer, key) for key in expected} == expected
    said = outcomes(imported)
    assert said["optimizer_type"] == "mapped" and "no_equal" not in {said[f"optimizer_args {part.partition('=')[0]}"] for part in arguments.split()}
    assert said["lr_scheduler"] == ("implied" if name in ("AdamWScheduleFree", "adafactor") else "mapped")


def test_one_rate_for_all_is_told(tmp_path):
    imported, recipe = settings(tmp_path, 'optimizer_type = "Prodigy"', "unet_lr = 1.0", "text_encoder_lr = 0.5")
    assert recipe.method.text_rate == 1.0 and "one rate for all" in row(imported, "text_encoder_lr").why
    small, _ = settings(tmp_path, 'optimizer_type = "Prodigy"', "learning_rate = 1e-4")
    assert any("should be about 1" in text for text in small.todo)


def test_sd_scripts_objective_is_ours(tmp_path):
    imported, recipe = settings(
        tmp_path, "noise_offset = 0.05", "adaptive_noise_scale = 0.01", "multires_noise_iterations = 6", "ip_noise_gamma = 0.1", "v_parameterization = true",
        "zero_terminal_snr = true", "debiased_estimation_loss = true", 'loss_type = "huber"', 'huber_schedule = "exponential"', "huber_c = 0.2",
        "min_timestep = 100", "max_timestep = 900", 'lr_scheduler = "cosine_with_min_lr"', "lr_scheduler_min_lr_ratio = 0.1", "lr_warmup_steps = 0.1",
    )  # fmt: skip
    found = recipe.objective
    assert (found.noise_offset, found.adaptive_offset, found.pyramid, found.pyramid_discount, found.perturbation) == (0.05, 0.01, 6, 0.3, 0.1)
    assert (found.prediction, found.zero_terminal_snr, found.debiased, found.min_snr) == ("v_prediction", True, True, 0.0)
    assert (found.loss.kind, found.loss.schedule, found.loss.c) == ("huber", "exponential", 0.2)
    assert (found.timesteps.kind, found.timesteps.low, found.timesteps.high) == ("uniform", 100, 900)
    assert (recipe.optimizer.schedule, recipe.optimizer.floor, recipe.optimizer.warmup) == ("cosine", 0.1, 0.1)
    assert "no_equal" not in {outcome for key, outcome in outcomes(imported).items() if key not in ("learning_rate", "caption_extension")}


def test_sd_scripts_wording_is_ours(tmp_path):
    shuffled = ("shuffle_caption = true", "keep_tokens = 2", 'caption_separator = ";"', "caption_tag_dropout_rate = 0.25", 'caption_suffix = "4k"')
    imported, recipe = settings(tmp_path, *shuffled, 'caption_prefix = "TOK;"')
    assert recipe.data.wording == Wording(shuffle=True, keep_tags=1, separator=";", tag_dropout=0.25, prefix="TOK;", suffix="4k"), (
        "keep_tokens counts the prefix"
    )
    assert {outcomes(imported)[key] for key in WORDING if key in outcomes(imported)} == {"mapped"}
    imported, recipe = settings(tmp_path, *shuffled, 'keep_tokens_separator = "|||"')
    assert (recipe.data.wording.keep_separator, recipe.data.wording.keep_tags) == ("|||", 2)
    imported, recipe = settings(tmp_path, "keep_tokens = 2", 'keep_tokens_separator = "|||"')
    assert recipe.data.wording == Wording() and row(imported, "keep_tokens_separator").outcome == "implied", "without shuffling the mark stays there too"


@pytest.mark.parametrize(
    ("prefix", "suffix", "mark", "keep"),
    [
        ("", "", "", 0),
        ("", "", "", 2),
        ("TOK", "4k", "", 1),
        ("TOK, x,", "", "", 2),
        ("TOK |||", "", "|||", 0),
        ("TOK |||", "||| 4k", "|||", 3),
        ("", "", "|||", 1),
    ],
)
def test_wording_keeps_what_sd_scripts_keeps(tmp_path, prefix, suffix, mark, keep):
    """With every loose tag left out, what remains of a caption is what sd-scripts' process_caption keeps in its place."""
    from darkroom.data.wording import worded

    caption = "a ||| b, c, d" if mark and mark not in prefix else "a, b, c, d"
    lines_ = [f'{key} = "{text}"' for key, text in (("caption_prefix", prefix), ("caption_suffix", suffix), ("keep_tokens_separator", mark)) if text]
    _, recipe = settings(tmp_path, "shuffle_caption = true", "caption_tag_dropout_rate = 1.0", f"keep_tokens = {keep}", *lines_)
    whole = " ".join(part for part in (prefix, caption, suffix) if part)
    if mark:
        front, _, rest = whole.partition(mark)
        kept = [*front.split(","), *rest.partition(mark)[2].split(",")]
    else:
        kept = [*whole.split(",")[:keep], *([prefix] if prefix and not keep else []), *([suffix] if suffix else [])]  # here prefix and suffix stay always
    found = worded({}, caption, recipe.data.wording, 0, 0, "x")
    assert " ".join(found.replace(",", " ").split()) == " ".join(",".join(kept).replace(",", " ").split())


@pytest.mark.parametrize(
    ("lines_", "enlarge", "outcome"),
    [
        (["enable_bucket = true"], True, None),
        (["enable_bucket = true", "bucket_no_upscale = true"], False, "mapped"),
        (["bucket_no_upscale = true"], True, "implied"),  # without buckets sd-scripts enlarges always
        (["bucket_no_upscale = false"], True, "mapped"),
    ],
)
def test_small_pictures_are_enlarged_where_sd_scripts_enlarges_them(tmp_path, lines_, enlarge, outcome):
    imported, recipe = settings(tmp_path, *lines_, "random_crop = true")
    assert recipe.data.enlarge is enlarge and outcomes(imported).get("bucket_no_upscale") == outcome and recipe.data.crop == "random"


def test_masks_and_held_out_pictures_are_the_datasets(tmp_path):
    imported, recipe = settings(
        tmp_path, "masked_loss = true", 'conditioning_data_dir = "m"', "validation_split = 0.1", "validate_every_n_epochs = 2", 'train_data_dir = "p"'
    )
    assert recipe.objective.unmasked_weight == 0.0 and str(recipe.validation.every) == "2 epochs"
    assert any("darkroom dataset prepare p --masks m" in text for text in imported.todo) and any("--held-out 0.1" in text for text in imported.todo)
    assert row(imported, "conditioning_data_dir").outcome == row(imported, "validation_split").outcome == "no_equal"
    imported, recipe = settings(tmp_path, "alpha_mask = true")
    assert recipe.objective.unmasked_weight == 0.0 and any("--alpha" in text for text in imported.todo)


@pytest.mark.parametrize(
    ("line", "key", "why"),
    [
        ("zero_terminal_snr = true", "zero_terminal_snr", "without v_parameterization it has no meaning"),
        ("debiased_estimation_loss = true\nmin_snr_gamma = 5", "debiased_estimation_loss", "min-SNR alone is kept"),
        ("adaptive_noise_scale = 0.1", "adaptive_noise_scale", "it adapts noise_offset, which is not set"),
        ('lr_scheduler = "inverse_sqrt"', "lr_scheduler", "it is no schedule here"),
        ('optimizer_args = ["d_coef=2"]', "optimizer_args d_coef", "adamw has no such setting"),
    ],
)
def test_what_has_no_meaning_here_is_told(tmp_path, line, key, why):
    imported, _ = settings(tmp_path, line)
    assert row(imported, key).outcome == "no_equal" and why in row(imported, key).why


def test_an_empty_range_is_the_one_timestep_that_sd_scripts_learns(tmp_path):
    imported, recipe = settings(tmp_path, "min_timestep = 40", "max_timestep = 40")
    assert (recipe.objective.timesteps.low, recipe.objective.timesteps.high) == (40, 41) and "timestep 40 alone" in row(imported, "min_timestep").why


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"])
@pytest.mark.parametrize("warmup", [0, 10])
def test_rates_go_as_diffusers_lets_them_go(name, warmup):
    """Against diffusers' own schedules: the same after the warm-up, in which ours is one step ahead (it has no step of rate 0)."""
    import torch
    from diffusers.optimization import get_scheduler

    options = f"--lr_scheduler {name} --lr_warmup_steps {warmup} --max_train_steps 50 --learning_rate 1"
    ours = Recipe.from_tree(import_diffusers(f"accelerate launch train_dreambooth_lora_sdxl.py {NEEDED} {options}").recipe, "test").optimizer
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_scheduler(name, theirs, num_warmup_steps=warmup, num_training_steps=50)
    for step in range(50):
        at = step + 1 if step < ours.warmup else step
        rate = at / ours.warmup if step < ours.warmup else schedule.get_last_lr()[0]
        assert ours.factor(step, 50) == pytest.approx(rate, abs=1e-6), step
        theirs.step()
        schedule.step()


def test_one_square_bucket_is_a_centre_crop():
    from darkroom.data.buckets import bucket_shapes, fit

    assert bucket_shapes(1024, 1024) == [(1024, 1024)]
    found = fit(1500, 1200, bucket_shapes(1024, 1024))
    assert (found.resized, found.top, found.left) == ((1280, 1024), 0, 128)


def test_the_report_names_every_key(tmp_path, capsys):
    imported = import_diffusers(CATS)
    text = " ".join("\n".join(lines(imported)).split())
    for found in imported.rows:
        assert found.source_key in text and " ".join(found.why.split()) in text
    import_diffusers_command(CATS, tmp_path / "cats.toml", False)
    assert "NO EQUAL" in capsys.readouterr().out and load_recipe(str(tmp_path / "cats.toml")).method.rank == 4
    with pytest.raises(OutputError, match="not written over"):
        import_diffusers_command(CATS, tmp_path / "cats.toml", False)
    (tmp_path / "train.sh").write_text(CATS, encoding="utf-8")
    import_diffusers_command(str(tmp_path / "train.sh"), None, True)
    assert json.loads(capsys.readouterr().out)["counts"] == imported.counts()
    (tmp_path / "set.toml").write_text(DATASET, encoding="utf-8")
    import_kohya_command(tmp_path / "set.toml", None, False)
    assert "UNKNOWN to that program too" in capsys.readouterr().out


def test_importing_costs_no_torch():
    code = f"import sys; from darkroom.jobs.migrate import import_diffusers; import_diffusers({CATS!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
