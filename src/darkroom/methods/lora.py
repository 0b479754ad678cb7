"""LoRA: learn a low-rank change to the linear layers of attention, and more by option. Layers by peft, names and files by us."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.spec import Spec

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch
    from torch import nn

    from darkroom.sdxl.model import SDXL

TARGETS = {
    "attention": r"unet\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "feed_forward": r"unet\..*\.(ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)",
    "convolution": r"unet\..*\.(conv1|conv2|conv_shortcut|time_emb_proj|downsamplers\.0\.conv|upsamplers\.0\.conv)",
    "text_encoders": r"text_encoder(_2)?\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}


class LoRA(Spec):
    """Learn a low-rank change W + (alpha / r) B A (Hu et al. 2021, eq. 3)."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, description="Width of the change: 4 is a whisper, 128 is a new voice.")
    alpha: float = Field(16.0, gt=0, description="The change is scaled by alpha / rank; equal to rank it is unscaled (diffusers' scripts).")
    attention: bool = Field(True, description="Change the attention layers of the U-Net (diffusers' default: 560 modules of SDXL 1.0).")
    feed_forward: bool = Field(False, description="Change the feed-forward and projection layers of the U-Net's transformers too.")
    convolution: bool = Field(False, description="Change the convolutions of the U-Net too (LoCon).")
    text_encoders: bool = Field(False, description="Change both text encoders too. Their text is then encoded anew at every step.")
    text_rate: float = Field(0.5, gt=0, description="Learning rate of the text encoders, as a multiple of the U-Net's (kohya's habit: half).")

    @property
    def trains_text(self) -> bool:
        """True where text cannot be encoded beforehand."""
        return self.text_encoders

    def wanted(self, name: str) -> bool:
        """Whether the module `part.path` is changed."""
        return any(getattr(self, option) and re.fullmatch(pattern, name) for option, pattern in TARGETS.items())

    def attach(self, model: SDXL, seed: int) -> LoRAttached:
        """Put fresh layers on the model: B is zero, so that nothing changes yet. Raises RecipeError where no part is chosen."""
        from darkroom.sdxl.formats import adaptable

        chosen = [(part, path) for part, path, _ in adaptable(model) if self.wanted(f"{part}.{path}")]
        if not chosen:
            raise RecipeError("method: no part of the model is chosen. Set one of attention, feed_forward, convolution, text_encoders to true.")
        return LoRAttached(self, model, chosen, seed)


class LoRAttached:
    """LoRA layers on a model, named "learned" among peft's adapters."""

    name = "learned"

    def __init__(self, spec: LoRA, model: SDXL, chosen: list[tuple[str, str]], seed: int) -> None:
        import torch

        self.spec, self.model, self.chosen = spec, model, chosen
        inject(model, self.name, dict.fromkeys(chosen, (spec.rank, spec.alpha)))
        for part, path, layer in self.layers():
            down, up = layer.lora_A[self.name].weight, layer.lora_B[self.name].weight
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

    def _named(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        for part, path, layer in self.layers():
            yield part, f"{part}.{path}.lora_A", layer.lora_A[self.name].weight
            yield part, f"{part}.{path}.lora_B", layer.lora_B[self.name].weight

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One group for the U-Net, one for the text encoders where they learn."""
        unet = [p for part, _, p in self._named() if part == "unet"]
        text = [p for part, _, p in self._named() if part != "unet"]
        groups = [{"params": unet, "lr": rate, "name": "unet"}, {"params": text, "lr": rate * self.spec.text_rate, "name": "text"}]
        return [group for group in groups if group["params"]]

    def after_step(self) -> None:
        """LoRA needs nothing after a step."""

    def state(self) -> dict[str, torch.Tensor]:
        """Full-precision weights by name."""
        return {name: parameter.detach().cpu().clone() for _, name, parameter in self._named()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        import torch

        with torch.no_grad():
            for _, name, parameter in self._named():
                parameter.copy_(state[name])

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """kohya's names in sgm spelling, with an alpha for each module."""
        import torch

        from darkroom.sdxl.formats import kohya_name

        found = {}
        layers = int(self.model.unet.config.layers_per_block)
        for part, path, layer in self.layers():
            name = kohya_name(part, path, layers)
            found[f"{name}.lora_down.weight"] = layer.lora_A[self.name].weight.detach().to(dtype)
            found[f"{name}.lora_up.weight"] = layer.lora_B[self.name].weight.detach().to(dtype)
            found[f"{name}.alpha"] = torch.tensor(float(self.spec.alpha), dtype=dtype)
        return found

    def metadata(self) -> dict[str, str]:
        """kohya's header words for a LoRA."""
        arguments = {"conv_dim": self.spec.rank, "conv_alpha": self.spec.alpha} if self.spec.convolution else {}
        return {
            "ss_network_module": "networks.lora", "ss_network_dim": str(self.spec.rank), "ss_network_alpha": str(self.spec.alpha),
            "ss_network_args": json.dumps(arguments),
        }  # fmt: skip

    def detach(self) -> None:
        """Take the layers off; the base weights were never touched."""
        remove(self.model, self.chosen, self.name)


def inject(model: SDXL, name: str, ranks: dict[tuple[str, str], tuple[int, float]]) -> None:
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


def remove(model: SDXL, places: Iterable[tuple[str, str]], name: str) -> None:
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
