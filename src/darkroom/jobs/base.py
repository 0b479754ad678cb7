"""Open a base model by name, once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom import pocket
from darkroom.device import Precision, pick_device, pick_dtype

if TYPE_CHECKING:
    from darkroom.sdxl.model import SDXL


@functools.lru_cache(maxsize=1)
def open_base(base: str, device: str = "auto", precision: Precision = "auto", config: str = "") -> SDXL:
    """The model, kept while the next job wants the same one. Raises ModelError."""
    from darkroom.sdxl.model import load

    chosen = pick_device(device)
    model = load(pocket.resolve(base), chosen, pick_dtype(precision, chosen), Path(config) if config else None)
    model.source = base
    return model
