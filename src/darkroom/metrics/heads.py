"""LAION's aesthetic heads: the one of five layers (the predictor "v2") and the older linear ones, from their published files or ours."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.metrics.eye import Eye, laion_head

PUBLISHED = "trl-lib/ddpo-aesthetic-predictor/aesthetic-model.pth"
"""sac+logos+ava1-l14-linearMSE.pth, as trl fetches it."""
VIT_L = "openai/clip-vit-large-patch14"


def find_head(eye: Eye, source: str = "") -> nn.Module:
    """The head from `source`, else the eye's own, else the published one where the eye is ViT-L/14. Raises ModelError."""
    if not source and eye.head is not None:
        return eye.head
    if not source and eye.source != VIT_L:
        raise ModelError(f"{eye.source}: has no aesthetic.safetensors, so that the aesthetic metric cannot be used with it. {ways('aesthetic')}")
    head = read_head(fetched(source or PUBLISHED), int(eye.model.config.projection_dim))
    return head.to(eye.model.device).eval().requires_grad_(False)


def read_head(path: Path, width: int) -> nn.Module:
    """A head for embeddings of `width` numbers, told by its tensors. Raises ModelError for a file of other tensors or another width."""
    state = {key.removeprefix("layers.").removeprefix("mlp."): value.float() for key, value in tensors(path).items()}
    head: nn.Module
    match sorted(state):
        case ["bias", "weight"]:
            head = nn.Linear(state["weight"].shape[-1], 1)
        case [first, *_] if first == "0.bias":
            head = laion_head(state["0.weight"].shape[-1])
        case names:
            raise ModelError(f"{path}: is no aesthetic head: it holds {', '.join(names[:3]) or 'nothing'} ... {ways('aesthetic')}")
    own = next(head.parameters()).shape[-1]
    if own != width:
        raise ModelError(
            f"{path}: is a head for embeddings of {own} numbers, and the scorer's have {width} (ViT-L/14: 768, ViT-B/32: 512). {ways('aesthetic')}"
        )
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path}: is no aesthetic head: {str(error).splitlines()[-1].strip()} {ways('aesthetic')}") from None
    return head


def fetched(source: str, metric: str = "aesthetic") -> Path:
    """A file as it is; "owner/name/file" from the hub. Raises ModelError."""
    path = Path(source)
    parts = source.split("/")
    if path.is_file() or path.is_absolute() or len(parts) < 3:
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download("/".join(parts[:2]), "/".join(parts[2:])))
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: is no file here, and the hub did not give it: {str(error).splitlines()[0]} {ways(metric)}") from None


def tensors(path: Path, metric: str = "aesthetic") -> dict[str, torch.Tensor]:
    """By name, from a .safetensors file or a pickle of tensors alone; what stands under "state_dict" where there is such. Raises ModelError."""
    try:
        found = load_file(hand_over(path)) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        return {key: value for key, value in dict(found).get("state_dict", found).items() if isinstance(value, torch.Tensor)}
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file. {ways(metric)}") from None
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, AttributeError, ValueError) as error:
        raise ModelError(f"{path}: no tensors can be read from it: {str(error).splitlines()[0]} {ways(metric)}") from None


def ways(metric: str) -> str:
    """The way out."""
    return f"Name a file with --model {metric}=FILE, or leave {metric} out."
