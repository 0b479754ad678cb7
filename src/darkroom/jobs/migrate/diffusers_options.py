"""The options of diffusers' SDXL example scripts and of `accelerate launch`, with their defaults, and what each means here.

Read from huggingface/diffusers, examples/dreambooth and examples/text_to_image, and huggingface/accelerate, commands/launch.py (August 2026).
"""

from __future__ import annotations

from darkroom.jobs.migrate.options import table

COMMON = """
pretrained_model_name_or_path str
pretrained_vae_model_name_or_path str
revision str
variant str
dataset_name str
dataset_config_name str
cache_dir str
image_column str image
validation_prompt str
num_validation_images int 4
output_dir str
seed int
resolution int 1024
center_crop flag
random_flip flag
train_text_encoder flag
max_train_steps int
checkpointing_steps int 500
checkpoints_total_limit int
resume_from_checkpoint str
gradient_accumulation_steps int 1
gradient_checkpointing flag
learning_rate float 1e-4
scale_lr flag
lr_scheduler str constant
snr_gamma float
lr_warmup_steps int 500
dataloader_num_workers int 0
use_8bit_adam flag
adam_beta1 float 0.9
adam_beta2 float 0.999
adam_epsilon float 1e-8
max_grad_norm float 1.0
push_to_hub flag
hub_token str
hub_model_id str
logging_dir str logs
allow_tf32 flag
report_to str tensorboard
mixed_precision str
local_rank int -1
enable_xformers_memory_efficient_attention flag
rank int 4
image_interpolation_mode str lanczos
"""

DREAMBOOTH = table(
    COMMON
    + """
instance_data_dir str
caption_column str
repeats int 1
class_data_dir str
instance_prompt str
class_prompt str
validation_epochs int 50
do_edm_style_training flag
with_prior_preservation flag
prior_loss_weight float 1.0
num_class_images int 100
output_kohya_format flag
train_batch_size int 4
sample_batch_size int 4
num_train_epochs int 1
text_encoder_lr float 5e-6
lr_num_cycles int 1
lr_power float 1.0
optimizer str AdamW
prodigy_beta3 float
prodigy_decouple str True
adam_weight_decay float 1e-4
adam_weight_decay_text_encoder float 1e-3
prodigy_use_bias_correction str True
prodigy_safeguard_warmup str True
prior_generation_precision str
lora_dropout float 0.0
use_dora flag
"""
)

TEXT_TO_IMAGE = table(
    COMMON
    + """
train_data_dir str
caption_column str text
validation_epochs int 1
max_train_samples int
train_batch_size int 16
num_train_epochs int 100
adam_weight_decay float 1e-2
prediction_type str
noise_offset float 0
enable_npu_flash_attention flag
debug_loss flag
"""
)

IMPLIED = {
    "cache_dir": "it is for data sets of the hub",
    "image_column": "it is for data sets of the hub",
    "output_kohya_format": "the adapter is written in kohya's layout always, which A1111, ComfyUI, sd-scripts and diffusers read",
    "dataloader_num_workers": "no result depends on the number of workers",
    "local_rank": "it says which process this is",
    "enable_xformers_memory_efficient_attention": "torch's own attention is as lean, and computes the same",
    "enable_npu_flash_attention": "torch's own attention computes the same",
    "prodigy_beta3": "for Prodigy alone",
    "prodigy_decouple": "for Prodigy alone",
    "prodigy_use_bias_correction": "for Prodigy alone",
    "prodigy_safeguard_warmup": "for Prodigy alone",
}

LACKING = {
    "revision": "the base is taken as the hub has it now; the run's receipt keeps the hash of its weights",
    "variant": "a base's variant is not chosen by a recipe: its files are read as they are, and train.precision says in what format they compute",
    "dataset_name": "pictures come from a folder: download the data set and set data.images",
    "dataset_config_name": "pictures come from a folder",
    "output_dir": "a recipe names no folder to write to: give it with `darkroom train RECIPE --out FOLDER`",
    "do_edm_style_training": "EDM's noise levels are no objective here (yet): the usual one is used",
    "lora_dropout": "inputs of a LoRA are not dropped here (yet)",
    "image_interpolation_mode": "pictures are resized with Lanczos",
    "max_train_samples": "every picture of the folder is learned from: take the others out",
    "debug_loss": "the loss of every step is in log.jsonl, averaged over its batch",
    "checkpoints_total_limit": "every checkpoint is kept",
    "resume_from_checkpoint": "another program's state cannot be gone on from: the training starts anew",
    "push_to_hub": "`darkroom export RUN --to FOLDER --push OWNER/NAME` does it when the training has ended",
    "hub_token": "the token of `hf auth login` is used; do not keep one in a command line",
    "hub_model_id": "give it to `darkroom export --push`",
    "logging_dir": "log.jsonl in the run folder holds the figures of every step",
    "report_to": "log.jsonl in the run folder holds the figures of every step; nothing is sent anywhere",
    "allow_tf32": "products of float32 are computed as torch has them",
}

NEUTRAL = {"image_interpolation_mode": ("lanczos",), "logging_dir": ("logs",), "report_to": ("none",)}

SCRIPTS = {
    "train_dreambooth_lora_sdxl.py": "",
    "train_text_to_image_lora_sdxl.py": "",
    "train_text_to_image_sdxl.py": "changes the whole U-Net, which no recipe can say yet. Its LoRA twin can be imported: train_text_to_image_lora_sdxl.py",
    "textual_inversion_sdxl.py": "learns a new word, which no recipe can say yet. A subject can be learned with train_dreambooth_lora_sdxl.py instead",
    "train_dreambooth_lora_sdxl_advanced.py": "learns new words beside the LoRA, which no recipe can say yet. Import train_dreambooth_lora_sdxl.py instead",
}
TWINS = {
    "train_dreambooth_lora.py": "train_dreambooth_lora_sdxl.py",
    "train_dreambooth.py": "train_dreambooth_lora_sdxl.py",
    "train_text_to_image_lora.py": "train_text_to_image_lora_sdxl.py",
    "train_text_to_image.py": "train_text_to_image_sdxl.py",
    "textual_inversion.py": "textual_inversion_sdxl.py",
}

LAUNCH = table(
    """
config_file str
quiet flag
cpu flag
multi_gpu flag
tpu flag
mixed_precision str
num_processes int
num_machines int
num_cpu_threads_per_process int
enable_cpu_affinity flag
dynamo_backend str
dynamo_mode str
dynamo_use_fullgraph flag
dynamo_use_dynamic flag
dynamo_use_regional_compilation flag
use_deepspeed flag
use_fsdp flag
use_parallelism_config flag
use_megatron_lm flag
gpu_ids str
same_network flag
machine_rank int
main_process_ip str
main_process_port int
tee str
log_dir str
role str
rdzv_backend str
rdzv_conf str
max_restarts int
monitor_interval float
module flag
no_python flag
main_training_function str
downcast_bf16 flag
deepspeed_config_file str
zero_stage int
offload_optimizer_device str
offload_param_device str
gradient_accumulation_steps int
gradient_clipping float
zero3_init_flag str
zero3_save_16bit_model str
deepspeed_hostfile str
aws_access_key_id str
aws_secret_access_key str
debug flag
"""
)
LAUNCH_WHY = {
    "config_file": "accelerate's own file is not read here: what it says of precision or processes is not known",
    "gpu_ids": 'one device is used: choose it with device = "cuda:1"',
    "cpu": 'choose it with device = "cpu"',
    "use_deepspeed": 'here it is train.sharding = "zero2" or "zero3", of a full fine-tune; a card that is too small is helped by train.gradient_checkpointing',
    "use_fsdp": "one process trains; a card that is too small is helped by train.gradient_checkpointing",
    "gradient_accumulation_steps": "it is DeepSpeed's; the script's own is train.accumulate",
    "gradient_clipping": "it is DeepSpeed's; the script's own is train.max_grad_norm",
}
LAUNCH_ANYWAY = {"quiet", "num_cpu_threads_per_process", "enable_cpu_affinity", "machine_rank", "main_process_ip", "main_process_port", "tee", "log_dir",
                 "role", "rdzv_backend", "rdzv_conf", "max_restarts", "monitor_interval", "same_network", "debug", "module", "no_python"}  # fmt: skip
