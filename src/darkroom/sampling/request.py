"""What a picture was asked to be, and the PNG that carries it."""

from __future__ import annotations

import io
import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field

from darkroom import __version__
from darkroom.errors import DatasetError, RecipeError
from darkroom.files import atomic
from darkroom.spec import Spec

KEY = "darkroom"


class Worn(Spec):
    """One adapter in a request."""

    file: str
    """Where it lay."""
    weight: float = 1.0
    """How strongly it is worn; negative is allowed."""
    sha256: str = ""
    """Hash of the file's bytes, filled in when it is read."""


class Request(Spec):
    """Everything that one picture depends on. Equal requests on one machine give equal bytes."""

    prompt: str
    """What is wanted."""
    negative: str | None = None
    """What is not wanted. None: zeroed embeddings (diffusers' default); "": the encoded empty text. The two differ."""
    base: str = "pocket"
    """The model: "pocket", a diffusers folder, a hub id or a .safetensors checkpoint."""
    base_sha256: str = ""
    """Hash over the base's weight files, filled in when it is loaded."""
    adapters: tuple[Worn, ...] = ()
    """Adapters worn while drawing."""
    seed: int = Field(0, ge=0, lt=1 << 63)
    """Where the noise comes from."""
    steps: int = Field(25, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(5.0, ge=0, le=100)
    """Classifier-free guidance (diffusers' default for SDXL: 5)."""
    width: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own side."""
    height: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own side."""
    sampler: str = "euler"
    """Which sampler."""
    precision: str = "fp32"
    """Number format of the weights while drawing."""

    def a1111(self) -> str:
        """The text that A1111 and the sites that follow it parse."""
        worn = "".join(f" <lora:{Path(w.file).stem}:{w.weight:g}>" for w in self.adapters)
        negative = f"\nNegative prompt: {self.negative}" if self.negative else ""
        sampler = {"euler": "Euler", "ddim": "DDIM"}.get(self.sampler, self.sampler)
        size = f"{self.width}x{self.height}"
        return (
            f"{self.prompt}{worn}{negative}\nSteps: {self.steps}, Sampler: {sampler}, CFG scale: {self.guidance:g}, Seed: {self.seed}, "
            f"Size: {size}, Model hash: {self.base_sha256[:10]}, Model: {Path(self.base).name}, Version: darkroom {__version__}"
        )


def png_bytes(picture: Image.Image, request: Request) -> bytes:
    """The picture as PNG with its request as JSON ("darkroom") and as A1111 text ("parameters")."""
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(request.model_dump(mode="json"), ensure_ascii=False, sort_keys=True))
    info.add_itxt("parameters", request.a1111())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def save_png(picture: Image.Image, request: Request, path: Path) -> None:
    """Write atomically."""
    with atomic(path) as part:
        part.write_bytes(png_bytes(picture, request))


def read_request(path: Path) -> Request:
    """The request a PNG carries. Raises RecipeError where it carries none."""
    try:
        with Image.open(path) as opened:
            opened.load()
            text = getattr(opened, "text", {}).get(KEY)
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file.") from None
    except (OSError, SyntaxError) as error:
        raise DatasetError(f"{path}: is not a whole picture ({error}).") from None
    if text is None:
        raise RecipeError(f"{path}: carries no Darkroom request. --again redraws PNGs that `darkroom generate` made and nobody re-saved.")
    return Request.from_tree(json.loads(text), str(path))
