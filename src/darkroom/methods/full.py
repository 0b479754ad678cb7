"""Full fine-tuning: the weights of the U-Net themselves learn, those of the text encoders by option, and what comes out is a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from darkroom.methods.chosen import Key, longest, rate_at
from darkroom.spec import Spec

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    from darkroom.methods.tuned import Tuned
    from darkroom.sdxl.model import SDXL

MODEL = "model"
"""What a run calls the model that it learned."""
AVERAGED = ("ema_after", "ema_warmup", "ema_on_host")


class FullTuning(Spec):
    """Learn all weights of the U-Net, and of the text encoders by option."""

    kind: Literal["full"] = "full"
    text_encoders: bool = Field(False, description="Learn both text encoders too. Their text is then encoded anew at every step.")
    text_rate: float = Field(0.5, gt=0, description="Learning rate of the text encoders, as a multiple of the U-Net's (kohya's habit: half).")
    text_rate_2: float = Field(0.0, ge=0, description="The same of the second text encoder alone; 0: as text_rate.")
    rates: dict[str, float] = Field(
        {}, description='Rates by place, as multiples: {"down_blocks.1" = 0.5, "conv_in" = 0}. The longest word wins; 0 keeps a place as it is.'
    )
    weights: Literal["fp32", "bf16"] = Field(
        "fp32", description="Number format of what learns: fp32, beside whichever format computes; or bf16, rounded up or down by chance, in half the memory."
    )
    ema: float = Field(0.0, ge=0, lt=1, description="Decay of a running average of the weights, which is drawn with and saved (diffusers: 0.9999); 0 is none.")
    ema_after: int = Field(0, ge=0, description="Steps before the average begins (diffusers: 0).")
    ema_warmup: bool = Field(False, description="It begins as 1 - step^(-2/3), for long runs, rather than as (1 + step) / (10 + step) (diffusers: off).")
    ema_on_host: bool = Field(False, description="The average lies in main memory: 10 GiB less on the card for SDXL, and a slower step.")
    single_file: bool = Field(False, description="Write the model as one .safetensors too, beside each folder: what A1111 and ComfyUI open.")

    @model_validator(mode="after")
    def _averages(self) -> FullTuning:
        said = next((name for name in AVERAGED if getattr(self, name)), None)
        if said and not self.ema:
            raise ValueError(f"method.{said} is of the running average, and method.ema = 0 is none. Set method.ema, for example to 0.9999, or leave {said} out")
        return self

    @property
    def trains_text(self) -> bool:
        """True where text cannot be encoded beforehand."""
        return self.text_encoders

    def product(self, trigger: str) -> str:
        """A folder that stock diffusers opens."""
        return MODEL

    def wanted(self, name: str) -> bool:
        """Whether the module or tensor `part.path` learns."""
        return (name.startswith("unet.") or self.text_encoders) and longest(self.rates, name, 1.0) > 0

    def rate(self, key: Key) -> float:
        """The rate of a tensor as a multiple of the optimizer's."""
        return rate_at(key, self.rates, self.text_rate, self.text_rate_2)

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers are learned of a weight of this shape; preflight's forecast."""
        return math.prod(shape)

    def attach(self, model: SDXL, seed: int) -> Tuned:
        """Let the model's own weights learn. `seed` is not used: nothing is drawn.

        Raises RecipeError where a word of `rates` names no place, nothing is left to learn, or bf16 weights are to learn a model of another format.
        """
        from darkroom.methods.tuned import Tuned

        return Tuned(self, model)
