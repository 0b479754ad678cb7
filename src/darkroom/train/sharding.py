"""A whole model laid over the processes of a crew: in which units, and what a step does where each process sees only some rows of a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from darkroom.errors import RecipeError
from darkroom.methods import FullTuning
from darkroom.methods.attached import Attached
from darkroom.methods.sharded import Sharded, Units
from darkroom.methods.zeroed import Zeroed
from darkroom.sdxl.model import SDXL
from darkroom.train.launch import said
from darkroom.train.swap import blocks
from darkroom.train.zero import zero_given

if TYPE_CHECKING:
    from darkroom.train.crew import Crew
    from darkroom.train.recipe import Recipe


def attach(recipe: Recipe, model: SDXL, crew: Crew) -> Attached:
    """The recipe's method on the model, laid over the crew where that is asked for and there is more than one process. Raises RecipeError."""
    method = recipe.learner
    if recipe.train.sharding == "no" or crew.size == 1:
        return method.attach(model, recipe.train.seed)
    assert isinstance(method, FullTuning), "rules.refusals"
    if recipe.train.sharding != "fsdp":
        return Zeroed(method, model, int(recipe.train.sharding.removeprefix("zero")), zero_given())
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RecipeError(f'train.sharding = "fsdp" wants a newer torch than {torch.__version__} (2.13 was tried). Install it: pip install -U torch')
    units, reshard = _accelerates() if said("ACCELERATE_USE_FSDP") else (_blocks, True)
    return Sharded(method, model, units, reshard)


def _blocks(part: str, network: nn.Module) -> Sequence[nn.Module]:
    """ResNets, transformer blocks and samplers of the U-Net; a text encoder is gathered once for all captions of a batch, however many a process has."""
    return [module for _, module in blocks(network)] if part == "unet" else ()


def _accelerates() -> tuple[Units, bool]:
    """Units by accelerate's fsdp_auto_wrap_policy, and its fsdp_reshard_after_forward. Raises RecipeError."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

    try:
        plugin: Any = FullyShardedDataParallelPlugin()
    except ValueError as error:
        raise RecipeError(f"accelerate's FSDP configuration: {error}") from None

    def units(part: str, network: nn.Module) -> Sequence[nn.Module]:
        try:
            wanted = fsdp2_prepare_auto_wrap_policy(plugin, network) if part == "unet" else None
        except ValueError as error:
            raise RecipeError(f"accelerate's fsdp_transformer_layer_cls_to_wrap: {error} The U-Net has BasicTransformerBlock and ResnetBlock2D.") from None
        return [module for module in reversed(list(network.modules())) if module is not network and wanted(module)] if wanted else ()

    return units, bool(plugin.reshard_after_forward)


# ---- what a step does with rows -----------------------------------------------------------------------------------------------------------------------------


def starts_of(attached: Attached) -> Mapping[nn.Parameter, int]:
    """Where in the whole weight each parameter's first number is; empty where parameters are whole."""
    return {parameter: rows.start for parameter, rows in attached.rows.items()} if isinstance(attached, Sharded) else {}


def clip_rows(parameters: Sequence[nn.Parameter], most: float, each: bool, crew: Crew) -> float:
    """Scale gradients, of which every process has some rows, down to the norm `most` (0: none) together or each; the norm of all together before."""
    gradients = [parameter.grad for parameter in parameters]
    squares = torch.stack([_square(gradient, parameter) for gradient, parameter in zip(gradients, parameters, strict=True)])
    crew.add_up([squares])
    total = squares.sum().sqrt()
    if most:
        limits = (most / ((squares.sqrt() if each else total.expand(len(squares))) + 1e-6)).clamp(max=1.0)
        for gradient, limit in zip(gradients, limits, strict=True):
            if gradient is not None:
                gradient.mul_(limit)
    return float(total)


def _square(gradient: torch.Tensor | None, parameter: nn.Parameter) -> torch.Tensor:
    if gradient is None:
        return torch.zeros((), device=parameter.device)
    norm: torch.Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float32)
    return norm.square()
