"""What a run says of itself: everything the result depends on, and where it was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import __version__
from darkroom.data.dataset import Photo, content_hash
from darkroom.device import hardware
from darkroom.files import sha256_bytes, sha256_file
from darkroom.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.model import SDXL
    from darkroom.train.preflight import Plan

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "pillow", "numpy")


def receipt(recipe: Recipe, model: SDXL, plan: Plan) -> dict[str, Any]:
    """Everything the result depends on, and where it was made."""
    return {
        "darkroom": __version__,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "hardware": hardware(model.device),
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "exact": exactness(model.device.type, int(os.environ.get("WORLD_SIZE", "1"))),
        **({"processes": int(os.environ["WORLD_SIZE"])} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}),
        "seed": recipe.train.seed,
        "base": recipe.base,
        "base_sha256": model.hash,
        "base_files": model.hashes,
        "pictures_sha256": content_hash([*plan.photos, *plan.classes]),
        **({"dataset": Path(recipe.data.images).name, "dataset_sha256": plan.dataset} if plan.dataset else {}),
        "pictures": [_told(photo) for photo in {photo.path: photo for photo in plan.photos}.values()],
        "held_out": [_told(photo) for photo in plan.held_out],
        "preflight": plan.facts,
    }


def exactness(device: str, processes: int = 1) -> str:
    """How far the same recipe gives the same again, here."""
    if device == "cpu":
        return "to the byte: run again or gone on with on this machine" + (", by as many processes" if processes > 1 else "")
    return (
        f"draws, order and batches are exact on every device; sums on {device} may be added up in another order each time (gradients of attention and of "
        "convolutions), so that the last bits of weights may differ from run to run, and after a resume"
    )


def _told(photo: Photo) -> dict[str, Any]:
    found = {"file": photo.path.name, "sha256": photo.sha256, "width": photo.width, "height": photo.height, "caption": photo.caption}
    return found | ({"repeats": photo.repeats} if photo.repeats > 1 else {})


def peak_memory_mib(device: torch.device) -> int:
    """The most this process has held: of the device where it is a GPU, else of main memory (0 where the system does not tell)."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) >> 20)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak >> (20 if platform.system() == "Darwin" else 10))


def product_hash(place: Path) -> str:
    """SHA-256 of a file, or over all files of a folder by name."""
    if place.is_file():
        return sha256_file(place)
    told = [f"{path.relative_to(place).as_posix()} {sha256_file(path)}" for path in sorted(place.rglob("*")) if path.is_file()]
    return sha256_bytes("\n".join(told).encode())
