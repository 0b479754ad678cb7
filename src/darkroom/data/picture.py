"""Read a picture rightly: rotation applied, every mode to RGB, broken files refused by name."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from darkroom.errors import DatasetError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 178_956_970  # Pillow's own error limit: above it a file is taken for a decompression bomb
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def read_picture(path: Path) -> Image.Image:
    """The picture as RGB, after EXIF rotation; transparent parts become white, 16-bit grey becomes 8-bit.

    Raises DatasetError where the file is missing, no picture, truncated, or larger than 179 megapixels.
    """
    way_out = "Take it out of the folder, or replace it with a whole copy."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DatasetError(f"{path}: {opened.width} x {opened.height} pixels is more than {MAX_PIXELS:,}. Reduce it first.")
                opened.load()
                turn = TURNS.get(_orientation(opened))
                upright = opened.copy() if turn is None else opened.transpose(turn)
                upright.info = dict(opened.info)
    except UnidentifiedImageError:
        raise DatasetError(f"{path}: is not a picture, whatever its name says. {way_out}") from None
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such file.") from None
    except Image.DecompressionBombError:
        raise DatasetError(f"{path}: is larger than {MAX_PIXELS:,} pixels. Reduce it first.") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DatasetError(f"{path}: cannot be read whole ({error}). {way_out}") from None
    return to_rgb(upright)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header alone."""
    return opened.size if _orientation(opened) < 5 else (opened.height, opened.width)


def _orientation(opened: Image.Image) -> int:
    """The EXIF tag alone: Pillow's exif_transpose re-writes all of EXIF, and fails on a file with one malformed tag elsewhere in it."""
    try:
        return int(opened.getexif().get(ORIENTATION, 1))
    except (ValueError, TypeError, SyntaxError, struct.error):
        return 1


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: transparency over white, 16-bit and float grey scaled to 8 bits."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        largest = float(picture.getextrema()[1])  # type: ignore[arg-type]
        scale = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255 / 65535
        return picture.point(lambda value: value * scale + 0).convert("L").convert("RGB")
    if picture.mode.startswith("I;16") or picture.mode == "I":
        return picture.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return picture.convert("RGB")
