"""For random settings: every key appears exactly once in the rows, and the recipe loads."""

import json
import shlex
import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import diffusers_options as d
from darkroom.jobs.migrate import import_diffusers, import_kohya
from darkroom.jobs.migrate import kohya_options as k
from darkroom.train.recipe import Recipe


def values(option):
    """Strategies for valid values, as a user writes them on a command line."""
    special = {
        "mixed_precision": ["no", "fp16", "bf16"], "save_precision": ["float", "fp16", "bf16"], "lr_scheduler": ["constant", "linear", "cosine", "polynomial"],
        "resolution": ["512", "1024"], "optimizer": ["AdamW", "prodigy"], "optimizer_type": ["AdamW", "Lion", "Prodigy", "PagedAdamW8bit", "adafactor", "CAME"],
        "text_encoder_lr": ["1e-5", "0.5"], "network_module": ["networks.lora", "lycoris.kohya", "networks.dylora"], "seed": ["0", "1", "77"],
        "optimizer_args": ["weight_decay=0.1"], "sample_prompts": ["a cat"], "caption_dropout_rate": ["0", "0.5"], "noise_offset": ["0", "0.1"],
        "adam_beta1": ["0.5"], "adam_beta2": ["0.9"], "loss_type": ["l2", "l1", "huber", "smooth_l1"], "huber_schedule": ["snr", "exponential", "constant"],
        "prediction_type": ["epsilon", "v_prediction"],
    }  # fmt: skip
    if option.name in special:
        return st.sampled_from(special[option.name])
    return {
        "int": st.integers(1, 40).map(str), "float": st.sampled_from(["0.001", "0.5", "1e-4"]), "number": st.sampled_from(["0", "3", "0.25"]),
        "flag": st.just("true"), "list": st.just("a=1"),
    }.get(option.kind, st.sampled_from(["x", "./a b/c", 'it\'s "q"']))  # fmt: skip


def subsets(options, needed):
    return st.fixed_dictionaries(
        {name: values(options[name]) for name in needed}, optional={name: values(option) for name, option in options.items() if name not in needed}
    )


def exactly_once(imported, keys):
    assert tomllib.loads(imported.toml) == imported.recipe
    Recipe.from_tree(imported.recipe, "the property test")
    given_ = [r.source_key for r in imported.rows if r.given]
    assert len(given_) == len(set(given_)), "a key stands twice"
    for key in keys:
        assert sum(name == key for name in given_) == 1 or any(name.startswith(f"{key} ") for name in given_), key
    assert "unknown" not in {r.outcome for r in imported.rows}


EXCLUSIVE = {"dataset_name", "class_prompt", "class_data_dir", "with_prior_preservation", "do_edm_style_training"}
PLAIN = {name: option for name, option in d.DREAMBOOTH.items() if name not in EXCLUSIVE}


@settings(max_examples=60)
@given(subsets(PLAIN, ("pretrained_model_name_or_path", "instance_data_dir", "instance_prompt")), st.booleans())
def test_every_option_of_diffusers_ends_in_one_row(chosen, prior):
    chosen |= {"with_prior_preservation": "true", "class_prompt": "a cat", "class_data_dir": "c"} if prior else {}
    words = [f"--{name}" if d.DREAMBOOTH[name].kind == "flag" else f"--{name}={shlex.quote(value)}" for name, value in chosen.items()]
    exactly_once(import_diffusers(f"accelerate launch train_dreambooth_lora_sdxl.py {' '.join(words)}"), {f"--{name}" for name in chosen})


UNLIKELY = {"v2", "use_8bit_adam", "use_lion_optimizer", "dataset_config", "is_reg", "network_train_unet_only", "network_train_text_encoder_only"}
KOHYA = {name: option for name, option in k.TRAIN.items() if name not in UNLIKELY | k.NETWORK | k.SUBSETS} | {
    name: k.table(f"{name} str")[name] for name in sorted({*k.IMPLIED, *k.LACKING} - k.TRAIN.keys() - k.NETWORK - k.SUBSETS)
}


BLOCKS = [",".join(["8"] * 23), ",".join(str(n % 9) for n in range(23))]
ARGUMENTS = {
    "algo": ["lora", "loha", "LoKr", "ia3", "dylora", "diag-oft", "boft", "full", "glora"], "preset": ["full", "attn-only", "unet-only", "ia3", "mine.toml"],
    "conv_dim": ["0", "4", "8"], "conv_alpha": ["0", "1", "8"], "factor": ["-1", "0", "8"], "constraint": ["0", "0.1"], "block_size": ["2"], "unit": ["1", "2"],
    "down_lr_weight": ["cosine+.25", "1,1,0,0.5"], "mid_lr_weight": ["1,0.5,1"], "up_lr_weight": ["linear"], "block_lr_zero_threshold": ["0", "0.1"],
    "module_dropout": ["0", "0.1", "1"], "decompose_both": ["False"],
} | dict.fromkeys(("block_dims", "conv_block_dims", "block_alphas", "conv_block_alphas"), BLOCKS)  # fmt: skip
NETWORKS = ["networks.lora", "lycoris.kohya", "networks.dylora", "networks.lora_fa", "networks.loha", "networks.lokr", "networks.oft"]


@settings(max_examples=60)
@given(
    st.sampled_from(NETWORKS),
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(ARGUMENTS.get(name, ["True", "False"] if name in k.LYCORIS else ["0", "0.5"])) for name in k.NETWORK}
    ),
    st.sampled_from(
        [{}, {"text_encoder_lr": [1e-5, 0.0]}, {"network_train_text_encoder_only": True}, {"optimizer_type": "Prodigy", "text_encoder_lr": [1.0, 0.5]}]
    ),
)
def test_every_argument_of_a_network_ends_in_one_row(tmp_path_factory, module, arguments, others):
    file = tmp_path_factory.getbasetemp() / "network.json"
    said = {"network_module": module, "network_dim": 8, "network_args": [f"{name}={value}" for name, value in arguments.items()]} | others
    try:
        file.write_text(json.dumps(said), encoding="utf-8")
        imported = import_kohya(file)
    except RecipeError as error:  # a preset without text encoders, and the U-Net switched off
        assert "left untrained" in str(error)
        return
    exactly_once(imported, {f"network_args {name}" for name in arguments} | others.keys())


@settings(max_examples=60)
@given(subsets(KOHYA, ("network_module",)), st.sampled_from(["network_train_unet_only", "network_train_text_encoder_only", ""]))
def test_every_option_of_sd_scripts_ends_in_one_row(tmp_path_factory, chosen, flag):
    chosen |= {flag: "true"} if flag else {}
    file = tmp_path_factory.getbasetemp() / "settings.json"
    file.write_text(json.dumps(chosen), encoding="utf-8")
    exactly_once(import_kohya(file), chosen)
