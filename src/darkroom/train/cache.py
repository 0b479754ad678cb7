"""Latents and text, encoded once and kept under a name made of everything they depend on."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from darkroom.data.buckets import Fit
from darkroom.data.dataset import Photo
from darkroom.errors import DarkroomError
from darkroom.files import atomic, cache_folder, sha256_bytes
from darkroom.places import shared
from darkroom.sdxl import latents, text
from darkroom.sdxl.model import SDXL
from darkroom.train.swap import lodged

V = TypeVar("V")
CODE_VERSION = 1  # raise it when what is encoded changes


def _kept(path: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The tensors in the file, made and kept where they are not there yet. A damaged file is made anew."""
    shared.bring([path])
    if path.is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
    made = {key: value.contiguous() for key, value in make().items()}
    try:
        with atomic(path) as part:
            save_file(made, part)
        shared.offer(path)
    except DarkroomError:
        pass  # a cache that cannot be written costs time, never the run
    return made


def _place(key: dict[str, object]) -> Path:
    """A file named by the hash of all that it depends on."""
    name = sha256_bytes(json.dumps(key | {"code": CODE_VERSION}, sort_keys=True, default=str).encode())
    return cache_folder() / "encoded" / name[:2] / f"{name}.safetensors"


class Kept(Generic[V]):
    """The most recently used values, up to a number of bytes: a hundred thousand latents stay on the disk, fifteen stay in memory."""

    def __init__(self, size: Callable[[V], int], limit: int = 2 << 30) -> None:
        self._size, self._limit = size, limit
        self._held: OrderedDict[object, V] = OrderedDict()
        self._bytes = 0

    def get(self, key: object, make: Callable[[], V]) -> V:
        """The value under the key, made where it is not there."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        value = self._held[key] = make()
        self._bytes += self._size(value)
        while self._bytes > self._limit and len(self._held) > 1:
            self._bytes -= self._size(self._held.popitem(last=False)[1])
        return value


def photo_latents(
    model: SDXL, photo: Photo, fit: Fit, flipped: bool = False, picture: Image.Image | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Mean and standard deviation (4, h, w) of one picture's latents, by picture bytes, crop, autoencoder and precision.

    `picture` is the photo, cut and mirrored, where it was read ahead.
    """

    found = _kept(latents_place(model, photo, fit, flipped), lambda: encoded_photo(model, picture or cut(photo.read(), fit, flipped)))
    return found["mean"], found["std"]


def encoded_photo(model: SDXL, picture: Image.Image) -> dict[str, torch.Tensor]:
    """What is kept of a picture as a batch shows it."""
    with lodged(model, "vae"):
        mean, std = latents.encode(model, [picture])
    return {"mean": mean[0], "std": std[0]}


def latents_kept(model: SDXL, photo: Photo, fit: Fit, flipped: bool) -> bool:
    """Whether this picture's latents are there already, so that it needs not be read."""
    return latents_place(model, photo, fit, flipped).is_file()


def latents_place(model: SDXL, photo: Photo, fit: Fit, flipped: bool) -> Path:
    """Where this picture's latents are kept."""
    return _place(_latents_key(model, photo, fit, flipped))


def _latents_key(model: SDXL, photo: Photo, fit: Fit, flipped: bool) -> dict[str, object]:
    vae = {name: digest for name, digest in model.hashes.items() if name.startswith("vae/") or "/" not in name}
    shown = {"picture": photo.sha256, "fit": vars(fit), "flipped": flipped}
    return {"what": "latents", **shown, "vae": vae, "dtype": str(model.dtype), "device": model.device.type}


def cut(picture: Image.Image, fit: Fit, flipped: bool) -> Image.Image:
    """The picture as a batch shows it."""
    found = fit.apply(picture)
    return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else found


def caption_text(model: SDXL, caption: str) -> text.Text:
    """One caption as the text encoders give it (1, ...), by caption, encoders and precision."""
    found = _kept(text_place(model, caption), lambda: encoded_caption(model, caption))
    return text.Text(found["states"], found["pooled"])


def encoded_caption(model: SDXL, caption: str) -> dict[str, torch.Tensor]:
    """What is kept of a caption."""
    with torch.no_grad(), lodged(model, "text_encoder", "text_encoder_2"):
        found = text.encode(model, [caption])
    return {"states": found.states.cpu(), "pooled": found.pooled.cpu()}


def text_place(model: SDXL, caption: str) -> Path:
    """Where this caption's encoding is kept."""
    encoders = {name: digest for name, digest in model.hashes.items() if name.startswith("text") or "/" not in name}
    return _place({"what": "text", "caption": caption, "encoders": encoders, "dtype": str(model.dtype), "device": model.device.type})
