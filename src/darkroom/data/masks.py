"""Which part of a picture is learned from: masks from alpha channels or a folder of masks, and what they weigh where the loss is computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darkroom.data.buckets import Fit
from darkroom.data.member import Member
from darkroom.data.picture import ENDINGS, opened, to_rgb, upright
from darkroom.errors import DatasetError
from darkroom.fence import let
from darkroom.files import atomic

FOLDER = "masks"


def mask_weights(path: Path | Member, fit: Fit, flipped: bool, factor: int) -> NDArray[np.float32]:
    """(h, w), 0 to 1: how much of each latent's `factor` x `factor` pixels of the bucket is white, after the picture's own scaling, crop and flip.

    Raises DatasetError where the crop leaves nothing white: such a picture would teach nothing.
    """
    scaled = opened_mask(path).resize(fit.resized, Image.Resampling.BOX)  # BOX: the share of white, nothing beyond 0 and 1
    cut = scaled.crop((fit.left, fit.top, fit.left + fit.bucket[0], fit.top + fit.bucket[1]))
    if flipped:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = fit.bucket
    blocks = np.asarray(cut, np.float64).reshape(height // factor, factor, width // factor, factor)
    weights: NDArray[np.float32] = (blocks.mean((1, 3)) / 255).astype(np.float32)
    if not weights.any():
        raise DatasetError(
            f"{path}: the crop to {width} x {height} leaves nothing of the white part, so that nothing would be learned. Aim the crop at it: "
            '`darkroom dataset prepare DATASET --focus`, and data.crop = "subject".'
        )
    return weights


def mask_name(file: str) -> str:
    """Where the mask of a row lies, below the dataset's folder: no two pictures share one."""
    return f"{FOLDER}/{file}.png"


def save_mask(mask: Image.Image, path: Path) -> None:
    """Write it as an 8-bit grey PNG, whole or not at all. Raises OutputError."""
    with atomic(path) as part:
        mask.save(part, "PNG")


def alpha_mask(path: Path) -> Image.Image | None:
    """The alpha channel of a picture, upright, as "L"; None where it has none, or is opaque all over.

    Raises DatasetError where the picture cannot be read, or is transparent all over.
    """
    picture = _upright(path)
    if not _layered(picture):
        return None
    alpha = picture.convert("RGBA").getchannel("A")
    low, high = _extremes(alpha)
    if high == 0:
        raise DatasetError(f"{path}: is transparent all over, so that nothing would be learned. Take it out, or prepare without --alpha.")
    return None if low == 255 else alpha


def fitting_mask(path: Path, size: tuple[int, int]) -> Image.Image | None:
    """A mask file as "L" and as large as its picture; None where it is white all over, which is no mask.

    Its alpha channel is read where that varies, else its brightness. A mask of the picture's shape but another size is scaled.
    Raises DatasetError where it is unreadable, of another shape, or black all over.
    """
    mask = opened_mask(path)
    (width, height), (wide, high) = mask.size, size
    scale = wide / width
    if abs(high - height * scale) > max(1.0, scale):
        turned = " It seems to be turned: save it upright." if (width, height) == (high, wide) else ""
        raise DatasetError(f"{path}: is {width} x {height}, and its picture is {wide} x {high}: a mask must have its picture's shape.{turned}")
    low, brightest = _extremes(mask)
    if brightest == 0:
        raise DatasetError(f"{path}: is black all over, so that nothing would be learned. White is learned from; take the picture out, or correct the mask.")
    if low == 255:
        return None
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def opened_mask(path: Path | Member) -> Image.Image:
    """A mask file as upright "L": its alpha channel where that varies, else its brightness. Raises DatasetError."""
    picture = _upright(path)
    if _layered(picture):
        alpha = picture.convert("RGBA").getchannel("A")
        if len(set(_extremes(alpha))) == 2:
            return alpha
    return picture if picture.mode == "L" else to_rgb(picture).convert("L")


def find_masks(folder: Path, files: Iterable[str]) -> tuple[dict[str, Path], list[Path]]:
    """Of a folder of masks: which belongs to which picture, and which to none. They share the path below their folders, or the name alone, without ending.

    Raises DatasetError where there is no mask at all, or where a mask belongs to two pictures, or a picture has two.
    """
    let(folder)
    given = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()) if folder.is_dir() else []
    if not given:
        raise DatasetError(f"{folder}: holds no mask. A mask is a picture with the name of the one it belongs to: white is learned from, black is not.")
    exact: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for names, name in ((exact, file), (named, file.rpartition("/")[2])):
            names[name].add(file)
            names[name.rpartition(".")[0]].add(file)
    found: dict[str, Path] = {}
    orphans = []
    for path in given:
        relative = path.relative_to(folder).with_suffix("")
        owners = exact.get(relative.as_posix()) or named.get(relative.name) or set()
        if len(owners) > 1:
            raise DatasetError(f"{path}: could be the mask of {' or '.join(sorted(owners))}. Give it the whole name, as in {sorted(owners)[0]}.png.")
        if not owners:
            orphans.append(path)
            continue
        (owner,) = owners
        if owner in found:
            raise DatasetError(f"{owner}: has two masks, {found[owner]} and {path}. Keep one of them.")
        found[owner] = path
    return found, orphans


def _layered(picture: Image.Image) -> bool:
    return bool({"A", "a"} & set(picture.getbands())) or "transparency" in picture.info


def _extremes(grey: Image.Image) -> tuple[int, int]:
    low, high = grey.getextrema()
    return int(low), int(high)  # type: ignore[arg-type]


def _upright(path: Path | Member) -> Image.Image:
    """The picture upright, in its own mode. Raises DatasetError."""
    with opened(path) as picture:
        picture.load()
        turned = upright(picture)
        turned.info = dict(picture.info)
    return turned
