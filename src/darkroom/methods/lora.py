"""LoRA: learn a low-rank change to the linear layers of attention, and more by option. Layers by peft, names and files by us."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.methods.attached import Adapting
from darkroom.methods.chosen import Chosen, Key, check_words, kept, longest, put_back

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch
    from torch import nn

    from darkroom.methods.woven import Thread, Woven
    from darkroom.sdxl.model import SDXL


class LoRA(Chosen):
    """Learn a low-rank change W + (alpha / r) B A (Hu et al. 2021, eq. 3)."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, description="Width of the change: 4 is a whisper, 128 is a new voice.")
    alpha: float = Field(16.0, gt=0, description="The change is scaled by alpha / rank; equal to rank it is unscaled (diffusers' scripts).")
    conv_rank: int = Field(0, ge=0, description="Rank of the convolutions; 0: as rank (kohya's conv_dim).")
    conv_alpha: float = Field(0.0, ge=0, description="Alpha of the convolutions; 0: as alpha (kohya's conv_alpha).")
    ranks: dict[str, int] = Field(
        {}, description='Ranks by place: {"down_blocks.1" = 4, "mid_block" = 32}. The longest word wins; alpha / rank stays the same.'
    )
    dora: bool = Field(
        False, description="Learn the norm of each output apart from its direction (DoRA, Liu et al. 2024). Slower, and a little closer to a full fine-tune."
    )

    def shape(self, key: Key, module: nn.Module) -> tuple[int, float]:
        """Rank and alpha of a module."""
        convolution = getattr(module, "kernel_size", (1, 1)) != (1, 1)
        rank = (self.conv_rank if convolution else 0) or self.rank
        alpha = (self.conv_alpha if convolution else 0.0) or self.alpha
        given = longest(self.ranks, ".".join(key), 0)
        return (given, alpha / rank * given) if given else (rank, alpha)

    def attach(self, model: SDXL, seed: int) -> LoRAttached | Woven:
        """Put fresh layers on the model: B is zero, so that nothing changes yet. Raises RecipeError where no part is chosen, or a word names no place."""
        chosen = {key: self.shape(key, module) for key, module in self.modules(model).items()}
        check_words("method.ranks", self.ranks, [".".join(key) for key in chosen])
        if any(rank < 1 for rank in self.ranks.values()):
            raise RecipeError("method.ranks: a rank must be at least 1. To keep a place as it is, give it the rate 0 in method.rates.")
        return self._woven(model, chosen, seed) if self.dora else LoRAttached(self, model, chosen, seed)

    def _woven(self, model: SDXL, chosen: dict[Key, tuple[int, float]], seed: int) -> Woven:
        from darkroom.methods import starts
        from darkroom.methods.woven import Woven

        def start(key: Key, module: nn.Module, dice: torch.Generator) -> Thread:
            weight = cast(Any, module.weight).detach()
            found = starts.lowrank(weight, *chosen[key], dice)
            found.learned["dora_scale"] = starts.magnitude(weight)
            return found

        header = {"ss_network_dim": self.rank, "ss_network_alpha": self.alpha, "ss_network_args": {"algo": "locon", "dora_wd": True}}
        return Woven(self, model, start, seed, header=header)

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers are learned of a weight of this shape, about; preflight's forecast."""
        return self.rank * (shape[0] + math.prod(shape[1:]))


class LoRAttached(Adapting):
    """LoRA layers on a model, named "learned" among peft's adapters."""

    name = "learned"

    def __init__(self, spec: LoRA, model: SDXL, chosen: dict[Key, tuple[int, float]], seed: int) -> None:
        """`chosen` gives rank and alpha of each changed module."""
        import torch

        self.spec, self.model, self.chosen = spec, model, chosen
        inject(model, self.name, chosen)
        for part, path, layer in self.layers():  # in float32 beside a bf16 base too: bf16 would round steps of 1e-4 away
            down, up = layer.lora_A[self.name].float().weight, layer.lora_B[self.name].float().weight
            with torch.no_grad():  # kaiming_uniform(a = sqrt 5) as peft does, but drawn by (seed, module) alone
                bound = 1 / math.sqrt(down[0].numel())
                down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator(seed, "lora", part, path)))
                up.zero_()
            down.requires_grad_(True)
            up.requires_grad_(True)

    def layers(self) -> Iterator[tuple[str, str, Any]]:
        """(part, path, peft layer) of every changed module."""
        for part, path in self.chosen:
            yield part, path, self.model.parts[part].get_submodule(path)

    def _named(self) -> Iterator[tuple[Key, str, nn.Parameter]]:
        for part, path, layer in self.layers():
            yield (part, path), f"{part}.{path}.lora_A", layer.lora_A[self.name].weight
            yield (part, path), f"{part}.{path}.lora_B", layer.lora_B[self.name].weight

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One for each rate."""
        return self.spec.grouped(((key, parameter) for key, _, parameter in self._named()), rate)

    def state(self) -> dict[str, torch.Tensor]:
        """Full-precision weights by name."""
        return kept(self._named())

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        put_back(self._named(), state)

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """kohya's names in sgm spelling, with an alpha for each module."""
        import torch

        from darkroom.sdxl.formats import kohya_name, plain_blocks

        found = {}
        layers, plain = int(self.model.unet.config.layers_per_block), plain_blocks(self.model.unet)
        for part, path, layer in self.layers():
            name = kohya_name(part, path, layers, plain)
            found[f"{name}.lora_down.weight"] = layer.lora_A[self.name].weight.detach().to(dtype)
            found[f"{name}.lora_up.weight"] = layer.lora_B[self.name].weight.detach().to(dtype)
            found[f"{name}.alpha"] = torch.tensor(self.chosen[part, path][1], dtype=dtype)
        return found

    def metadata(self) -> dict[str, str]:
        """kohya's header words for a LoRA."""
        spec = self.spec
        arguments = {"conv_dim": spec.conv_rank or spec.rank, "conv_alpha": spec.conv_alpha or spec.alpha} if spec.convolution else {}
        return {
            "ss_network_module": "networks.lora", "ss_network_dim": str(self.spec.rank), "ss_network_alpha": str(self.spec.alpha),
            "ss_network_args": json.dumps(arguments),
        }  # fmt: skip

    def detach(self) -> None:
        """Take the layers off; the base weights were never touched."""
        remove(self.model, self.chosen, self.name)


def inject(model: SDXL, name: str, ranks: dict[Key, tuple[int, float]]) -> None:
    """Put empty peft LoRA layers called `name` on the modules (part, path) -> (rank, alpha)."""
    from peft import LoraConfig, inject_adapter_in_model

    for part in {part for part, _ in ranks}:
        here = {path: shape for (owner, path), shape in ranks.items() if owner == part}
        rank, alpha = next(iter(here.values()))
        pattern = {re.escape(path): value for path, value in here.items()}
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=list(here), init_lora_weights=True,
            rank_pattern={key: r for key, (r, _) in pattern.items() if r != rank}, alpha_pattern={key: a for key, (_, a) in pattern.items() if a != alpha},
        )  # fmt: skip
        with warnings.catch_warnings():  # several adapters on one model are meant
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(config, model.parts[part], adapter_name=name)
    for root in model.parts.values():
        root.requires_grad_(False)


def remove(model: SDXL, places: Iterable[Key], name: str) -> None:
    """Take the layers called `name` off again; a module with no layer left gets its own self back."""
    for part, path in places:
        root = model.parts[part]
        layer: Any = root.get_submodule(path)
        layer.delete_adapter(name)
        if not layer.lora_A:
            parent, _, last = path.rpartition(".")
            setattr(root.get_submodule(parent), last, layer.base_layer)
    for part in {part for part, _ in places}:
        if not any(".lora_A" in n for n, _ in model.parts[part].named_modules()) and hasattr(model.parts[part], "peft_config"):
            del model.parts[part].peft_config
