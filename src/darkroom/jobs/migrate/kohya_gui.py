"""The JSON of the kohya_ss GUI in the words of sd-scripts: what its form calls otherwise, and what its empty fields and zeros mean.

Read from bmaltais/kohya_ss, kohya_gui/lora_gui.py (train_model) and common_gui.py (July 2026), and its presets of 2023 on.
"""

from __future__ import annotations

from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate.kohya_options import KNOWN
from darkroom.jobs.migrate.options import Option, read, words
from darkroom.jobs.migrate.report import Row

RENAMED = {
    "max_resolution": "resolution", "optimizer": "optimizer_type", "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae", "LoRA_type": "network_module", "LyCORIS_preset": "preset", "lora_network_weights": "network_weights",
    "stop_text_encoder_training_pct": "stop_text_encoder_training", "constrain": "constraint", "conv_dims": "conv_block_dims",
    "conv_alphas": "conv_block_alphas", "batch_size": "train_batch_size",
}  # fmt: skip
FAMILIES = {"flux1_checkbox": "FLUX.1", "sd3_checkbox": "Stable Diffusion 3", "hunyuan_image_checkbox": "HunyuanImage", "anima_checkbox": "Anima",
            "lumina_checkbox": "Lumina"}  # fmt: skip
FOREIGN = words(
    "t5xxl_lr model_type ae clip_l t5xxl discrete_flow_shift model_prediction_type timestep_sampling split_mode train_blocks t5xxl_max_token_length "
    "enable_all_linear guidance_scale mem_eff_save apply_t5_attn_mask split_qkv train_t5xxl single_blocks_to_swap double_blocks_to_swap show_timesteps "
    "show_timesteps_resolution img_attn_dim img_mlp_dim img_mod_dim single_dim txt_attn_dim txt_mlp_dim txt_mod_dim single_mod_dim in_dims "
    "train_double_block_indices train_single_block_indices clip_g clip_g_dropout_rate logit_mean logit_std mode_scale pos_emb_random_crop_rate save_clip "
    "save_t5xxl t5xxl_device t5xxl_dtype weighting_scheme train_lora_ggpo ggpo_sigma ggpo_beta"
)
PREFIXES = ("flux1_", "sd3_", "hunyuan_", "anima_", "lumina_", "flux_")
ANYWAY = {
    "model_list": "it is the form's list; pretrained_model_name_or_path says what was chosen",
    "num_cpu_threads_per_process": "it says how processes are started", "num_processes": "it says how processes are started",
    "num_machines": "it says how processes are started", "multi_gpu": "it says how processes are started", "gpu_ids": "it says how processes are started",
    "main_process_port": "it says how processes are started", "extra_accelerate_launch_args": "it says how processes are started",
    "dynamo_mode": "compiling changes speed alone", "dynamo_use_fullgraph": "compiling changes speed alone",
    "dynamo_use_dynamic": "compiling changes speed alone",
    "lowvram": "sd-scripts has no such option any more", "no_token_padding": "sd-scripts has no such option any more", "save_as_bool": "it is the form's",
    "use_wandb": "nothing is sent anywhere", "weights": "it is the form's", "sdxl": "Darkroom trains SDXL alone",
}  # fmt: skip
UNSET_ZERO = (
    "max_train_epochs", "max_train_steps", "save_every_n_epochs", "save_every_n_steps", "sample_every_n_epochs", "sample_every_n_steps", "seed",
)  # fmt: skip


def is_gui(tree: dict[str, Any]) -> bool:
    """Whether it is a form's JSON: sd-scripts has no such names."""
    return bool({"LoRA_type", "max_resolution", "sdxl", "lr_warmup", "epoch", "model_list"} & tree.keys())


def translate(tree: dict[str, Any], program: str) -> tuple[dict[str, Any], dict[str, str], list[Row]]:
    """(settings under sd-scripts' names, the form's names for them, rows of keys that end here). Raises RecipeError for another family's."""
    _refuse_other_families(tree, program)
    given: dict[str, Any] = {}
    names: dict[str, str] = {}
    rows: list[Row] = []
    left = _length(tree, given, names, rows) | _warmup(tree, given, names, rows) | _rates(tree, given, names, rows) | _noise(tree, rows)
    if tree.get("LoRA_type") in ("Standard", "LoRA-FA"):
        for key in ("conv_dim", "conv_alpha"):
            if key in tree:
                rows.append(Row(key, tree[key], "implied", "", f'"{tree["LoRA_type"]}" leaves the convolutions alone'))
                left.add(key)
    for key, value in tree.items():
        if key in left:
            continue
        name = RENAMED.get(key, key)
        why = ANYWAY.get(key) or ("it is another family's" if key in FOREIGN or key in FAMILIES or key.startswith(PREFIXES) else "")
        if why:
            rows.append(Row(key, value, "implied", "", why))
        elif value is None or value == "" or (key in UNSET_ZERO and _is_zero(value)):
            _empty(key, name, value, rows)
        elif key == "additional_parameters":
            rows.append(Row(key, value, "no_equal", "", "options of the command line in a text are not read: set what they say in the recipe"))
        else:
            given[name], names[name] = value, key
    return given, names, rows


def _empty(key: str, name: str, value: Any, rows: list[Row]) -> None:
    if name in KNOWN or key in ("additional_parameters", "epoch"):
        rows.append(Row(key, value, "implied", "", "empty or 0: not set"))
    else:
        from darkroom.errors import did_you_mean

        rows.append(Row(key, value, "unknown", "", f"neither the GUI nor sd-scripts has such a key. {did_you_mean(key, KNOWN).strip()}".strip()))


def _is_zero(value: Any) -> bool:
    try:
        return float(value) == 0
    except (TypeError, ValueError):
        return False


def _refuse_other_families(tree: dict[str, Any], program: str) -> None:
    for key, family in FAMILIES.items():
        if _on(tree.get(key), key):
            raise RecipeError(f"{program}: trains {family} ({key} is ticked), and Darkroom trains SDXL alone.")
    if _on(tree.get("v2"), "v2") or ("sdxl" in tree and not _on(tree["sdxl"], "sdxl")):
        which = "2.x (v2 is ticked)" if _on(tree.get("v2"), "v2") else "1.x (sdxl is not ticked)"
        raise RecipeError(
            f"{program}: trains Stable Diffusion {which}, and Darkroom trains SDXL alone. Tick SDXL in the GUI, choose an SDXL base, and save again."
        )
    if "LoRA_type" not in tree and {"learning_rate_te1", "learning_rate_te", "use_latent_files"} & tree.keys():
        raise RecipeError(
            f"{program}: changes the whole U-Net (it is from the DreamBooth or fine-tuning tab), which no recipe can say yet. Save one from the LoRA tab."
        )


def _on(value: Any, key: str) -> bool:
    return bool(read(Option(key, "flag"), value, key))


def _float(tree: dict[str, Any], key: str) -> float:
    return float(read(Option(key, "float"), tree.get(key), key) or 0.0)


def _length(tree: dict[str, Any], given: dict[str, Any], names: dict[str, str], rows: list[Row]) -> set[str]:
    """`epoch` counts where no maximum is set and the form itself counts pictures: it then computes the steps of so many epochs."""
    if "epoch" not in tree:
        return set()
    if tree["epoch"] in ("", None) or _float(tree, "epoch") == 0:
        rows.append(Row("epoch", tree["epoch"], "implied", "", "empty or 0: not set"))
    elif _float(tree, "max_train_epochs") or _float(tree, "max_train_steps"):
        rows.append(Row("epoch", tree["epoch"], "implied", "", "a maximum is set, and counts"))
    elif tree.get("dataset_config"):
        rows.append(Row("epoch", tree["epoch"], "implied", "", "with a dataset_config the GUI does not use it: sd-scripts takes its 1600 steps"))
    else:
        given["max_train_epochs"], names["max_train_epochs"] = tree["epoch"], "epoch"
        for key in ("max_train_epochs", "max_train_steps"):
            if key in tree:
                rows.append(Row(key, tree[key], "implied", "", "empty or 0: epoch counts"))
        return {"epoch", "max_train_epochs", "max_train_steps"}
    return {"epoch"}


def _warmup(tree: dict[str, Any], given: dict[str, Any], names: dict[str, str], rows: list[Row]) -> set[str]:
    """`lr_warmup` is a percentage; `lr_warmup_steps` counts before it."""
    steps, percent = _float(tree, "lr_warmup_steps"), _float(tree, "lr_warmup")
    winner = "lr_warmup_steps" if steps > 0 or "lr_warmup" not in tree else "lr_warmup"
    if winner in tree:
        given["lr_warmup_steps"] = int(steps) if winner == "lr_warmup_steps" else percent / 100 if percent else 0
        names["lr_warmup_steps"] = winner
    other = {"lr_warmup", "lr_warmup_steps"} - {winner}
    rows += [Row(key, tree[key], "implied", "", f"{winner} counts") for key in other if key in tree]
    if tree.get("lr_scheduler") == "cosine_with_restarts" and tree.get("lr_scheduler_num_cycles") in ("", None) and "lr_scheduler_num_cycles" in tree:
        given["lr_scheduler_num_cycles"] = int(_float(tree, "epoch")) or 1
        return {"lr_warmup", "lr_warmup_steps", "lr_scheduler_num_cycles"}
    return {"lr_warmup", "lr_warmup_steps"}


def _rates(tree: dict[str, Any], given: dict[str, Any], names: dict[str, str], rows: list[Row]) -> set[str]:
    """A rate of 0 leaves its part untrained, unless both are 0: then learning_rate is both."""
    text, unet = _float(tree, "text_encoder_lr"), _float(tree, "unet_lr")
    for key, value in (("text_encoder_lr", text), ("unet_lr", unet)):
        if key in tree and not (text or unet):
            rows.append(Row(key, tree[key], "implied", "", "0 for both: learning_rate counts for both"))
        elif key in tree:
            given[key], names[key] = value, key
    return {"text_encoder_lr", "unet_lr"}


def _noise(tree: dict[str, Any], rows: list[Row]) -> set[str]:
    """Of the two kinds of noise only the chosen one's fields are used."""
    if "noise_offset_type" not in tree:
        return set()
    original = tree["noise_offset_type"] in ("Original", "", None)
    ignored = ("multires_noise_iterations", "multires_noise_discount") if original else ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    done = [key for key in ignored if key in tree]
    rows.append(Row("noise_offset_type", tree["noise_offset_type"], "implied", "", "it says which of the noise fields are used"))
    rows += [Row(key, tree[key], "implied", "", "the other kind of noise is chosen") for key in done]
    return {"noise_offset_type", *done}
