"""How weights move. A new optimizer is one class and one word in `Optimizer`: the contract tests iterate over it.

Each is a well-kept library's; its fields are that library's own arguments, and an unknown one is refused. What a checkpoint keeps of it, and the
weights that pictures are drawn with, are in `state`.
"""

from typing import Annotated

from pydantic import Discriminator, Tag

from darkroom.spec import kind_of
from darkroom.train.optimizers.adafactor import Adafactor
from darkroom.train.optimizers.adam import AdamW, AdamW8bit
from darkroom.train.optimizers.adaptive import DAdaptation, Prodigy
from darkroom.train.optimizers.free import ScheduleFree
from darkroom.train.optimizers.lion import Lion, Lion8bit

Optimizer = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[AdamW8bit, Tag("adamw8bit")]
    | Annotated[Adafactor, Tag("adafactor")]
    | Annotated[Lion, Tag("lion")]
    | Annotated[Lion8bit, Tag("lion8bit")]
    | Annotated[Prodigy, Tag("prodigy")]
    | Annotated[DAdaptation, Tag("dadaptation")]
    | Annotated[ScheduleFree, Tag("schedule_free")],
    Discriminator(kind_of("adamw")),
]

__all__ = ["Adafactor", "AdamW", "AdamW8bit", "DAdaptation", "Lion", "Lion8bit", "Optimizer", "Prodigy", "ScheduleFree"]
