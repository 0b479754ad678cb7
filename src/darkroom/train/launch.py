"""What the environment says of a training in several processes: how many there are, and what `accelerate launch` was configured for. No torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from darkroom.errors import RecipeError
from darkroom.train.zero import check_zero, zero_precision, zero_stage

if TYPE_CHECKING:
    import torch

    from darkroom.train.recipe import Recipe

FORMATS = {"bf16": "bfloat16", "fp16": "float16"}
TRUE = ("1", "true", "yes", "y", "on", "t")


def several() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first() -> bool:
    """Whether this process is the one that writes, and tells."""
    return int(os.environ.get("RANK", "0")) == 0


def divided(recipe: Recipe) -> bool:
    """Whether each process holds only its part of what learns."""
    return recipe.train.sharding != "no" and several()


def asked(recipe: Recipe) -> Recipe:
    """The recipe with what `accelerate launch` says of it, in its environment. Raises RecipeError for what Darkroom does not do, and why."""
    check_device(recipe, several())
    if several() and recipe.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # before the processes meet: over gloo, whatever cards there are
    _check_launch(recipe)
    engine, word = _engine()
    if several() and (word or recipe.train.sharding).startswith("zero"):
        from darkroom.methods.zeroed import library

        library(recipe.device)
    if not word or recipe.train.sharding == word:
        return recipe
    tree = recipe.model_dump(mode="json")
    try:
        return type(recipe).from_tree(tree | {"train": tree["train"] | {"sharding": word}}, "accelerate's configuration")
    except RecipeError as error:
        raise RecipeError(f"{error} (accelerate's configuration asks for {engine}. Without: distributed_type: MULTI_GPU.)") from None


def check_device(recipe: Recipe, together: bool) -> None:
    """Of several processes each takes a card of its own, or none. Raises RecipeError where the recipe names one card for all."""
    if not together:
        return
    if ":" in recipe.device:
        raise RecipeError(
            f'device = "{recipe.device}" is one card, and of several processes each takes its own. Set device = "{recipe.device.partition(":")[0]}", and '
            "choose cards with CUDA_VISIBLE_DEVICES, or train in one process."
        )


def _engine() -> tuple[str, str]:
    """What accelerate is configured to divide with, and `train.sharding`'s word for it; ("", "") for nothing."""
    if said("ACCELERATE_USE_FSDP"):
        return "FSDP", "fsdp"
    if said("ACCELERATE_USE_DEEPSPEED"):
        return "DeepSpeed", f"zero{zero_stage()}"
    return "", ""


def _check_launch(recipe: Recipe) -> None:
    """Raises RecipeError for an engine that accelerate was configured for and that the loop is not made for."""
    if said("ACCELERATE_USE_MEGATRON_LM"):
        raise RecipeError("accelerate's configuration asks for Megatron-LM, which is for language models. Take distributed_type: FSDP with fsdp_version: 2.")
    if said("ACCELERATE_USE_PARALLELISM_CONFIG"):
        raise RecipeError(
            "accelerate's configuration has a parallelism_config: Darkroom divides weights over all processes and a batch too, and knows no other way "
            "of dividing. Leave parallelism_config out."
        )
    if said("ACCELERATE_USE_FSDP"):
        _check_fsdp()
    if said("ACCELERATE_USE_DEEPSPEED"):
        check_zero(recipe)


def _check_fsdp() -> None:
    told = {name: os.environ.get(f"FSDP_{name}", "") for name in ("VERSION", "OFFLOAD_PARAMS", "ACTIVATION_CHECKPOINTING", "IGNORED_MODULES")}
    if told["VERSION"] != "2":
        raise RecipeError(
            f"accelerate's fsdp_version = {told['VERSION'] or 1}: Darkroom divides weights by FSDP2. Set fsdp_version: 2 (`accelerate to-fsdp2` helps)."
        )
    if told["OFFLOAD_PARAMS"].lower() in TRUE:
        raise RecipeError("accelerate's fsdp_offload_params = true: Darkroom keeps the rows of weights on the card. Set it to false, and take more processes.")
    if told["ACTIVATION_CHECKPOINTING"].lower() in TRUE:
        raise RecipeError(
            "accelerate's fsdp_activation_checkpointing = true: in Darkroom the recipe says so. Set it to false, and train.gradient_checkpointing = true."
        )
    if told["IGNORED_MODULES"] not in ("", "None"):
        raise RecipeError(
            f'accelerate\'s fsdp_ignored_modules = "{told["IGNORED_MODULES"]}": all weights of a part that learns are divided. Leave it out; places that '
            "should not learn are named in method.rates."
        )


def check_precision(dtype: torch.dtype) -> None:
    """accelerate's mixed_precision must be the model's number format. Raises RecipeError."""
    word, held = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower(), str(dtype).removeprefix("torch.")
    if word == "no" and said("ACCELERATE_USE_DEEPSPEED"):
        word = zero_precision()
    if word != "no" and FORMATS.get(word) != held:
        raise RecipeError(
            f'accelerate\'s mixed_precision = "{word}": the recipe computes in {held} here. Set train.precision = "{word}" where that is meant, or '
            'mixed_precision: "no" in accelerate\'s configuration.'
        )


def said(name: str) -> bool:
    """Whether a variable of the environment says yes."""
    return os.environ.get(name, "").lower() in TRUE
