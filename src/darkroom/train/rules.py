"""What does not go together in a recipe, each with the reason and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from darkroom.methods import FullTuning
from darkroom.train.optimizers import DAdaptation, Prodigy, ScheduleFree

if TYPE_CHECKING:
    from darkroom.train.recipe import Recipe


def refusals(recipe: Recipe) -> Iterator[str]:
    """Sentences without their full stop; none where all goes together."""
    yield from _whole_model(recipe)
    rounded = isinstance(recipe.method, FullTuning) and recipe.method.weights == "bf16"
    if (recipe.train.fused or rounded) and isinstance(recipe.optimizer, Prodigy | DAdaptation):
        option = "train.fused = true" if recipe.train.fused else 'method.weights = "bf16"'
        yield (
            f'{option} steps one tensor at a time, and optimizer.kind = "{recipe.optimizer.kind}" finds its rate from all of them together. Take an optimizer '
            "with a fixed rate, such as adafactor or adamw8bit"
        )
    if recipe.train.fused:
        yield from _fused(recipe)
    if recipe.train.sharding != "no":
        yield from _sharded(recipe)
    if recipe.method.kind == "controlnet" and recipe.train.quantise != "no":
        yield 'train.quantise rounds weights that a ControlNet begins as a copy of. Set train.quantise = "no"; train.swap_blocks saves memory here'


def _fused(recipe: Recipe) -> Iterator[str]:
    train = recipe.train
    if train.accumulate > 1:
        yield (
            f"train.fused = true changes weights within each backward pass, so that the gradients of train.accumulate = {train.accumulate} batches are never "
            "added up. Set train.accumulate = 1 and a larger data.batch_size, or train.fused = false"
        )
    if train.max_grad_norm and train.clip == "all":
        yield (
            f"train.fused = true changes weights before the norm of all gradients is known, which train.max_grad_norm = {train.max_grad_norm:g} would limit. "
            'Set train.clip = "each" to limit each tensor\'s own, train.max_grad_norm = 0 to limit none (adafactor clips by itself), or train.fused = false'
        )
    if recipe.health.bad_losses > 1:
        yield (
            f"health.bad_losses = {recipe.health.bad_losses} leaves bad steps out, and with train.fused = true weights have changed before a step is known to "
            "be bad. Set health.bad_losses = 1"
        )
    if train.precision == "fp16":
        yield 'train.fused = true in fp16 would need all gradients to find out which overflowed. Set train.precision = "bf16", or train.fused = false'


WHOLE = {
    "adafactor": "keeps averages of whole rows and columns",
    "prodigy": "finds its rate from all weights together",
    "dadaptation": "finds its rate from all weights together",
    "adamw8bit": "keeps its state in blocks of 256 numbers, which do not end where a process's part does",
    "lion8bit": "keeps its state in blocks of 256 numbers, which do not end where a process's part does",
}
"""Optimizers that cannot work on a part of a tensor, and why."""


def _sharded(recipe: Recipe) -> Iterator[str]:
    train, method = recipe.train, recipe.method
    if not isinstance(method, FullTuning):
        yield (
            f'train.sharding = "{train.sharding}" divides a whole model that learns, and method.kind = "{method.kind}" learns a small part beside it. Set '
            'train.sharding = "no"; train.quantise and train.swap_blocks make what is frozen smaller'
        )
        return
    if train.fused:
        yield f'train.sharding = "{train.sharding}" adds gradients up over processes, and train.fused = true steps before that. Set train.fused = false'
    if why := WHOLE.get(recipe.optimizer.kind):
        yield f'train.sharding = "{train.sharding}": optimizer.kind = "{recipe.optimizer.kind}" {why}. Take adamw, lion or schedule_free'
    if train.precision == "fp16":
        yield f'train.sharding = "{train.sharding}" in fp16: no process would see all gradients that overflow. Set train.precision = "bf16"'
    if train.sharding.startswith("zero"):
        yield from _zero(method, train.sharding)
    if method.ema_on_host:
        yield f'train.sharding = "{train.sharding}" keeps a part of the average beside the part of the weights. Leave method.ema_on_host out'


def _zero(method: FullTuning, word: str) -> Iterator[str]:
    if method.weights == "bf16":
        yield f'train.sharding = "{word}": DeepSpeed keeps what learns in fp32. Set method.weights = "fp32", or train.sharding = "fsdp"'
    if method.text_encoders and word == "zero3":
        yield (
            f'train.sharding = "{word}" gathers weights each time they compute, and processes that encode different numbers of captions would wait for each '
            'other for ever. Set train.sharding = "zero2" or "fsdp", or method.text_encoders = false'
        )


def _whole_model(recipe: Recipe) -> Iterator[str]:
    method = recipe.method
    if not isinstance(method, FullTuning):
        return
    if method.ema and isinstance(recipe.optimizer, ScheduleFree):
        yield 'method.ema: optimizer.kind = "schedule_free" keeps an average of the weights already, which is drawn with and saved. Set method.ema = 0'
    if method.weights == "bf16" and recipe.train.precision in ("fp32", "fp16"):
        yield f'method.weights = "bf16" beside train.precision = "{recipe.train.precision}": what learns must compute in bf16. Set train.precision = "bf16"'
    if recipe.train.quantise != "no":
        yield 'train.quantise rounds weights that stay as they are, and method.kind = "full" learns them. Set train.quantise = "no", or learn an adapter'
    if recipe.train.swap_blocks:
        yield 'train.swap_blocks sends frozen weights away, and method.kind = "full" learns them. Set train.swap_blocks = 0; train.fused saves memory here'
