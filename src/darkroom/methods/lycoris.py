"""LyCORIS: other ways to say a change of a weight in few numbers (Yeh et al. 2023; KohakuBlueleaf/LyCORIS).

Written as A1111, ComfyUI and sd-scripts read them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, model_validator

from darkroom.errors import RecipeError
from darkroom.methods.chosen import Chosen, Key

if TYPE_CHECKING:
    import torch
    from torch import nn

    from darkroom.methods.woven import Thread, Woven
    from darkroom.sdxl.model import SDXL

Algorithm = Literal["locon", "loha", "lokr", "ia3", "dylora", "diag-oft", "boft", "full"]
SCALED = ("locon", "loha", "lokr", "dylora")


class LyCORIS(Chosen):
    """Learn a change in one of LyCORIS' forms. Each starts as no change at all."""

    kind: Literal["lycoris"] = "lycoris"
    algorithm: Algorithm = Field("loha", description="locon, loha, lokr, ia3, dylora, diag-oft, boft, or full (the difference itself).")
    rank: int = Field(8, ge=1, description="Width of each factor (locon, loha, lokr, dylora); the side of a block, at most (diag-oft, boft).")
    alpha: float = Field(8.0, gt=0, description="The change is scaled by alpha / rank, where it is scaled (locon, loha, lokr, dylora).")
    factor: int = Field(-1, ge=-1, description="lokr: the smaller factor's side; -1: as near to the root as it goes (LyCORIS' default).")
    decompose_both: bool = Field(False, description="lokr: the smaller factor in two parts too.")
    dora: bool = Field(False, description="Learn the norm of each output apart from its direction (DoRA, Liu et al. 2024): locon, loha, lokr.")
    on_input: bool = Field(False, description="ia3: scale the inputs rather than the outputs.")
    constraint: float = Field(0.0, ge=0, description="diag-oft, boft: how far a rotation may go, as a part of the outputs' number; 0: any.")
    rescale: bool = Field(False, description="diag-oft, boft: learn a length for each output too.")
    block: int = Field(1, ge=1, description="dylora: ranks that learn together; rank must be a multiple of it.")
    dropout: float = Field(0.0, ge=0, lt=1, description="How often a module is left as it was for a batch (LyCORIS' module_dropout).")

    @model_validator(mode="after")
    def _fits(self) -> LyCORIS:
        only = {
            "factor": ("lokr",), "decompose_both": ("lokr",), "dora": ("locon", "loha", "lokr"), "on_input": ("ia3",),
            "constraint": ("diag-oft", "boft"), "rescale": ("diag-oft", "boft"), "block": ("dylora",),
        }  # fmt: skip
        for name, algorithms in only.items():
            if self.algorithm not in algorithms and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"method.{name} says nothing to {self.algorithm}: it belongs to {', '.join(algorithms)}. Leave it out")
        if self.algorithm == "dylora" and self.rank % self.block:
            raise ValueError(f"method.rank = {self.rank} must be a multiple of method.block = {self.block}")
        return self

    def attach(self, model: SDXL, seed: int) -> Woven:
        """Put a fresh change on the model. Raises RecipeError where no part is chosen, or a module's outputs cannot be cut into blocks."""
        from darkroom.methods.woven import Woven

        given = {"algo": self.algorithm} | ({"factor": self.factor} if self.algorithm == "lokr" else {}) | ({"dora_wd": True} if self.dora else {})
        header = {"ss_network_dim": self.rank, "ss_network_alpha": self.alpha, "ss_network_args": given}
        block = self.block if self.algorithm == "dylora" else 0
        return Woven(self, model, self.start, seed, header=header, dropout=self.dropout, block=block)

    def start(self, key: Key, module: nn.Module, dice: torch.Generator) -> Thread:
        """A fresh change of one module, drawn as LyCORIS draws it."""
        from darkroom.methods import starts

        weight = cast(Any, module.weight).detach()
        match self.algorithm:
            case "locon" | "dylora":
                found = starts.lowrank(weight, self.rank, self.alpha, dice)
            case "loha":
                found = starts.hada(weight, self.rank, self.alpha, dice)
            case "lokr":
                found = starts.kron(weight, self.rank, self.alpha, self.factor, self.decompose_both, dice)
            case "ia3":
                found = starts.ia3(weight, self.on_input)
            case "diag-oft" | "boft":
                found = starts.oft(weight, self.rank, self.algorithm == "boft", self.constraint, self.rescale)
                if not found.learned["oft_blocks"].numel():
                    raise RecipeError(
                        f"method.rank = {self.rank}: {'.'.join(key)} has {weight.shape[0]} outputs, and boft cuts them into a power of two of blocks "
                        f"with an even side of at most the rank. {starts.smallest_side(weight.shape[0])}"
                    )
            case "full":
                found = starts.full(weight)
        if self.dora:
            found.learned["dora_scale"] = starts.magnitude(weight)
        return found

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers are learned of a weight of this shape, about; preflight's forecast."""
        inputs = math.prod(shape[1:])
        match self.algorithm:
            case "full":
                return shape[0] * inputs
            case "ia3":
                return shape[1 if self.on_input else 0]
            case "loha":
                return 2 * self.rank * (shape[0] + inputs)
            case _:
                return self.rank * (shape[0] + inputs)
