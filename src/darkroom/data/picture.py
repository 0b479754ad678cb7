"""Read a picture rightly: rotation applied, every mode to RGB, broken files refused by name."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from PIL import Image, UnidentifiedImageError

from darkroom.data.member import Member
from darkroom.errors import DatasetError
from darkroom.fence import Outside, let

ENDINGS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".avif", ".heic", ".heif", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "BMP", "TIFF")
MAX_PIXELS = 178_956_970  # Pillow's own error limit: above it a file is taken for a decompression bomb
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
WAY_OUT = "Take it out of the folder, or replace it with a whole copy."
OUT_OF_A_SHARD = "Unpack the shards (`darkroom dataset unpack`), and `darkroom screen` rejects it there; `darkroom dataset shards` packs the others anew."
PLUGINS = {
    ".heic": 'HEIC is read through pillow-heif: pip install pillow-heif, or save it as JPEG.',
    ".heif": 'HEIF is read through pillow-heif: pip install pillow-heif, or save it as JPEG.',
    ".avif": "AVIF is read by Pillow 11.3 and newer: pip install -U pillow, or save it as PNG.",
}  # fmt: skip
Fault = Literal["missing", "unreadable", "truncated", "bomb"]


class BrokenPicture(DatasetError):
    """A file that gives no picture; `fault` says of what kind."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault: Fault = fault

    def __reduce__(self) -> tuple[type[BrokenPicture], tuple[Fault, str]]:
        return BrokenPicture, (self.fault, str(self))  # it comes out of other processes


def read_picture(path: Path | Member, content: bytes | None = None) -> Image.Image:
    """The picture as RGB, after EXIF rotation; transparent parts become white, 16-bit grey becomes 8-bit. Of an animation it is the first frame.

    `content` is what lies there, where it has been read already. Raises BrokenPicture where the file is missing, no picture, truncated, or larger than 179
    megapixels; DatasetError where it lies in a shard that changed.
    """
    with opened(path, content) as picture:
        picture.load()
        turned = upright(picture)
        turned.info = dict(picture.info)
    return to_rgb(turned)


@contextmanager
def opened(path: Path | Member, content: bytes | None = None) -> Iterator[Image.Image]:
    """The open file, its header read and nothing decoded yet. What goes wrong inside is raised as BrokenPicture."""
    way_out = WAY_OUT if isinstance(path, Path) else OUT_OF_A_SHARD
    if content is None and not isinstance(path, Path):
        content = path.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd tags and of large pictures: the limit is ours
            if path.suffix.lower() in (".heic", ".heif"):
                _know_heif()
            with Image.open(let(path) if content is None else io.BytesIO(content), formats=decoders()) as picture:  # type: ignore[arg-type]
                if picture.width * picture.height > MAX_PIXELS:
                    raise BrokenPicture("bomb", f"{path}: {picture.width} x {picture.height} pixels is more than {MAX_PIXELS:,}. Reduce it first.")
                yield picture
    except UnidentifiedImageError:
        why = PLUGINS.get(path.suffix.lower())
        raise BrokenPicture("unreadable", f"{path}: {why or f'is not a picture, whatever its name says. {way_out}'}") from None
    except Outside as outside:
        raise BrokenPicture("unreadable", str(outside)) from None
    except FileNotFoundError:
        raise BrokenPicture("missing", f"{path}: there is no such file.") from None
    except Image.DecompressionBombError as error:
        count = next((f"{int(word[1:]):,} pixels are" for word in str(error).split() if word[1:].isdigit()), "it has")
        raise BrokenPicture("bomb", f"{path}: {count} more than {MAX_PIXELS:,}. Reduce it first.") from None
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, OverflowError) as error:
        raise BrokenPicture("truncated", f"{path}: cannot be read whole ({error}). {way_out}") from None


def decoders() -> list[str]:
    """The decoders that come near a stranger's file, as Pillow names them and as far as it has them: EPS's would start a program.

    MPO is not named: Pillow opens it as JPEG, and finds out.
    """
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _know_heif() -> None:
    """Teach Pillow HEIC where the plugin is there; else the file is told of as unreadable, with the way out."""
    try:
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def upright(picture: Image.Image) -> Image.Image:
    """The decoded picture turned as its EXIF says, as a picture of its own."""
    turn = TURNS.get(_orientation(picture))
    return picture.copy() if turn is None else picture.transpose(turn)


def frames(picture: Image.Image) -> int:
    """How many pictures follow each other in the file. An MPO's second one is a preview or a depth map of the first, and is not counted."""
    return 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))


def stated_dpi(picture: Image.Image) -> float:
    """Dots per inch that the file states, the smaller of the two directions; 0 where it states none.

    Pillow's own `info["dpi"]` is 72 for JPEGs whose EXIF says nothing, so the tags are read here. 72 in EXIF is no statement either: it is what the standard
    wants written where the resolution is unknown (Exif 2.32, tags 282 and 283).
    """
    if picture.format in ("JPEG", "MPO"):
        unit, density = picture.info.get("jfif_unit", 0), picture.info.get("jfif_density", (0, 0))
        if unit in (1, 2):
            return float(min(density)) * (1.0 if unit == 1 else 2.54)
        return _exif_dpi(picture)
    found = picture.info.get("dpi", (0, 0))
    return float(min(found)) if picture.format in ("PNG", "TIFF", "BMP") and found[0] else 0.0


def _exif_dpi(picture: Image.Image) -> float:
    try:
        tags = picture.getexif()
        across, down, unit = float(tags.get(282, 0)), float(tags.get(283, 0)), tags.get(296, 2)
    except (ValueError, TypeError, SyntaxError, ZeroDivisionError, struct.error):
        return 0.0
    found = min(across, down or across) * (2.54 if unit == 3 else 1.0)
    return 0.0 if unit not in (2, 3) or round(found) == 72 or found != found else found


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone."""
    return opened.size if _orientation(opened) < 5 else (opened.height, opened.width)


def _orientation(picture: Image.Image) -> int:
    """The EXIF tag alone: Pillow's exif_transpose re-writes all of EXIF, and fails on a file with one malformed tag elsewhere in it."""
    try:
        if picture.format == "PNG" and getattr(picture, "png", None) is not None:
            _find_png_exif(picture)
            return int(Image.Image.getexif(picture).get(ORIENTATION, 1))
        return int(picture.getexif().get(ORIENTATION, 1))
    except (ValueError, TypeError, SyntaxError, struct.error):
        return 1


def _find_png_exif(picture: Image.Image) -> None:
    """Put a PNG's EXIF into its `info` without decoding it: it may lie behind the pixels, and Pillow unpacks them all to get there, a bomb's too."""
    file: IO[bytes] | None = getattr(picture, "fp", None)
    if file is None or "exif" in picture.info:
        return
    place = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = struct.unpack(">I", head[:4])[0]
        if head[4:] == b"eXIf":
            picture.info["exif"] = b"Exif\0\0" + file.read(length)
            break
        file.seek(length + 4, 1)
    file.seek(place)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: transparency over white, 16-bit and float grey scaled to 8 bits."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        largest = float(picture.getextrema()[1])  # type: ignore[arg-type]
        scale = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255 / 65535
        return picture.point(lambda value: value * scale + 0).convert("L").convert("RGB")
    if picture.mode == "I" and picture.getextrema()[1] > 65535:  # type: ignore[operator]
        return picture.point(lambda value: value / 8421504 + 0).convert("L").convert("RGB")  # 2^31 - 1 is white
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return picture.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB")
