"""Keeping a part of a picture, such as a face: found or given by a mask, held while drawing, and blended so that no seam shows."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, UnidentifiedImageError

from darkroom.data.picture import to_rgb
from darkroom.errors import DatasetError, RecipeError
from darkroom.sampling.control import opencv

Box = tuple[int, int, int, int]
SMALL, LARGE, AGAIN = 320, 1280, 640  # the detector works on a longer side between the first two, and once more at the third
FRONT = ("frontalface_alt2", 29)
"""Cascade, and how many overlapping finds must be exceeded. LFW's faces gave 85 (median), 45 photos of things and animals at most 28 (a toy robot's face)."""
PROFILE = ("profileface", 15)
"""As above; scikit-image's cameraman (400 and 512 pixels) gave 21 to 29 at the third scale, the photos at most 13 at any."""


def find_faces(picture: Image.Image) -> list[Box]:
    """Boxes (left, top, right, bottom) in pixels of the faces, largest first, by OpenCV's cascades (Viola and Jones 2001).

    Faces from the side are looked for only where none is seen from the front. Raises RecipeError where OpenCV, or its cascades, are missing.
    """
    longest = max(picture.size)
    sides = dict.fromkeys((min(max(longest, SMALL), LARGE), AGAIN))  # some faces are found at one of two scales only
    for cascade, least in (FRONT, PROFILE):
        for side in sides:
            if found := _at_scale(picture, side / longest, cascade, least):
                return sorted(found, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
    return []


def _at_scale(picture: Image.Image, scale: float, cascade: str, least: int) -> list[Box]:
    """What one cascade finds in the picture resized by `scale`, in the picture's own pixels. The profile cascade knows left profiles alone."""
    cv2 = opencv()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    grey = cv2.equalizeHist(np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC)))
    smallest = max(24, min(size) // 10)
    finder = _cascade(cv2, cascade)
    found = [tuple(map(int, box)) for box in finder.detectMultiScale(grey, 1.05, least, minSize=(smallest, smallest))]
    if cascade == PROFILE[0] and not found:
        turned = finder.detectMultiScale(np.ascontiguousarray(grey[:, ::-1]), 1.05, least, minSize=(smallest, smallest))
        found = [(size[0] - int(x + w), int(y), int(w), int(h)) for x, y, w, h in turned]
    right, bottom = picture.size
    return [(round(x / scale), round(y / scale), min(right, round((x + w) / scale)), min(bottom, round((y + h) / scale))) for x, y, w, h in found]


def _cascade(cv2: Any, name: str) -> Any:
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise RecipeError(f'OpenCV {cv2.__version__} carries no face cascades; version 4 does: pip install "sdxl-darkroom[vision]"')
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml")


def face_mask(picture: Image.Image, grow: float = 1.15) -> Image.Image:
    """ "L", 255 within an ellipse over each face (`grow` times its box, taller than wide), with soft edges. Raises DatasetError where none is found."""
    boxes = find_faces(picture)
    if not boxes:
        raise DatasetError("no face was found in the start picture. Give a picture in which white stays: --keep MASK.png.")
    mask = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(mask)
    for left, top, right, bottom in boxes:
        x, y, w, h = (left + right) / 2, (top + bottom) / 2, (right - left) / 2 * grow, (bottom - top) / 2 * grow * 1.15
        pen.ellipse((x - w, y - h, x + w, y + h), 255)
    smallest = min(right - left for left, _, right, _ in boxes)
    return mask.filter(ImageFilter.GaussianBlur(smallest / 40))


def read_mask(path: Path, size: tuple[int, int], what: str) -> Image.Image:
    """A mask picture as "L": its alpha channel where that varies, else its brightness. `what` is "mask" or "keep", for the messages.

    Raises DatasetError where it is missing, unreadable, of another size than the start picture, or of one value all over.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            layered = opened.convert("RGBA") if "A" in opened.getbands() or "transparency" in opened.info else None
            alpha = layered.getchannel("A") if layered is not None else None
            mask = alpha if alpha is not None and alpha.getextrema()[0] != alpha.getextrema()[1] else to_rgb(opened).convert("L")
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such {what}.") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, struct.error) as error:
        raise DatasetError(f"{path}: cannot be read as a {what} ({error}).") from None
    if mask.size != size:
        raise DatasetError(f"{path}: is {mask.width} x {mask.height}, and the start picture is {size[0]} x {size[1]}. A {what} must be as large as it.")
    values = np.asarray(mask)
    low, high = int(values.min()), int(values.max())
    if high < 128 or low >= 128:
        everything = (low >= 128) == (what == "mask")
        raise DatasetError(f"{path}: is {'white' if low >= 128 else 'black'} all over, so that {'all' if everything else 'nothing'} would be drawn. White is "
                           f"what {'is drawn anew' if what == 'mask' else 'stays'}.")  # fmt: skip
    return mask


def hold_mask(mask: Image.Image, factor: int) -> torch.Tensor:
    """(1, 1, h, w): how much of each latent's pixels is kept, 0 to 1."""
    pixels = torch.from_numpy(np.asarray(mask, np.float32) / 255)[None, None]
    return torch.nn.functional.avg_pool2d(pixels, factor)


def blend(kept: Image.Image, drawn: Image.Image, mask: Image.Image, feather: int) -> Image.Image:
    """`kept` where the mask is white, `drawn` where it is black, and over `feather` pixels inside the border the one fades into the other.

    Outside the mask, and deeper inside than `feather` (at most half of the kept part's depth), both are byte for byte what they were. The
    drawn picture carries on what is kept (its latents were held), so that a fade inside the border shows no seam.
    """
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.asarray(mask) >= 128)
    reach = max(1.0, min(float(feather), float(depth.max()) / 2))
    part = np.clip(depth / reach, 0, 1)[..., None]
    part = part * part * (3 - 2 * part)
    mixed = np.asarray(kept, np.float64) * part + np.asarray(drawn, np.float64) * (1 - part)
    return Image.fromarray(mixed.round().astype(np.uint8))


def seam(picture: Image.Image, mask: Image.Image) -> float:
    """How visible the mask's border is: the mean step of brightness across it, over that in bands a few pixels to both sides. About 1: no seam."""
    from scipy.ndimage import distance_transform_edt

    grey = np.asarray(picture.convert("L"), np.float64)
    inside = np.asarray(mask) >= 128
    steps = np.hypot(*np.gradient(grey))
    away = np.where(inside, distance_transform_edt(inside), distance_transform_edt(~inside))
    return float(steps[away <= 1].mean() / max(steps[(away >= 4) & (away <= 10)].mean(), 1e-6))
