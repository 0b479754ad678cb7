"""Which part of the model changes, and the file that the change goes to.

A new method is one file and one word in `Method`: the contract tests iterate over it.
"""

from typing import Annotated

from pydantic import Discriminator, Tag

from darkroom.methods.controlnet import ControlNet
from darkroom.methods.full import FullTuning
from darkroom.methods.inversion import TextualInversion
from darkroom.methods.lora import LoRA
from darkroom.methods.lycoris import LyCORIS
from darkroom.methods.pivotal import Pivotal
from darkroom.spec import kind_of

Method = Annotated[
    Annotated[LoRA, Tag("lora")]
    | Annotated[LyCORIS, Tag("lycoris")]
    | Annotated[TextualInversion, Tag("inversion")]
    | Annotated[Pivotal, Tag("pivotal")]
    | Annotated[ControlNet, Tag("controlnet")]
    | Annotated[FullTuning, Tag("full")],
    Discriminator(kind_of("lora")),
]

__all__ = ["ControlNet", "FullTuning", "LoRA", "LyCORIS", "Method", "Pivotal", "TextualInversion"]
