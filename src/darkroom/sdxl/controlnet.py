"""ControlNets in (Zhang et al. 2023): from diffusers' folders, single files and the hub, for the base that they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.device import quiet_libraries
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.files import sha256_bytes, sha256_file
from darkroom.sdxl.model import PICKLES, SDXL

if TYPE_CHECKING:
    from diffusers import ControlNetModel


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

    hand_over(path)
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
