"""ControlNet: a picture that guides the drawing (Zhang et al. 2023). Networks by diffusers; several add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darkroom.device import quiet_libraries
from darkroom.errors import ModelError
from darkroom.files import sha256_bytes, sha256_file
from darkroom.sdxl.model import PICKLES, SDXL

if TYPE_CHECKING:
    from diffusers import ControlNetModel


@dataclass(frozen=True)
class Hint:
    """One ControlNet with its picture (1, 3, H, W) in 0..1, its weight, and the part of the steps in which it guides."""

    network: ControlNetModel
    picture: torch.Tensor
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def speaks(self, step: int, steps: int) -> bool:
        """Whether it guides in this step (diffusers' control_guidance_start and control_guidance_end)."""
        return not (step / steps < self.start or (step + 1) / steps > self.end)


@dataclass(frozen=True)
class Guide:
    """All hints of a drawing of `steps` steps. Called with what the U-Net reads, it gives what the U-Net is to add."""

    hints: tuple[Hint, ...] = ()
    steps: int = 1

    def __call__(self, x: torch.Tensor, t: torch.Tensor, step: int, states: torch.Tensor, extra: dict[str, torch.Tensor]) -> dict[str, Any]:
        """x (B, 4, h, w), states (B, n, C) -> keyword arguments for diffusers' U-Net; none where nothing guides."""
        down: list[torch.Tensor] = []
        mid = None
        for hint in self.hints:
            if not hint.speaks(step, self.steps):
                continue
            picture = hint.picture.to(x).expand(len(x), -1, -1, -1)
            found = hint.network(x, t, states, picture, hint.weight, added_cond_kwargs=extra, return_dict=False)
            down = [a + b for a, b in zip(down, found[0], strict=True)] if down else list(found[0])
            mid = found[1] if mid is None else mid + found[1]
        return {} if mid is None else {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}


def load_control(source: str, base: SDXL) -> tuple[ControlNetModel, str]:
    """A ControlNet and the hash of its weights, from a diffusers folder, a .safetensors file or a hub id.

    Raises ModelError where it is missing, a pickle, broken, or made for another base.
    """
    path = Path(source)
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path}: a pickle can run code when it is opened, and is refused. Convert it to .safetensors elsewhere, then try again.")
    if path.suffix == ".safetensors" and not path.is_file():
        raise ModelError(f"{path}: there is no such file. A control is written MODEL=IMAGE, with a ControlNet's folder, file or hub id.")
    if not path.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise ModelError(f"{source}: is no folder, no .safetensors file and no hub id. A control is written MODEL=IMAGE.")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{path}: has no config.json, so it is no ControlNet folder.")
    from diffusers import ControlNetModel

    open_ = ControlNetModel.from_single_file if path.is_file() else ControlNetModel.from_pretrained
    try:
        with quiet_libraries():
            network = open_(source, torch_dtype=base.dtype)
    except Exception as error:  # diffusers raises many kinds here; all of them mean that this cannot be loaded
        raise ModelError(f"{source}: cannot be loaded as a ControlNet: {str(error).splitlines()[0]}") from None
    _fits(source, network, base)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    digest = sha256_bytes("".join(sha256_file(file) for file in files).encode()) if files else ""
    return network.to(base.device).eval().requires_grad_(False), digest


def _fits(source: str, network: ControlNetModel, base: SDXL) -> None:
    for name in ("cross_attention_dim", "block_out_channels", "addition_embed_type", "in_channels"):
        theirs, ours = network.config.get(name), base.unet.config.get(name)
        if name == "in_channels":
            ours = 4
        if _plain(theirs) != _plain(ours):
            raise ModelError(
                f"{source}: is a ControlNet for another family: its {name} is {_plain(theirs)}, and {base.source} has {_plain(ours)}. "
                f"Take one that was made for this base."
            )
    factor = 2 ** (len(network.config.conditioning_embedding_out_channels) - 1)
    if factor != base.pixel_factor:
        raise ModelError(f"{source}: reads pictures {factor} times as large as its latents, and {base.source} has {base.pixel_factor} pixels a latent.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
