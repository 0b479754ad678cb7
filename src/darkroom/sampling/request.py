"""What a picture was asked to be, and the PNG that carries it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import Field, field_validator, model_validator

from darkroom import __version__
from darkroom.errors import DatasetError, RecipeError
from darkroom.files import atomic, told
from darkroom.sampling.samplers import SAMPLERS, named
from darkroom.spec import Spec

KEY = "darkroom"

Branch = Literal["both", "conditional", "unconditional"]


class Worn(Spec):
    """One adapter in a request."""

    file: str
    """Where it lay."""
    weight: float = Field(1.0, ge=-100, le=100)
    """How strongly it is worn; negative is allowed."""
    text_weight: float | None = Field(None, ge=-100, le=100)
    """The same for its text encoders' part; None: as `weight`."""
    branch: Branch = "both"
    """Which branch of guidance wears it: "unconditional" is the one that the negative prompt speaks to."""
    sha256: str = ""
    """Hash of the file's bytes, filled in when it is read."""
    short: str = ""
    """The twelve characters by which A1111 and the sites know it (a hash of the tensors alone), filled in when it is read."""


class Word(Spec):
    """A textual inversion: a file that brings a word."""

    file: str
    name: str = ""
    """The word in the prompt, filled in when it is read."""
    sha256: str = ""


class Control(Spec):
    """A ControlNet and the picture it follows."""

    model: str
    """A diffusers folder, a hub id or a .safetensors file."""
    image: str
    """The picture."""
    prepare: Literal["as_is", "edge", "depth", "colour"] = "as_is"
    """How the picture is made into what the ControlNet reads; "as_is" where it already is that."""
    weight: float = Field(1.0, ge=0, le=10)
    """How strongly it guides (diffusers' controlnet_conditioning_scale)."""
    start: float = Field(0.0, ge=0, le=1)
    """From which part of the steps."""
    end: float = Field(1.0, ge=0, le=1)
    """To which part of the steps."""
    sha256: str = ""
    """Hash of the picture's bytes, filled in when it is read."""
    model_sha256: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> Control:
        if self.start >= self.end:
            raise ValueError(f"a control starts at {self.start:g} and ends at {self.end:g}: the end must come later")
        return self


class Refine(Spec):
    """A refiner after the base."""

    model: str = "pocket-refiner"
    """ "pocket-refiner", a diffusers folder, a hub id or a .safetensors file."""
    mode: Literal["ensemble", "img2img"] = "ensemble"
    """ "ensemble": the base hands over latents at `fraction`. "img2img": the base draws to the end, the refiner draws over it by `strength`."""
    fraction: float = Field(0.8, gt=0, lt=1)
    """How much of the noise schedule is the base's (diffusers' denoising_end: 0.8)."""
    strength: float = Field(0.3, gt=0, le=1)
    """How much is drawn anew in img2img (diffusers' default for it: 0.3)."""
    aesthetic: float = 6.0
    """The aesthetic score that is asked for (Podell et al. 2023; diffusers' default)."""
    negative_aesthetic: float = 2.5
    """The one that is steered away from."""
    sha256: str = ""


class Request(Spec):
    """Everything that one picture depends on. Equal requests on one machine give equal bytes."""

    prompt: str
    """What is wanted."""
    negative: str | None = None
    """What is not wanted. None: zeroed embeddings (diffusers' default); "": the encoded empty text. The two differ."""
    language: Literal["auto", "plain", "compel", "a1111"] = "auto"
    """How weights in the prompts are written; auto: told by their marks."""
    base: str = "pocket"
    """The model: "pocket", a diffusers folder, a hub id or a .safetensors checkpoint."""
    base_sha256: str = ""
    """Hash over the base's weight files, filled in when it is loaded."""
    adapters: tuple[Worn, ...] = ()
    """Adapters worn while drawing."""
    embeddings: tuple[Word, ...] = ()
    """Textual inversions that the prompts may name."""
    seed: int = Field(0, ge=0, lt=1 << 63)
    """Where the noise comes from."""
    steps: int = Field(25, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(5.0, ge=0, le=100)
    """Classifier-free guidance (diffusers' default for SDXL: 5)."""
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """How far the guided prediction gets the plain one's spread back (Lin et al. 2023, section 3.4)."""
    clip_skip: int = Field(0, ge=0, le=31)
    """Text-encoder layers left out beyond SDXL's own (diffusers' clip_skip)."""
    width: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own side, or the start picture's shape."""
    height: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own side, or the start picture's shape."""
    sampler: str = "euler"
    """Which sampler."""
    image: str = ""
    """A start picture: img2img, or what is inpainted and outpainted."""
    image_sha256: str = ""
    strength: float | None = Field(None, gt=0, le=1)
    """How much of the schedule is drawn anew over the start picture. None: 0.75 for img2img (A1111's), 1 for inpainting and outpainting."""
    mask: str = ""
    """A picture as large as the start picture: white is drawn anew, black stays (inpainting)."""
    mask_sha256: str = ""
    outpaint: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels to add left, top, right, bottom of the start picture."""
    keep: str = ""
    """What stays of the start picture: "face", or a picture in which white stays."""
    keep_sha256: str = ""
    feather: int = Field(0, ge=0, le=1024)
    """Pixels over which what stays is blended into what is drawn; 0: a sixteenth of the shorter side."""
    controls: tuple[Control, ...] = ()
    """ControlNets."""
    refiner: Refine | None = None
    """A refiner after the base."""
    upscale: int = Field(1, ge=1, le=4)
    """Enlarge the finished picture so many times."""
    upscaler: Literal["lanczos", "realesrgan"] = "lanczos"
    """What enlarges: the finished picture, and a start picture that is smaller than what is drawn."""
    tiling: bool = False
    """Decode in overlapping tiles: large pictures on small cards."""
    batch: int = Field(1, ge=1, le=64)
    """Pictures drawn at once. Part of the request because the last bits of a product depend on the shape it is computed in."""
    precision: str = "fp32"
    """Number format of the weights while drawing."""

    @field_validator("sampler")
    @classmethod
    def _known(cls, value: str) -> str:
        return named(value)

    @field_validator("outpaint")
    @classmethod
    def _outward(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError("sides to add cannot be negative; crop the picture instead")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Request:
        for name in ("strength", "mask", "keep"):
            if getattr(self, name) and not self.image:
                raise ValueError(f"{name} needs a start picture: name it with image")
        if any(self.outpaint) and not self.image:
            raise ValueError("outpaint needs a start picture: name it with image")
        return self

    @property
    def inpaints(self) -> bool:
        """Whether only a part is drawn."""
        return bool(self.mask) or any(self.outpaint)

    @property
    def drawn_strength(self) -> float:
        """The strength with its default."""
        return self.strength if self.strength is not None else 1.0 if self.inpaints else 0.75

    @property
    def walked(self) -> int:
        """How many of the steps are really drawn."""
        return min(int(self.steps * self.drawn_strength), self.steps) if self.image else self.steps

    def a1111(self) -> str:
        """The text that A1111 and the sites that follow it parse."""

        def tags(branches: tuple[Branch, ...]) -> str:
            return "".join(f" <lora:{Path(w.file).stem}:{_weights(w)}>" for w in self.adapters if w.branch in branches)

        unwanted = (self.negative or "") + tags(("unconditional",))
        facts: dict[str, Any] = {
            "Steps": self.steps, "Sampler": SAMPLERS[self.sampler].title, "CFG scale": f"{self.guidance:g}", "Seed": self.seed,
            "Size": f"{self.width}x{self.height}", "Model hash": self.base_sha256[:10], "Model": Path(self.base).name,
        }  # fmt: skip
        if self.image:
            facts["Denoising strength"] = f"{self.drawn_strength:g}"
        if self.guidance_rescale:
            facts["CFG Rescale"] = f"{self.guidance_rescale:g}"
        if self.clip_skip:
            facts["Clip skip"] = self.clip_skip + 2
        if self.refiner:
            facts |= {"Refiner": Path(self.refiner.model).name, "Refiner switch at": f"{self.refiner.fraction:g}"}
        if any(w.short for w in self.adapters):
            facts["Lora hashes"] = '"' + ", ".join(f"{Path(w.file).stem}: {w.short}" for w in self.adapters) + '"'
        if self.embeddings:
            facts["TI hashes"] = '"' + ", ".join(f"{w.name}: {w.sha256[:12]}" for w in self.embeddings) + '"'
        facts["Version"] = f"darkroom {__version__}"
        lines = [self.prompt + tags(("both", "conditional")), *([f"Negative prompt: {unwanted.strip()}"] if unwanted.strip() else [])]
        return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in facts.items())])


def _weights(worn: Worn) -> str:
    return f"{worn.weight:g}" if worn.text_weight is None else f"{worn.text_weight:g}:{worn.weight:g}"


def png_bytes(picture: Image.Image, request: Request) -> bytes:
    """The picture as PNG with its request as JSON ("darkroom") and as A1111 text ("parameters")."""
    info = PngInfo()
    info.add_itxt(KEY, told(json.dumps(request.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)))
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
