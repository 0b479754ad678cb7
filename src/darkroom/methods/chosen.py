"""Which modules an adapter changes, and at which rate each learns: the part that LoRA and LyCORIS have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from darkroom.errors import RecipeError, did_you_mean
from darkroom.spec import Spec

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch
    from torch import nn

    from darkroom.sdxl.model import SDXL

T = TypeVar("T")
Key = tuple[str, str]
"""(part, module path): ("unet", "mid_block.attentions.0.proj_in")."""

ADAPTER = "adapter.safetensors"
"""What a run calls its adapter."""

TARGETS = {
    "attention": r"unet\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "feed_forward": r"unet\..*\.(ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)",
    "convolution": r"unet\..*\.(conv1|conv2|conv_shortcut|time_emb_proj|downsamplers\.0\.conv|upsamplers\.0\.conv)",
    "text_encoders": r"text_encoder(_2)?\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}


class Chosen(Spec):
    """The modules that are changed."""

    attention: bool = Field(True, description="Change the attention layers of the U-Net (diffusers' default: 560 modules of SDXL 1.0).")
    feed_forward: bool = Field(False, description="Change the feed-forward and projection layers of the U-Net's transformers too.")
    convolution: bool = Field(False, description="Change the convolutions of the U-Net too (LoCon).")
    text_encoders: bool = Field(False, description="Change both text encoders too. Their text is then encoded anew at every step.")
    text_rate: float = Field(0.5, gt=0, description="Learning rate of the text encoders, as a multiple of the U-Net's (kohya's habit: half).")
    text_rate_2: float = Field(0.0, ge=0, description="The same of the second text encoder alone; 0: as text_rate.")
    rates: dict[str, float] = Field(
        {}, description='Rates by place, as multiples: {"down_blocks.1" = 0.5, "mid_block" = 0}. The longest word wins; 0 keeps a place as it is.'
    )

    @property
    def trains_text(self) -> bool:
        """True where text cannot be encoded beforehand."""
        return self.text_encoders

    def product(self, trigger: str) -> str:
        """What the run folder calls what was learned."""
        return ADAPTER

    def wanted(self, name: str) -> bool:
        """Whether the module `part.path` is changed."""
        chosen = any(getattr(self, option) and re.fullmatch(pattern, name) for option, pattern in TARGETS.items())
        return chosen and longest(self.rates, name, 1.0) > 0

    def modules(self, model: SDXL) -> dict[Key, nn.Module]:
        """The changed modules. Raises RecipeError where there are none, or where a word of `rates` names nothing."""
        from darkroom.sdxl.formats import adaptable

        found: dict[Key, nn.Module] = {(part, path): module for part, path, module in adaptable(model) if self.wanted(f"{part}.{path}")}
        if not found:
            raise RecipeError("method: no part of the model is chosen. Set one of attention, feed_forward, convolution, text_encoders to true.")
        names = [f"{part}.{path}" for part, path, _ in adaptable(model)]
        check_words("method.rates", self.rates, names)
        return found

    def rate(self, key: Key) -> float:
        """The rate of a module as a multiple of the optimizer's."""
        return rate_at(key, self.rates, self.text_rate, self.text_rate_2)

    def grouped(self, parameters: Iterable[tuple[Key, nn.Parameter]], rate: float) -> list[dict[str, Any]]:
        """Parameter groups, one for each rate, the U-Net's first."""
        groups: dict[float, list[nn.Parameter]] = {}
        for key, parameter in parameters:
            groups.setdefault(self.rate(key), []).append(parameter)
        return [{"params": members, "lr": rate * multiple, "name": f"x{multiple:g}"} for multiple, members in groups.items()]


def rate_at(key: Key, rates: Mapping[str, float], text_rate: float, text_rate_2: float) -> float:
    """The rate of a place as a multiple of the optimizer's; `text_rate_2` of 0 is `text_rate`."""
    of_part = {"unet": 1.0, "text_encoder": text_rate, "text_encoder_2": text_rate_2 or text_rate}[key[0]]
    return of_part * longest(rates, ".".join(key), 1.0)


def kept(named: Iterable[tuple[Key, str, nn.Parameter]]) -> dict[str, torch.Tensor]:
    """Full-precision copies on the host, by name: what an exact resume needs."""
    return {name: parameter.detach().cpu().clone() for _, name, parameter in named}


def put_back(named: Iterable[tuple[Key, str, nn.Parameter]], state: Mapping[str, torch.Tensor]) -> None:
    """The values that `kept` gave, into the parameters."""
    import torch

    with torch.no_grad():
        for _, name, parameter in named:
            parameter.copy_(state[name])


def longest(table: Mapping[str, T], name: str, otherwise: T) -> T:
    """The value under the longest word that leads to `part.path`: "down_blocks.1" and "unet.down_blocks.1" lead to unet.down_blocks.1.resnets.0.conv1."""
    fitting = [word for word in table if _leads(word, name)]
    return table[max(fitting, key=len)] if fitting else otherwise


def _leads(word: str, name: str) -> bool:
    return f"{name}.".startswith((f"{word}.", f"unet.{word}."))


def check_words(field: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises RecipeError where a word of the table leads to no module."""
    known = list(names)
    for word in table:
        if not any(_leads(word, name) for name in known):
            heads = sorted({".".join(name.removeprefix("unet.").split(".")[:2]) for name in known})
            raise RecipeError(f'{field}: "{word}" leads to no module.{did_you_mean(word, heads)} Known are words such as {", ".join(heads[:4])}.')
