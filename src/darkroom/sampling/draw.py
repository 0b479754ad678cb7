"""Draw the picture of one request."""

from __future__ import annotations

import torch
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.sampling.denoise import denoise, guided, make_sampler, size_ids
from darkroom.sampling.request import Request
from darkroom.sampling.start import noise
from darkroom.sdxl.latents import decode
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text, encode, zeroed


def complete(model: SDXL, request: Request) -> Request:
    """The request with the model's own size where none is asked, and with what was loaded. Raises RecipeError for a size it cannot draw."""
    width, height = request.width or model.resolution, request.height or model.resolution
    for name, side in (("width", width), ("height", height)):
        if side % model.grain:
            nearest = max(model.grain, round(side / model.grain) * model.grain)
            raise RecipeError(f"{name} {side}: must be a multiple of {model.grain} pixels for this model. The nearest is {nearest}.")
    changes = {"width": width, "height": height, "base_sha256": model.hash, "precision": str(model.dtype).removeprefix("torch.")}
    return request.model_copy(update=changes)


def texts(model: SDXL, request: Request) -> tuple[Text, Text]:
    """What is wanted and what is not, encoded by the model as it is now (with whatever it wears)."""
    wanted = encode(model, [request.prompt])
    return wanted, zeroed(wanted) if request.negative is None else encode(model, [request.negative])


@torch.no_grad()
def draw_latents(model: SDXL, request: Request, start: torch.Tensor | None = None) -> torch.Tensor:
    """Scaled latents (1, 4, h, w) of a completed request. `start` is unit noise in place of the seed's own."""
    sampler = make_sampler(request.sampler, model.scheduler_config, request.steps, model.device)
    if start is None:
        start = noise(request.seed, request.width, request.height, model.pixel_factor, int(model.unet.config.in_channels))
    wanted, unwanted = texts(model, request)
    ids = size_ids([(request.height, request.width, 0, 0, request.height, request.width)])
    predict = guided(model, wanted, unwanted, ids, request.guidance)
    return denoise(predict, sampler, start.to(model.device, model.dtype) * sampler.init_noise_sigma)


def draw(model: SDXL, request: Request) -> Image.Image:
    """One picture at a time, so that its bytes do not depend on what else was drawn with it."""
    return decode(model, draw_latents(model, request))[0]
