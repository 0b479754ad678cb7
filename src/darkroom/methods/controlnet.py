"""A ControlNet: a copy of the U-Net's first half that reads a picture, and says what the U-Net is to add (Zhang et al. 2023). The network is diffusers'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from darkroom.methods.attached import Attached
from darkroom.methods.chosen import Key, kept, put_back
from darkroom.spec import Spec
from darkroom.values import seed_for

if TYPE_CHECKING:  # torch is imported by the functions: reading a recipe must cost nothing
    import torch
    from diffusers import ControlNetModel
    from torch import nn

    from darkroom.methods.attached import Label
    from darkroom.sdxl.model import SDXL
    from darkroom.sdxl.text import Text

WIDTHS = (16, 32, 96, 256)
"""Channels of the layers that bring a picture down to latents' size; each but the first halves it (Zhang et al. 2023, section 3.2)."""


class ControlNet(Spec):
    """Learn to follow a picture: edges, depth, colours, or whatever pairs show. The U-Net itself stays as it is."""

    kind: Literal["controlnet"] = "controlnet"
    condition: Literal["edge", "depth", "colour", "as_is"] = Field(
        "edge", description="What it reads: made from each picture (edge, depth, colour), or as_is from the pictures of `pairs`."
    )
    pairs: str = Field("", description="With as_is: a folder that holds, for each picture, what the ControlNet reads, under the same name.")
    depth_model: str = Field("Intel/dpt-hybrid-midas", description="The depth-estimation model for depth: a folder or hub id.")
    start: str = Field("", description="A ControlNet to go on from: a folder, file or hub id. Empty: a copy of the base's U-Net (diffusers' script).")

    @model_validator(mode="after")
    def _has_pairs(self) -> ControlNet:
        if (self.condition == "as_is") != bool(self.pairs):
            raise ValueError('condition = "as_is" reads the pictures of the folder `pairs`, and only it does: set both, or neither')
        return self

    @property
    def trains_text(self) -> bool:
        """Text is encoded beforehand."""
        return False

    def product(self, trigger: str) -> str:
        """A folder that diffusers' ControlNetModel.from_pretrained opens."""
        return "controlnet"

    def wanted(self, name: str) -> bool:
        """Whether the module `part.path` is changed: none is."""
        return False

    def numbers(self, shape: tuple[int, ...]) -> int:
        """How many numbers are learned of a weight of this shape: none of any; the ControlNet's own come on top."""
        return 0

    def attach(self, model: SDXL, seed: int) -> Controlling:
        """A copy of the first half of the U-Net whose outputs begin at zero, so that nothing changes yet. Raises ModelError for a start of another family."""
        return Controlling(self._network(model, seed), model)

    def _network(self, model: SDXL, seed: int) -> ControlNetModel:
        import torch
        from diffusers import ControlNetModel

        from darkroom.device import quiet_libraries

        if self.start:
            from darkroom.sdxl.controlnet import load_control

            return load_control(self.start, model)[0]
        layers = model.pixel_factor.bit_length()
        with torch.random.fork_rng(devices=[]), quiet_libraries():
            torch.manual_seed(seed_for(seed, "controlnet") % (1 << 63))
            found: ControlNetModel = ControlNetModel.from_unet(model.unet, conditioning_embedding_out_channels=WIDTHS[:layers])
        return found.to(model.device)


class Controlling(Attached):
    """A ControlNet that is being learned, in float32, beside a model."""

    def __init__(self, network: ControlNetModel, model: SDXL) -> None:
        self.network, self.model = network.float().train().requires_grad_(True), model
        self.own = (self.network,)
        for root in model.parts.values():
            root.requires_grad_(False)

    def _named(self) -> Iterator[tuple[Key, str, nn.Parameter]]:
        for name, parameter in self.network.named_parameters():
            yield ("controlnet", name), name, parameter

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": [parameter for _, _, parameter in self._named()], "lr": rate, "name": "x1"}]

    def extra(self, noisy: torch.Tensor, t: torch.Tensor, text: Text, ids: torch.Tensor, condition: torch.Tensor | None) -> dict[str, Any]:
        """What the U-Net is to add, from the picture `condition` (B, 3, H, W)."""
        assert condition is not None
        added = {"text_embeds": text.pooled, "time_ids": ids}
        down, mid = self.network(noisy, t, text.states, condition.to(noisy.dtype), added_cond_kwargs=added, return_dict=False)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

    def drawing(self) -> dict[str, Any]:
        """A copy in the model's own number format, as `generate` would load it."""
        import copy

        return {"networks": (copy.deepcopy(self.network).to(self.model.dtype).eval().requires_grad_(False),)}

    def state(self) -> dict[str, torch.Tensor]:
        """Full-precision weights by name."""
        return kept(self._named())

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        put_back(self._named(), state)

    def write(self, place: Path, dtype: torch.dtype, label: Label) -> None:
        """diffusers' folder: config.json and diffusion_pytorch_model.safetensors, with the receipt in the header."""
        from darkroom.files import whole_folder
        from darkroom.sdxl.formats import write_adapter

        with whole_folder(place) as folder:
            self.network.save_config(folder)
            tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in self.network.state_dict().items()}
            write_adapter(folder / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"} | label(tensors))

    def metadata(self) -> dict[str, str]:
        """What kind of file it is."""
        return {"darkroom.method": json.dumps({"kind": "controlnet"})}

    def detach(self) -> None:
        """The model was never touched."""
