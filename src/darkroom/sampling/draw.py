"""Draw the pictures of a request: text, start, guides, base, refiner, pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, PromptError, RecipeError
from darkroom.files import sha256_file
from darkroom.prompt import Prompt, read
from darkroom.sampling.control import prepare
from darkroom.sampling.denoise import Guided, Peek, Predict, denoise, size_ids
from darkroom.sampling.guide import Guide, Hint
from darkroom.sampling.keep import blend
from darkroom.sampling.memo import Memo
from darkroom.sampling.request import Request
from darkroom.sampling.samplers import after, before, from_strength, make_sampler
from darkroom.sampling.source import Source, size_of, source
from darkroom.sampling.start import chance, holding, latent_mask, mask_pixels, noise, under_noise
from darkroom.sampling.upscale import upscale
from darkroom.sdxl.conditioning import Conditioning, condition, level
from darkroom.sdxl.inversion import Embedding
from darkroom.sdxl.latents import decode, encode, encode_pixels, to_pixels, unit_pixels
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import zeroed

if TYPE_CHECKING:
    from diffusers import ControlNetModel

Texts = tuple[Conditioning, Conditioning]


@dataclass
class Kit:
    """What is open for drawing: the models, and what they wear. `turn` chooses what one side of guidance wears ("none": the bare model)."""

    model: SDXL
    refiner: SDXL | None = None
    networks: tuple[ControlNetModel, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    turn: Callable[[str], None] = lambda side: None
    splits: bool = False
    memo: Memo | None = None
    peek: Peek | None = None
    texts: dict[Any, Texts] = field(default_factory=dict)


def complete(model: SDXL, request: Request) -> Request:
    """The request with the size that is drawn, and with what was loaded and read.

    Raises RecipeError for a size it cannot draw, DatasetError for a picture that is not the one the request names.
    """
    width, height = request.width or model.resolution, request.height or model.resolution
    if request.image and not (request.width and request.height):
        width, height = size_of(request, model.resolution, model.grain)
    for name, side in (("width", width), ("height", height)):
        if side % model.grain:
            nearest = max(model.grain, round(side / model.grain) * model.grain)
            raise RecipeError(f"{name} {side}: must be a multiple of {model.grain} pixels for this model. The nearest is {nearest}.")
    changes: dict[str, Any] = {"base_sha256": model.hash, "precision": str(model.dtype).removeprefix("torch."), "width": width, "height": height}
    for name in ("image", "mask", "keep"):
        file = getattr(request, name)
        if file and file != "face":
            changes[f"{name}_sha256"] = _same(file, getattr(request, f"{name}_sha256"))
    changes["controls"] = tuple(c.model_copy(update={"sha256": _same(c.image, c.sha256)}) for c in request.controls)
    return request.model_copy(update=changes)


def _same(file: str, then: str) -> str:
    if not Path(file).is_file():
        raise DatasetError(f"{file}: there is no such picture.")
    now = sha256_file(Path(file))
    if then and then != now:
        raise DatasetError(f"{file}: is not the picture that was used then (its content changed). Put the old one back.")
    return now


def _key(model: SDXL, request: Request) -> Any:
    return id(model), request.prompt, request.negative, request.language, request.clip_skip, request.walked


def texts(kit: Kit, model: SDXL, request: Request) -> Texts:
    """What is wanted and what is not, encoded by a model as it is now, each side with what it wears. Raises PromptError."""
    key = _key(model, request)
    if key not in kit.texts:
        steps, skip, words = request.walked, request.clip_skip, kit.embeddings
        wanted = condition(model, _read(request.prompt, request), steps, skip, words)
        negative = request.negative
        if negative is None and model.text_encoder is None and not model.zeroes_empty:
            negative = ""  # SDXL's refiner was made to read the encoded empty text
        if negative is None:
            first = wanted.at(0)[0][1]
            unwanted = Conditioning(((0, ((1.0, zeroed(first)),)),))
        else:
            kit.turn("unconditional" if model is kit.model else "none")
            unwanted = condition(model, _read(negative, request), steps, skip, words)
            kit.turn("conditional" if model is kit.model else "none")
            if any(len(stage) > 1 for _, stage in unwanted.stages):
                raise PromptError(f'negative "{negative}": AND has no meaning in a negative prompt. Join the parts with a comma, or write "and".')
            wanted, unwanted = level(model, [wanted, unwanted], skip)
        kit.texts[key] = wanted, unwanted
    return kit.texts[key]


def _read(text: str, request: Request) -> Prompt:
    found = read(text, request.language)
    if found.tags:
        raise PromptError(f"<lora:{found.tags[0].name}>: is not among the adapters of this request. Name the folder it lies in with --adapters FOLDER.")
    return found


@torch.no_grad()
def draw_latents(kit: Kit, request: Request, seeds: Sequence[int] = (), over: Source | None = None) -> torch.Tensor:
    """Scaled latents (B, 4, h, w) of a completed request, one for each seed (none: the request's own). Raises a DarkroomError."""
    model, seeds = kit.model, seeds or (request.seed,)
    over = over or source(request)
    width, height = over.picture.size if over else (request.width, request.height)
    fresh = torch.cat([noise(seed, width, height, model.pixel_factor) for seed in seeds]).to(model.device, model.dtype)
    sampler = make_sampler(request.sampler, model.scheduler_config, request.steps, model.device)
    kept = _latents(model, over, len(seeds)) if over else None
    drawn = over.latent_drawn(model.pixel_factor) if over else None
    drawn = None if drawn is None else drawn.to(fresh)
    timesteps, start = _begin(sampler, request, fresh, kept, drawn)
    walk = _base_part(sampler, request, timesteps)
    hold = None
    if kept is not None and drawn is not None and int(model.unet.config.in_channels) == 4:
        hold = holding(sampler, kept, fresh, drawn, timesteps)
    predict = _predict(kit, request, width, height, over, len(timesteps) // sampler.order)
    length = kit.texts[_key(model, request)][0].length
    run = denoise if kit.memo is None or over else kit.memo.bind(request, seeds, length)
    x = run(predict, sampler, start, walk, hold, chance(seeds, "sampler"), 0, kit.peek)
    if request.refiner is not None:
        x = _refined(kit, request, x, seeds, fresh, (width, height), len(walk) // sampler.order, (kept, drawn))
    return x


def _begin(sampler: Any, request: Request, fresh: torch.Tensor, kept: torch.Tensor | None, drawn: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The timesteps to walk, and the latents at the first of them. Inpainting at full strength starts from noise alone, as in diffusers."""
    if kept is None:
        return sampler.timesteps, fresh * sampler.init_noise_sigma
    timesteps = from_strength(sampler, request.steps, request.drawn_strength)
    if drawn is not None and request.drawn_strength == 1:
        return timesteps, fresh * sampler.init_noise_sigma
    return timesteps, under_noise(sampler, kept, fresh, timesteps)


def _base_part(sampler: Any, request: Request, timesteps: torch.Tensor) -> torch.Tensor:
    """The timesteps that are the base's. Raises RecipeError where a refiner would leave it none."""
    if request.refiner is None or request.refiner.mode != "ensemble":
        return timesteps
    walk = before(sampler, timesteps, request.refiner.fraction)
    if not len(walk):
        raise RecipeError(
            f"strength {request.drawn_strength:g} leaves the base no step before the refiner takes over at {request.refiner.fraction:g}. "
            f"Take a higher strength, or let the refiner work as img2img."
        )
    return walk


def _latents(model: SDXL, over: Source, count: int) -> torch.Tensor:
    """The start picture's latents (B, 4, h, w): the mean of the posterior, so that no noise is added to what stays."""
    latents = encode(model, [over.picture])[0].to(model.device, model.dtype)
    # The last bits of a convolution depend on the memory layout: img2img goes on in the autoencoder's own, inpainting does not, as in diffusers.
    return latents.repeat(count, 1, 1, 1) if over.drawn is not None else torch.cat([latents] * count)


def _predict(kit: Kit, request: Request, width: int, height: int, over: Source | None, steps: int) -> Predict:
    model = kit.model
    wanted, unwanted = texts(kit, model, request)
    ids = size_ids([(height, width, 0, 0, height, width)])
    hints = []
    for network, c in zip(kit.networks, request.controls, strict=True):
        picture = prepare(c.prepare, read_picture(Path(c.image)), (width, height), model.device)
        hints.append(Hint(network, unit_pixels(picture).to(model.device), c.weight, c.start, c.end))
    return Guided(model, wanted, unwanted, ids, ids, request.guidance, request.guidance_rescale, Guide(tuple(hints), steps),
                  kit.turn if kit.splits else None, _beside(model, over, (width, height)))  # fmt: skip


def _beside(model: SDXL, over: Source | None, size: tuple[int, int]) -> torch.Tensor | None:
    """What an inpainting U-Net of nine channels reads: the mask and the latents of the picture without what is drawn (diffusers)."""
    if int(model.unet.config.in_channels) == 4:
        return None
    picture = over.picture if over else Image.new("RGB", size)
    drawn = over.drawn if over and over.drawn else Image.new("L", size, 255)
    mask = mask_pixels(drawn)
    small = latent_mask(mask, model.pixel_factor)
    without = encode_pixels(model, to_pixels([picture]) * (mask < 0.5))[0]
    return torch.cat([small, without], dim=1).to(model.device, model.dtype)


def _refined(kit: Kit, request: Request, x: torch.Tensor, seeds: Sequence[int], fresh: torch.Tensor, size: tuple[int, int], done: int,
             held: tuple[torch.Tensor | None, torch.Tensor | None]) -> torch.Tensor:  # fmt: skip
    """The refiner's part: from where the base stopped, or over its finished latents. It never wears the base's adapters."""
    refiner, asked = kit.refiner, request.refiner
    assert refiner is not None and asked is not None
    kit.turn("none")
    try:
        wanted, unwanted = texts(kit, refiner, request)
        width, height = size
        square = (height, width, 0, 0)
        rows = [(*square, asked.aesthetic), (*square, asked.negative_aesthetic)] if refiner.text_encoder is None else [(*square, height, width)] * 2
        sampler = make_sampler(request.sampler, refiner.scheduler_config, request.steps, refiner.device)
        if asked.mode == "ensemble":
            timesteps = after(sampler, asked.fraction)
        else:
            timesteps, done = from_strength(sampler, request.steps, asked.strength), 0
            x = under_noise(sampler, x, torch.cat([noise(seed, width, height, kit.model.pixel_factor, purpose="refine") for seed in seeds]).to(x), timesteps)
        predict = Guided(refiner, wanted, unwanted, size_ids(rows[:1]), size_ids(rows[1:]), request.guidance, request.guidance_rescale)
        kept, drawn = held
        hold = None if kept is None or drawn is None else holding(sampler, kept, fresh, drawn, timesteps)
        return denoise(predict, sampler, x, timesteps, hold, chance(seeds, "refiner"), done, kit.peek)
    finally:
        kit.turn("conditional")


def draw(kit: Kit, request: Request) -> Image.Image:
    """The picture of a completed request."""
    return draw_batch(kit, [request])[0]


def draw_batch(kit: Kit, requests: Sequence[Request]) -> list[Image.Image]:
    """The pictures of completed requests that differ in their seeds alone.

    They are drawn `batch` at a time, a short batch filled up by repeating its last seed: a picture's bytes depend on the shape of the batch
    and not on its neighbours, so that any one of them can be drawn again alone.
    """
    over = source(requests[0])
    seeds = [request.seed for request in requests]
    size = requests[0].batch
    filled = seeds + [seeds[-1]] * (-len(seeds) % size)
    latents = torch.cat([draw_latents(kit, requests[0], filled[at : at + size], over) for at in range(0, len(filled), size)])
    return [_finish(kit.model, requests[0], latents[index : index + 1], over) for index in range(len(seeds))]


def _finish(model: SDXL, request: Request, latents: torch.Tensor, over: Source | None) -> Image.Image:
    picture = decode(model, latents, request.tiling)[0]
    if over is not None and over.kept is not None:
        feather = request.feather or max(2, min(picture.size) // 16)
        picture = blend(over.picture, picture, over.kept, feather)
    return upscale(picture, request.upscale, request.upscaler) if request.upscale > 1 else picture
