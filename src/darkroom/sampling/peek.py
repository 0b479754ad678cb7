"""Pictures while they are drawn: what the sampler thinks the end will be, every few steps, through a tiny autoencoder where one is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darkroom.device import quiet_libraries
from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.files import atomic
from darkroom.sampling.denoise import Peek
from darkroom.sdxl.latents import decode, to_pictures
from darkroom.sdxl.model import SDXL


@dataclass
class Previews:
    """Writes FOLDER/steps/NAME-stepNNN.png every `every` steps. `tiny` is an AutoencoderTiny's folder or hub id (empty: the model's own)."""

    every: int
    tiny: str = ""

    def watch(self, model: SDXL, path: Path) -> Peek:
        """What `denoise` calls after each step of the picture that goes to `path`."""
        decoder = load_tiny(self.tiny, model) if self.tiny else None

        def peek(stepped: Any, x: torch.Tensor, index: int) -> None:
            if (index + 1) % self.every:
                return
            latents = expected(stepped, x)[:1]
            picture = decode(model, latents)[0] if decoder is None else decode_tiny(decoder, latents)
            target = path.parent / "steps" / f"{path.stem}-step{index + 1:03d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as part:
                picture.save(part, "PNG")

        return peek


def expected(stepped: Any, x: torch.Tensor) -> torch.Tensor:
    """The clean latents that this step points to where the sampler tells them, else the latents as they are."""
    for name in ("pred_original_sample", "denoised"):
        if getattr(stepped, name, None) is not None:
            found: torch.Tensor = getattr(stepped, name)
            return found
    return x


def load_tiny(source: str, model: SDXL) -> Any:
    """A tiny autoencoder for the model's latents (for SDXL 1.0: madebyollin/taesdxl). Raises ModelError."""
    from diffusers import AutoencoderTiny

    try:
        with quiet_libraries():
            return AutoencoderTiny.from_pretrained(hand_over(source), torch_dtype=model.dtype).to(model.device).eval()
    except Exception as error:  # diffusers raises many kinds here; all of them mean that this cannot be loaded
        raise ModelError(f"{source}: cannot be loaded as a tiny autoencoder: {str(error).splitlines()[0]}") from None


@torch.no_grad()
def decode_tiny(decoder: Any, latents: torch.Tensor) -> Any:
    """Scaled latents (1, 4, h, w) to a picture; a tiny autoencoder reads them at the scale at which the U-Net works."""
    return to_pictures(decoder.decode(latents.to(next(decoder.parameters()).dtype)).sample)[0]
