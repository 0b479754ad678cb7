"""The options of sd-scripts (sdxl_train_network.py with a config_file, and dataset configurations), with their defaults, and what each means here.

Read from kohya-ss/sd-scripts, library/train_util.py, train_network.py, library/config_util.py, networks/lora.py (February 2026).
"""

from __future__ import annotations

from darkroom.jobs.migrate.options import table, words

TRAIN = table(
    """
pretrained_model_name_or_path str
vae str
train_data_dir str
dataset_config any
in_json str
learning_rate float 2e-6
unet_lr float
text_encoder_lr any
network_module str
network_dim int
network_alpha float 1
network_train_unet_only flag
network_train_text_encoder_only flag
conv_dim int
conv_alpha float
algo str
preset str full
dora_wd flag
factor int -1
decompose_both str
train_on_input flag
constraint float 0
rescaled flag
block_size int
unit int
module_dropout float 0
down_lr_weight str
mid_lr_weight str
up_lr_weight str
block_lr_zero_threshold float 0
block_dims str
block_alphas str
conv_block_dims str
conv_block_alphas str
optimizer_type str
use_8bit_adam flag
use_lion_optimizer flag
optimizer_args list
max_grad_norm float 1.0
lr_scheduler str constant
lr_warmup_steps number 0
lr_scheduler_num_cycles int 1
lr_scheduler_power float 1
max_train_steps int 1600
max_train_epochs int
save_every_n_epochs int
save_every_n_steps int
save_n_epoch_ratio int
save_precision str
train_batch_size int 1
gradient_accumulation_steps int 1
gradient_checkpointing flag
mixed_precision str no
seed int
lr_scheduler_min_lr_ratio float
min_snr_gamma float
debiased_estimation_loss flag
v_parameterization flag
zero_terminal_snr flag
noise_offset float
adaptive_noise_scale float
multires_noise_iterations int
multires_noise_discount float 0.3
ip_noise_gamma float
loss_type str l2
huber_schedule str snr
huber_c float 0.1
huber_scale float 1
min_timestep int
max_timestep int
sample_prompts any
sample_every_n_steps int
sample_every_n_epochs int
sample_sampler str ddim
training_comment str
resolution any
enable_bucket flag
bucket_reso_steps int 64
caption_extension str .caption
caption_extention str
caption_dropout_rate float 0
caption_tag_dropout_rate float 0
caption_prefix str
caption_suffix str
caption_separator str ,
shuffle_caption flag
keep_tokens int 0
keep_tokens_separator str
flip_aug flag
random_crop flag
bucket_no_upscale flag
masked_loss flag
alpha_mask flag
conditioning_data_dir str
validation_split float 0
validation_seed int
validate_every_n_steps int
validate_every_n_epochs int
max_validation_steps int
dataset_repeats int 1
v2 flag
image_dir str
class_tokens str
is_reg flag
metadata_file str
"""
)

IMPLIED = {
    "tokenizer_cache_dir": "the base's own tokenizer is read",
    "cache_latents": "latents are always encoded once and kept",
    "cache_latents_to_disk": "latents are encoded once and kept; the disk cache is darkroom's own",
    "cache_text_encoder_outputs": "text is encoded once wherever the text encoders are not trained",
    "cache_text_encoder_outputs_to_disk": "text is encoded once wherever the text encoders are not trained",
    "text_encoder_batch_size": "how many captions are encoded at once changes nothing",
    "vae_batch_size": "how many pictures are encoded at once changes nothing",
    "skip_cache_check": "caches are named by what they hold: there is nothing to check",
    "cache_info": "pictures are read each time",
    "xformers": "torch's own attention is as lean, and computes the same",
    "sdpa": "it is the attention used here",
    "mem_eff_attn": "torch's own attention is as lean, and computes the same",
    "diffusers_xformers": "torch's own attention is as lean, and computes the same",
    "no_half_vae": "SDXL's autoencoder always computes in float32 where fp16 would overflow",
    "lowram": "where weights are loaded to changes nothing",
    "highvram": "how memory is freed changes nothing",
    "max_data_loader_n_workers": "no result depends on the number of workers",
    "persistent_data_loader_workers": "no result depends on workers",
    "disable_mmap_load_safetensors": "how the file is read changes nothing",
    "clip_skip": "SDXL is always trained on its text encoders' last layer but one: sd-scripts only warns of it",
    "save_state": "every checkpoint holds all that an exact `darkroom resume` needs",
    "save_state_on_train_end": "every checkpoint holds all that an exact `darkroom resume` needs",
    "sample_at_first": "pictures are always drawn before the first step too",
    "output_config": "an order to sd-scripts to write its settings",
    "config_file": "it is this file",
    "debug_dataset": "`darkroom train --check` shows pictures and captions",
    "console_log_level": "it changes what is printed",
    "console_log_file": "it changes what is printed",
    "console_log_simple": "it changes what is printed",
    "ddp_timeout": "one process trains",
    "ddp_gradient_as_bucket_view": "one process trains",
    "ddp_static_graph": "one process trains",
    "network_multiplier": "an adapter is learned at its full strength",
    "dynamo_backend": "compiling changes speed alone",
    "torch_compile": "compiling changes speed alone",
    "prior_loss_weight": "no regularisation pictures are learned from",
    "huggingface_repo_type": "nothing is uploaded while it trains",
    "huggingface_path_in_repo": "nothing is uploaded while it trains",
    "huggingface_repo_visibility": "nothing is uploaded while it trains; `darkroom export --push` makes a private repository",
    "async_upload": "nothing is uploaded while it trains",
    "weighting_scheme": "for Stable Diffusion 3 alone",
    "logit_mean": "for Stable Diffusion 3 alone",
    "logit_std": "for Stable Diffusion 3 alone",
    "mode_scale": "for Stable Diffusion 3 alone",
    "bypass_mode": "whether the change is computed beside the weight or within it changes nothing but rounding",
    "no_metadata": "an adapter always says what it is",
}

_CARD = "the model card and the header are written by Darkroom: `darkroom export` has options of its own"
_KEEP = "every checkpoint is kept: delete what you do not need"
_LOG = "log.jsonl in the run folder holds the figures of every step; nothing is sent anywhere"
_CURVE = "schedules here are constant, linear, cosine, cosine_with_restarts, polynomial and rex"
_NOISE = "its strength is the same at every step"
_WARM = "all tags are shown from the first step on"
_DROP = "of dropouts there is the one of whole modules alone: module_dropout"
_PLUS = "both halves of a layer learn at one rate (yet)"
_BUCKETS = "buckets have at most resolution squared pixels and sides of at most 2 to 1"

LACKING = {
    "output_dir": "a recipe names no folder to write to: give it with `darkroom train RECIPE --out FOLDER`",
    "output_name": "the file in a run is adapter.safetensors; `darkroom export` names it after the trigger word",
    "logging_dir": _LOG, "log_with": _LOG, "log_prefix": _LOG, "log_tracker_name": _LOG, "log_tracker_config": _LOG, "log_config": _LOG,
    "wandb_run_name": _LOG, "wandb_api_key": "nothing is sent anywhere; do not keep a key in a settings file",
    "huggingface_repo_id": "`darkroom export RUN --to FOLDER --push OWNER/NAME` does it when the training has ended",
    "huggingface_token": "the token of `hf auth login` is used; do not keep one in a settings file",
    "save_state_to_huggingface": "nothing is uploaded while it trains", "resume_from_huggingface": "the training starts anew",
    "resume": "another program's state cannot be gone on from: the training starts anew",
    "skip_until_initial_step": "the training starts anew", "initial_epoch": "the training starts anew", "initial_step": "the training starts anew",
    "save_last_n_epochs": _KEEP, "save_last_n_epochs_state": _KEEP, "save_last_n_steps": _KEEP, "save_last_n_steps_state": _KEEP,
    "save_model_as": "adapters are .safetensors", "use_safetensors": "adapters are .safetensors",
    "save_n_epoch_ratio": "a checkpoint is kept every so many steps or epochs: see train.save_every",
    "network_weights": "a training starts from fresh layers (yet)", "dim_from_weights": "give method.rank",
    "network_dropout": _DROP, "rank_dropout": _DROP, "dropout": _DROP, "rank_dropout_scale": _DROP,
    "scale_weight_norms": "weights are not held to a norm (yet)", "base_weights": "merge it into the base first",
    "base_weights_multiplier": "merge it into the base first", "cpu_offload_checkpointing": "activations are computed twice rather than moved",
    "block_lr": "it is of sdxl_train.py, which changes the whole U-Net; method.rates says rates by place",
    "loraplus_lr_ratio": _PLUS, "loraplus_unet_lr_ratio": _PLUS, "loraplus_text_encoder_lr_ratio": _PLUS,
    "train_norm": "norm layers are left alone", "use_cp": "convolutions are not decomposed further",
    "use_tucker": "convolutions are not decomposed further", "use_scalar": "there is no further factor",
    "full_matrix": "give a method.rank that is larger than any layer, such as 100000: LoKr's second factor is then whole",
    "wd_on_output": "DoRA learns the norm of each output, not of each input", "unbalanced_factorization": "LoKr's smaller factor is on both sides the smaller",
    "rs_lora": "the change is scaled by alpha / rank: multiply method.alpha by the square root of the rank for that",
    "lr_scheduler_type": _CURVE, "lr_scheduler_args": _CURVE, "lr_decay_steps": _CURVE, "lr_scheduler_timescale": _CURVE,
    "fused_backward_pass": "train.fused does it; set it with train.max_grad_norm = 0 where you want it", "fused_optimizer_groups": "all is stepped at once",
    "max_token_length": "captions are cut after 75 tokens (yet); `darkroom train --check` names those that are",
    "full_fp16": "what is learned stays in float32", "full_bf16": "what is learned stays in float32", "fp8_base": "weights are not held in 8 bits (yet)",
    "fp8_base_unet": "weights are not held in 8 bits (yet)", "blocks_to_swap": "blocks are not swapped (yet)",
    "ip_noise_gamma_random_strength": _NOISE, "noise_offset_random_strength": _NOISE,
    "scale_v_pred_loss_like_noise_pred": "min-SNR is the weighting here",
    "v_pred_like_loss": "no such term is added", "weighted_captions": "weights in captions are learned as words (yet)",
    "secondary_separator": "tags are parted at one mark; this one stays in the captions as it is, where there it holds tags together and becomes a separator",
    "enable_wildcard": "nothing is drawn from {a|b} or from lines; of several captions one is drawn with data.wording.mix",
    "caption_dropout_every_n_epochs": "captions are dropped by chance alone: data.wording.dropout",
    "token_warmup_min": _WARM, "token_warmup_step": _WARM, "color_aug": "colours are left alone",
    "face_crop_aug_range": 'no crop changes its size by chance; `darkroom dataset prepare --focus` finds faces, and data.crop = "subject" keeps to them',
    "resize_interpolation": "pictures are resized with Lanczos", "custom_attributes": "not used for SDXL",
    "min_bucket_reso": _BUCKETS, "max_bucket_reso": _BUCKETS, "dataset_class": "pictures come from a folder",
    "reg_data_dir": "regularisation pictures are no recipe's (yet): only your own are learned from",
    "deepspeed": "here it is train.sharding", "zero_stage": "here it is train.sharding = \"zero2\" or \"zero3\"",
    "offload_optimizer_device": "one process trains", "offload_param_device": "one process trains",
    "zero3_init_flag": "one process trains", "offload_optimizer_nvme_path": "one process trains", "offload_param_nvme_path": "one process trains",
    "zero3_save_16bit_model": "one process trains", "fp16_master_weights_and_gradients": "what is learned stays in float32",
    "train_inpainting": "inpainting bases are not trained",
    "stop_text_encoder_training": "the text encoders learn to the end; sd-scripts does not stop them for SDXL either",
    "metadata_title": _CARD, "metadata_author": _CARD, "metadata_description": _CARD, "metadata_license": _CARD, "metadata_tags": _CARD,
    "metadata_usage_hint": _CARD, "metadata_thumbnail": _CARD, "metadata_merged_from": _CARD, "metadata_trigger_phrase": _CARD,
    "metadata_preprocessor": _CARD, "metadata_is_negative_embedding": _CARD,
}  # fmt: skip

NEUTRAL = {
    "max_token_length": (75, "75"), "save_model_as": ("safetensors",), "token_warmup_min": (1, "1"),
    "zero_stage": (2,), "resize_interpolation": ("lanczos",),
    "use_safetensors": (True,), "wd_on_output": (True, "True", "true"),
}  # fmt: skip

CANONICAL = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}
DEPRECATED = {"constrain": "constraint", "use_conv_cp": "use_cp"}
"""Old names of LyCORIS' arguments."""
KNOWN = {*TRAIN, *IMPLIED, *LACKING}
BLOCKS = words("down_lr_weight mid_lr_weight up_lr_weight block_lr_zero_threshold block_dims block_alphas conv_block_dims conv_block_alphas")
LYCORIS = words(
    "algo preset dora_wd decompose_both train_on_input constraint rescaled block_size bypass_mode train_norm use_cp use_tucker use_scalar full_matrix "
    "wd_on_output unbalanced_factorization rs_lora rank_dropout_scale"
)
"""What LyCORIS knows, and sd-scripts' own modules do not."""
NETWORK = {
    *BLOCKS,
    *LYCORIS,
    *words("conv_dim conv_alpha rank_dropout module_dropout dropout loraplus_lr_ratio loraplus_unet_lr_ratio loraplus_text_encoder_lr_ratio factor unit"),
}
"""What is known in network_args alone."""
SUBSETS = {"image_dir", "class_tokens", "is_reg", "metadata_file", "custom_attributes", "network_multiplier"}
"""What it knows in a dataset configuration alone."""
