"""Small adapters of every method for a real base's modules, the same on every run."""

from __future__ import annotations

from pathlib import Path

import torch

from darkroom.sdxl.adapters.changes import Change, Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.places import Catalogue, Key, Place
from support.lycoris import rand

ALONE = ("LoRA", "LoCon tucker", "LoHa", "LoHa tucker", "LoKr", "LoKr whole", "full")
"""What adds the same to every base."""
ON_BASE = ("DoRA", "DoRA on inputs", "LoHa DoRA", "GLoRA", "(IA)^3", "diag-OFT", "BOFT")
"""What adds something that depends on the base's weights."""


def change(method: str, place: Place, seed: int = 0, rank: int = 3) -> Change:
    """A change of that method at a linear layer or convolution, about a tenth as large as usual weights."""
    out, inside, kernel = place.shape[0], place.shape[1], place.shape[2:]
    ones, flat = (1,) * len(kernel), inside * torch.Size(kernel).numel()
    counter = seed * 1000

    def t(*shape: int, by: float = 1.0 if method.startswith(("LoHa", "LoKr")) else 0.3) -> torch.Tensor:
        nonlocal counter
        counter += 1
        return rand(*shape, seed=counter) * by

    tucked = kernel == (3, 3)
    match method:
        case "LoRA" | "LoCon tucker" if not (method == "LoCon tucker" and tucked):
            return LowRank(t(rank, inside, *kernel), t(out, rank, *ones), 2.0)
        case "LoCon tucker":
            return LowRank(t(rank, inside, 1, 1), t(out, rank, 1, 1), 2.0, mid=t(rank, rank, 3, 3))
        case "LoHa tucker" if tucked:
            return Hada(t(rank, out), t(rank, inside), t(rank, out), t(rank, inside), 2.0, t(rank, rank, 3, 3), t(rank, rank, 3, 3))
        case "LoHa" | "LoHa tucker":
            return Hada(t(out, rank), t(rank, flat), t(out, rank), t(rank, flat), 2.0)
        case "LoHa DoRA":
            return Hada(t(out, rank), t(rank, flat), t(out, rank), t(rank, flat), 2.0, dora_scale=t(out, 1, *ones, by=1.0).abs() + 0.4)
        case "LoKr" if tucked:
            return Kron(w1=t(2, 2), w2_a=t(rank, out // 2), w2_b=t(rank, inside // 2), t2=t(rank, rank, 3, 3), alpha=2.0)
        case "LoKr":
            return Kron(w1=t(2, 2), w2_a=t(out // 2, rank), w2_b=t(rank, flat // 2), alpha=2.0)
        case "LoKr whole":
            return Kron(w1=t(2, 2), w2=t(out // 2, inside // 2, *kernel))
        case "full":
            return Full(t(*place.shape, by=0.05), t(out) if place.bias else None)
        case "DoRA":
            return LowRank(t(rank, inside, *kernel), t(out, rank, *ones), 2.0, dora_scale=t(out, 1, *ones, by=1.0).abs() + 0.4)
        case "DoRA on inputs":
            return LowRank(t(rank, inside, *kernel), t(out, rank, *ones), 2.0, dora_scale=t(1, inside, *ones, by=1.0).abs() + 0.4)
        case "GLoRA":
            return Glora(t(inside, rank, *ones), t(rank, inside, *ones), t(out, rank, *ones), t(rank, inside, *kernel), 2.0)
        case "(IA)^3":
            return Ia3(t(inside) if not kernel else t(1, inside, 1, 1), True)
        case "diag-OFT":
            return Oft(t(out // 4, 4, 4), 0.0, t(out, 1, *ones, by=0.1) + 1)
        case "BOFT":
            return Oft(t(2, out // 4, 4, 4))
    raise ValueError(method)


def chosen(catalogue: Catalogue) -> list[Place]:
    """Linear layers, convolutions of both kinds and both text encoders, a few of each."""
    linear = [place for place in catalogue.places.values() if place.kind == "linear" and place.shape[0] % 8 == 0]
    conv = [place for place in catalogue.places.values() if place.kind == "conv" and place.shape[0] % 8 == 0 and place.shape[1] % 2 == 0]
    by_part = [[place for place in linear if place.part == part] for part in ("unet", "text_encoder", "text_encoder_2")]
    return [*by_part[0][::7], *by_part[1][::4], *by_part[2][::4], *conv[::3]]


def made(catalogue: Catalogue, method: str, seed: int = 0, rank: int = 3, keys: list[Key] | None = None, name: str = "made") -> Adapter:
    """An adapter of one method that was never written."""
    places = [catalogue.places[key] for key in keys] if keys else chosen(catalogue)
    changes = {place.key: change(method, place, seed + number, rank) for number, place in enumerate(places)}
    return Adapter(Path(f"{name}.safetensors"), f"{name}-{seed}", changes, {}, catalogue=catalogue)


def norms(catalogue: Catalogue, seed: int = 0) -> Adapter:
    """Every layer norm and group norm."""
    places = [place for place in catalogue.places.values() if place.kind == "norm"]
    changes: dict[Key, Change] = {p.key: Norm(rand(*p.shape, seed=seed), rand(p.shape[0], seed=seed + 1) if p.bias else None) for p in places}
    return Adapter(Path("norms.safetensors"), f"norms-{seed}", changes, {}, catalogue=catalogue)


def saved(path: Path, adapter: Adapter, **metadata: str) -> Path:
    """The adapter as a file of kohya's layout."""
    write(path, adapter, "kohya", {"ss_sd_model_name": "pocket", **metadata})
    return path


def again(path: Path, catalogue: Catalogue) -> Adapter:
    """What the file holds."""
    return read(path, catalogue)
