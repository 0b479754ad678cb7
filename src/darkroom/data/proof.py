"""Is this file a picture? It is decoded to its last row; its name and what a server called it count for nothing."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from darkroom.data.picture import MAX_PIXELS, decoders, upright_size
from darkroom.files import sha256_file

READ = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "AVIF": ".avif", "HEIF": ".heic", "BMP": ".bmp", "TIFF": ".tif",
}  # fmt: skip
"""What is read, as Pillow names it, and the ending it is written with."""
LARGE = 16_000_000
"""Pixels above which pictures are decoded one at a time: the largest allowed takes 0.7 GB in memory."""
NO_PICTURE = "no picture"
OTHER_FORMAT = "a format that is not read"
DAMAGED = "damaged picture"
BOMB = "decompression bomb"
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Proof:
    """A whole picture. `ending` is its true format's."""

    sha256: str
    size: int
    changed: int
    width: int
    height: int
    format: str

    @property
    def ending(self) -> str:
        return READ[self.format]


class Unusable(Exception):
    """A row that gives no picture: `reason` in the words a summary counts by, `detail` for the one row, `temporary` where another time may bring it."""

    def __init__(self, reason: str, detail: str = "", temporary: bool = False, status: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail, self.temporary, self.status = reason, detail, temporary, status


def prove(path: Path) -> Proof:
    """Decode the file and tell what it is. Raises Unusable; OSError where the disk does not give the bytes."""
    stat = path.stat()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=decoders()) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise Unusable(BOMB, f"{opened.width} x {opened.height} pixels; at most {MAX_PIXELS:,} are read")
                width, height = upright_size(opened)
                _decode(opened)
                form = opened.format or ""
    except UnidentifiedImageError:
        raise _unknown(path) from None
    except Image.DecompressionBombError:
        raise Unusable(BOMB, f"more than {MAX_PIXELS:,} pixels") from None
    except Unusable:
        raise
    except Exception as error:  # Pillow promises no set of errors for a file made to hurt, and one row must not end the run
        raise Unusable(DAMAGED, f"{type(error).__name__}: {error}") from None
    return Proof(sha256_file(path), stat.st_size, stat.st_mtime_ns, width, height, form)


def _decode(opened: Image.Image) -> None:
    if opened.width * opened.height <= LARGE:
        opened.load()
        return
    with _one_at_a_time:
        opened.load()


def _unknown(path: Path) -> Unusable:
    """What the first bytes say of a file that is none of the formats read."""
    with path.open("rb") as file:
        head = file.read(512)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return Unusable(NO_PICTURE, "an empty file")
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc"):
        return Unusable(OTHER_FORMAT, "HEIC: export it as JPEG")
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return Unusable(OTHER_FORMAT, "AVIF: convert it to PNG or JPEG")
    if head[:4] == b"GIF8":
        return Unusable(OTHER_FORMAT, "GIF: convert it to PNG")
    if b"<svg" in start:
        return Unusable(OTHER_FORMAT, "SVG: draw it as PNG")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return Unusable(NO_PICTURE, "an HTML page")
    if start.startswith((b"{", b"[", b"<?xml")):
        return Unusable(NO_PICTURE, "text (JSON or XML)")
    return Unusable(NO_PICTURE, f"begins with {head[:8]!r}")
