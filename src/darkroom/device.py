"""Which device, which precision, and seeded noise. torch is imported on first use."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from typing import TYPE_CHECKING, Literal

from darkroom.errors import RecipeError
from darkroom.values import seed_for

if TYPE_CHECKING:
    import torch

getLogger("bitsandbytes").setLevel(ERROR)  # where it is installed diffusers imports it, and it warns of kernels that nothing here uses

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def pick_device(wanted: str = "auto") -> torch.device:
    """ "auto" is cuda, then mps, then cpu. Raises RecipeError where the wanted device is not there."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).split("\n")[0]
        raise RecipeError(f'device "{wanted}" cannot be used here: {first} Choose "auto" or "cpu".') from None
    return device


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of frozen weights: "auto" is bf16 on a GPU that has it, fp16 on another GPU, and fp32 on a CPU."""
    import torch

    if precision == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):  # torch asks the current card
                precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def generator(seed: int, purpose: str, *ids: int | str) -> torch.Generator:
    """A CPU generator for one draw. Noise is drawn on the CPU in float32, so that every device starts from the same numbers."""
    import torch

    return torch.Generator("cpu").manual_seed(seed_for(seed, purpose, *ids))


def hardware(device: torch.device | None = None) -> dict[str, str | int]:
    """What a receipt says of the machine, and of the card of the device (None: the current one)."""
    import torch

    facts: dict[str, str | int] = {"system": platform.platform(), "processor": platform.processor() or platform.machine(), "cores": os.cpu_count() or 0}
    if torch.cuda.is_available():
        card = device if device is not None and device.type == "cuda" else torch.device("cuda", torch.cuda.current_device())
        facts["gpu"] = torch.cuda.get_device_name(card)
        facts["gpu_memory_mib"] = torch.cuda.get_device_properties(card).total_memory >> 20
    return facts


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and notices of transformers while loading."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """The same for diffusers and transformers together."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_transformers():
            yield
    finally:
        logging.set_verbosity(level)
