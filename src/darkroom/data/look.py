"""One look at a picture file: everything that screening wants to know of it, measured in one decoding, in memory that does not grow with the picture.

A JPEG is decoded at a fraction of its size where that is enough (its data is still read to the end, so that a truncated file is found).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from darkroom.data.picture import BrokenPicture, Fault, frames, opened, stated_dpi, to_rgb, upright, upright_size
from darkroom.data.prints import Prints, prints, thumb

CODE = 2
"""Counts up when a figure is computed otherwise: what was measured before is then measured again."""
SIDE = 512  # pixels: the shorter side at which sharpness is measured; smaller pictures are measured as they are
BOMB_PIXELS, BOMB_BYTES = 89_478_485, 0.05
"""Pillow warns above so many pixels (1/4 GiB of colour). Where less than so many bytes a pixel lie behind them nobody photographed it: it is not unpacked."""
LONELY = 0.25
"""A drawing that takes less of its paper is recognised without the paper."""
NEAR = 8  # grey levels: what counts as one colour


@dataclass(frozen=True, slots=True)
class Look:
    """What one file is. Where `fault` says that it gives no picture, only what its header said is known."""

    fault: Fault | Literal[""] = ""
    told: str = ""
    """What the reader said of the fault."""
    format: str = ""
    mode: str = ""
    """As stored, in Pillow's words: RGB, P, LA, CMYK, I;16 ..."""
    width: int = 0
    """In pixels, upright."""
    height: int = 0
    bytes: int = 0
    """Of the file."""
    frames: int = 1
    dpi: float = 0.0
    """0 where the file states none."""
    quality: int = 0
    """Of a JPEG: the quality setting (1 to 100) whose tables it was quantized with, as libjpeg counts; 0 for any other."""
    lossless: bool = False
    sharpness: float = -1.0
    """See `sharpness`; below 0 where nothing in it could be sharp."""
    one_colour: float = 0.0
    """The part of its pixels, 0 to 1, that is within 8 levels of the commonest colour."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """What was measured by option: {"text": 0.02, "faces": 1.0}."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Look:
        known = {one.name for one in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass(frozen=True)
class Seen:
    """A look, and what the picture is recognised by (None where there is no picture)."""

    look: Look
    prints: Prints | None = None
    thumb: bytes | None = None


def look_at(path: Path) -> Seen:
    """Never raises for what lies in the file; a file that is gone is a fault too."""
    known = Look()
    try:
        with opened(path) as picture:
            known = _header(picture, path.stat().st_size)
            if known.width * known.height > BOMB_PIXELS and known.bytes < BOMB_BYTES * known.width * known.height:
                return Seen(_faulty(known, "bomb", f"{known.width} x {known.height} pixels in a file of {known.bytes / 1e6:.1f} MB"))
            picture.draft(None, (SIDE, SIDE))  # JPEG alone: the smallest of 1, 1/2, 1/4, 1/8 that is not below
            picture.load()
            small = _reduced(picture)
    except BrokenPicture as broken:
        return Seen(_faulty(known, broken.fault, str(broken).removeprefix(f"{path}: ")))
    colour = to_rgb(small)
    figures = {"sharpness": sharpness(colour), "one_colour": one_colour(colour)}
    inner = without_margin(colour)
    return Seen(Look(**(known.as_dict() | figures)), prints(inner), thumb(inner))


def _faulty(known: Look, fault: Fault, told: str) -> Look:
    return Look(**(known.as_dict() | {"fault": fault, "told": told}))


def _header(picture: Image.Image, size: int) -> Look:
    width, height = upright_size(picture)
    return Look(
        format=picture.format or "", mode=picture.mode, width=width, height=height, bytes=size, frames=frames(picture), dpi=stated_dpi(picture),
        quality=jpeg_quality(picture), lossless=_lossless(picture),
    )  # fmt: skip


def _reduced(picture: Image.Image) -> Image.Image:
    """Upright, with a shorter side of at most SIDE; palettes and deep greys are brought to 8 bits first, for they cannot be averaged."""
    turned = upright(picture)
    turned.info = {key: value for key, value in picture.info.items() if key == "transparency"}
    if turned.mode not in ("RGB", "RGBA", "L", "LA", "CMYK") or turned.info:
        turned = turned.convert("RGBA") if turned.info else to_rgb(turned)
    shorter = min(turned.size)
    if shorter <= SIDE:
        return turned
    size = (round(turned.width * SIDE / shorter), round(turned.height * SIDE / shorter))
    return turned.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def sharpness(picture: Image.Image) -> float:
    """Energy of the second derivative over that of the first where most happens: about 4 for a sharp photo at 512 px, 0.25 for one blurred by 2 px there.

    Taken over the busiest quarter of 8 x 8 tiles, so that a plain background says nothing; a ratio, so that contrast says nothing. -1 where there is no edge.
    """
    grey = np.asarray(picture.convert("L"), np.float32)
    if min(grey.shape) < 16:
        return -1.0
    first = ((grey[1:-1, 2:] - grey[1:-1, :-2]) ** 2 + (grey[2:, 1:-1] - grey[:-2, 1:-1]) ** 2) / 4
    second = (grey[1:-1, 2:] + grey[1:-1, :-2] + grey[2:, 1:-1] + grey[:-2, 1:-1] - 4 * grey[1:-1, 1:-1]) ** 2
    energy, detail = _tiles(first), _tiles(second)
    busiest = np.argsort(-energy, kind="stable")[: len(energy) // 4]
    busiest = busiest[energy[busiest] >= 1]
    if not len(busiest):
        return -1.0
    rounding = 20 / 12  # what the second derivative of 8-bit rounding alone amounts to
    return float(np.percentile((detail[busiest] - rounding).clip(0) / (energy[busiest] + 0.25), 75))


def _tiles(values: npt.NDArray[Any], count: int = 8) -> npt.NDArray[np.float64]:
    """Means over count x count tiles, as one row."""
    rows = np.linspace(0, values.shape[0], count + 1).astype(int)[:-1]
    columns = np.linspace(0, values.shape[1], count + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    sizes = np.outer(np.diff(rows, append=values.shape[0]), np.diff(columns, append=values.shape[1]))
    return np.asarray(sums / sizes, np.float64).ravel()


def one_colour(picture: Image.Image) -> float:
    """The part of the pixels within NEAR levels, in every channel, of the commonest colour."""
    small = picture if max(picture.size) <= 128 else picture.resize((128, 128), Image.Resampling.NEAREST)
    pixels = np.asarray(small, np.int16).reshape(-1, 3)
    packed = (pixels[:, 0].astype(np.int32) << 16) | (pixels[:, 1].astype(np.int32) << 8) | pixels[:, 2]
    values, counts = np.unique(packed, return_counts=True)
    commonest = int(values[counts.argmax()])
    middle = np.array([commonest >> 16, commonest >> 8 & 255, commonest & 255], np.int16)
    return float((np.abs(pixels - middle) <= NEAR).all(1).mean())


def without_margin(picture: Image.Image) -> Image.Image:
    """What lies within a wide margin of one colour: a small drawing is the same one wherever it stands on its paper, and two of them are not one because
    of the paper. Where more than LONELY of the picture is drawn on, it is the picture itself: the edge of a drawing moves by a pixel when it is rescaled."""
    right, bottom = picture.width - 1, picture.height - 1
    corners = [picture.getpixel(place) for place in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
    spread = [max(values) - min(values) for values in zip(*corners, strict=True)]
    if max(spread) > 2 * NEAR:
        return picture
    apart = ImageChops.difference(picture, Image.new("RGB", picture.size, corners[0]))
    box = apart.point(lambda value: 255 if value > 3 * NEAR else 0).getbbox()
    if box is None or min(size := (box[2] - box[0], box[3] - box[1])) < 8 or size[0] * size[1] > LONELY * picture.width * picture.height:
        return picture
    return picture.crop(box)


def jpeg_quality(picture: Image.Image) -> int:
    """The quality whose brightness table, by libjpeg's rule (jcparam.c), is nearest in sum to the file's; 0 where it has no tables."""
    tables = getattr(picture, "quantization", None)
    if not tables:
        return 0
    total = sum(tables[min(tables)])
    return min(range(1, 101), key=lambda quality: abs(_table_sum(quality) - total))


def _table_sum(quality: int) -> int:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(max((value * scale + 50) // 100, 1), 255) for value in LUMINANCE)


LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Table K.1 of the JPEG standard (ITU-T T.81)."""


def _lossless(picture: Image.Image) -> bool:
    """Whether no detail was given away for size: a WebP can be either, and says so in its first chunk."""
    if picture.format != "WEBP":
        return picture.format in ("PNG", "BMP", "TIFF", "GIF")
    file: IO[bytes] | None = getattr(picture, "fp", None)
    if file is None:
        return False
    position = file.tell()
    file.seek(0)
    lossless = b"VP8L" in file.read(64)
    file.seek(position)
    return lossless
