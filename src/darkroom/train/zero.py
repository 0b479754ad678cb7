"""What accelerate's configuration says of DeepSpeed, as the environment that `accelerate launch` gives. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.errors import RecipeError

if TYPE_CHECKING:
    from darkroom.train.recipe import Recipe

PREFIX = "ACCELERATE_DEEPSPEED_"
OURS = {
    "train_batch_size": "the batch is the recipe's (data.batch_size, train.accumulate)",
    "train_micro_batch_size_per_gpu": "the batch is the recipe's (data.batch_size)",
    "optimizer": "the optimizer is the recipe's (optimizer.kind)",
    "scheduler": "the rate is the recipe's (optimizer.schedule, optimizer.warmup)",
    "activation_checkpointing": "the recipe says so (train.gradient_checkpointing = true)",
    "compression_training": "weights are not rounded while they learn",
    "flops_profiler": "nothing is profiled",
}
"""Tables of DeepSpeed's file that the engine would act on by itself, and why it does not."""
DIVIDING = ("zero_quantized_weights", "zero_quantized_gradients", "zero_hpz_partition_size", "zeropp_loco_param", "mics_shard_size", "zenflow")
"""Switches of its zero_optimization that change what is learned, or divide otherwise."""

IDLE = {"zero_hpz_partition_size": 1, "mics_shard_size": -1}
"""Values of them that do nothing."""


def zero_stage() -> int:
    """ZeRO's stage. Raises RecipeError for a file that cannot be read."""
    found = _file().get("zero_optimization", {}).get("stage", _told("ZERO_STAGE", "2"))
    return int(found) if str(found).isdigit() else 2


def zero_given() -> dict[str, Any]:
    """zero_optimization of DeepSpeed's own file, which accelerate's deepspeed_config_file names; without what is left to be chosen ("auto")."""
    table: dict[str, Any] = _file().get("zero_optimization", {}) if os.environ.get("ACCELERATE_USE_DEEPSPEED") else {}
    return {name: value for name, value in table.items() if value != "auto" and not name.startswith("offload_")}


def zero_precision() -> str:
    """The number format that DeepSpeed's own file asks for; "no" where it leaves that open."""
    return "bf16" if _file().get("bf16", {}).get("enabled") is True else "no"


def check_zero(recipe: Recipe) -> None:
    """Raises RecipeError for what DeepSpeed was configured for and the loop is not made for, or the recipe says otherwise."""
    file = _file()
    if (stage := zero_stage()) not in (2, 3):
        way_out = "zero_stage: 2 divides gradients and the optimizer's state, 3 the weights too; distributed_type: MULTI_GPU divides nothing."
        raise RecipeError(f"accelerate's configuration asks for DeepSpeed's ZeRO with zero_stage = {stage}. {way_out}")
    _check_table(file.get("zero_optimization", {}))
    for name, why in OURS.items():
        if file.get(name) and file[name] != "auto":
            raise RecipeError(f"DeepSpeed's configuration has {name}: here {why}. Leave it out of {_told('CONFIG_FILE', '')}.")
    if file.get("fp16", {}).get("enabled") is True:
        raise RecipeError('DeepSpeed\'s fp16.enabled = true: a divided model computes in fp32 or bf16. Set train.precision = "bf16", and leave fp16 out.')
    _check_number("gradient_clipping", "train.max_grad_norm", recipe.train.max_grad_norm)
    _check_number("gradient_accumulation_steps", "train.accumulate", recipe.train.accumulate)


def _check_number(name: str, key: str, ours: float) -> None:
    """accelerate writes 1 batch a step unasked."""
    said = str(_file().get(name, os.environ.get(f"ACCELERATE_{name.upper()}", "auto")))
    if said.replace(".", "", 1).isdigit() and float(said) != ours and (name, float(said)) != ("gradient_accumulation_steps", 1):
        raise RecipeError(f"accelerate's {name} = {said}, and the recipe has {key} = {ours:g}. Set {key} = {said} where that is meant, or {name}: auto.")


def _check_table(table: Mapping[str, Any]) -> None:
    for what in ("optimizer", "param"):
        place = table.get(f"offload_{what}", {}).get("device") or _told(f"OFFLOAD_{what.upper()}_DEVICE", "none")
        if place not in ("none", "None", "auto"):
            raise RecipeError(
                f'accelerate\'s offload_{what}_device = "{place}": Darkroom keeps what is divided on the card. Set it to none, and take more processes.'
            )
    for name in DIVIDING:
        if table.get(name) and table[name] not in ("auto", IDLE.get(name)):
            raise RecipeError(f"DeepSpeed's zero_optimization.{name} = {json.dumps(table[name])}: as many processes would learn another thing. Leave it out.")


def _file() -> dict[str, Any]:
    """DeepSpeed's own configuration, where accelerate names one."""
    name = _told("CONFIG_FILE", "none")
    if name in ("", "none", "None"):
        return {}
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{name}: accelerate's deepspeed_config_file cannot be read ({error}).") from None
    if not isinstance(found, dict):
        raise RecipeError(f"{name}: accelerate's deepspeed_config_file is no table of settings.")
    return found


def _told(name: str, otherwise: str) -> str:
    return os.environ.get(PREFIX + name, otherwise)
