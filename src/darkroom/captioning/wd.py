"""Tags by SmilingWolf's WD taggers (selected_tags.csv beside model.onnx), run by onnxruntime."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pydantic import Field

from darkroom.captioning.exhibit import Exhibit
from darkroom.captioning.weights import fetch
from darkroom.data.manifest import Row
from darkroom.errors import ModelError, RecipeError
from darkroom.fence import hand_over
from darkroom.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GENERAL, CHARACTER = "0", "4"  # categories of selected_tags.csv; "9" is a rating, which is no tag


class Wd(Spec):
    """Tags, characters before the rest, the surest first: "1cat, sofa, no humans"."""

    kind: Literal["wd"] = "wd"
    model: str = Field("SmilingWolf/wd-swinv2-tagger-v3", description="A folder with model.onnx and selected_tags.csv, or a hub id.")
    threshold: float = Field(0.35, ge=0, le=1, description="How sure it must be of a general tag (SmilingWolf's and sd-scripts': 0.35).")
    character_threshold: float = Field(0.85, ge=0, le=2, description="How sure of a character's name (SmilingWolf's: 0.85); above 1: no names.")
    without: tuple[str, ...] = Field((), description='Tags that are never written, with "_" or blanks: ["no humans", "signature"].')
    underscores: bool = Field(False, description="Keep the underscores of tags. Off: blanks, but for faces such as ^_^.")
    longest: int = Field(0, ge=0, description="So many tags at most; 0: all.")
    batch: int = Field(8, ge=1, description="Pictures at once.")

    def open(self, device: str, rows: Sequence[Row]) -> WdWriter:
        """Raises ModelError, and RecipeError where onnxruntime is not installed."""
        return WdWriter(self, device)


@dataclass(frozen=True)
class Tag:
    """A line of selected_tags.csv."""

    name: str
    category: str

    def shown(self, underscores: bool) -> str:
        """As it is written in a caption."""
        return self.name if underscores or is_face(self.name) else self.name.replace("_", " ")


def is_face(name: str) -> bool:
    """Whether a tag is drawn rather than written: ^_^, x_x, (o)_(o). No word of two letters is in it."""
    return re.search(r"[^\W\d_]{2}", name) is None


class WdWriter:
    """The network in memory."""

    looks = True

    def __init__(self, spec: Wd, device: str) -> None:
        self.spec = spec
        self.tags = read_tags(fetch(spec.model, "selected_tags.csv", "WD tagger"))
        self.session = _session(fetch(spec.model, "model.onnx", "WD tagger"), device)
        (self.input,), (output, *_) = self.session.get_inputs(), self.session.get_outputs()
        rows, self.side, width, channels = (size if isinstance(size, int) else 0 for size in self.input.shape)
        if self.side != width or not self.side or channels != 3:
            raise ModelError(f"{spec.model}: wants pictures of the shape {self.input.shape}, and a WD tagger (N, side, side, 3). Name one of SmilingWolf's.")
        if isinstance(output.shape[-1], int) and output.shape[-1] != len(self.tags):
            raise ModelError(f"{spec.model}: selected_tags.csv has {len(self.tags)} tags and model.onnx {output.shape[-1]}. Fetch both from one place.")
        self.batch = rows or spec.batch
        self._fixed = rows

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """The tags above their thresholds, joined by ", "."""
        import numpy as np

        pixels = np.stack([prepared(exhibit.seen, self.side) for exhibit in exhibits])
        if self._fixed > len(pixels):  # a model of a fixed batch is filled up
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._fixed - len(pixels), 0)])
        chances = self.session.run(None, {self.input.name: pixels})[0]
        return [", ".join(chosen(self.tags, row, self.spec)) for row in chances[: len(exhibits)]]


def chosen(tags: Sequence[Tag], chances: NDArray[np.float32], spec: Wd) -> list[str]:
    """Which tags are written, from one row of the network's output: characters first, then general tags, each from the surest down; ties as in the file."""
    unwanted = {name.strip().replace(" ", "_") for name in spec.without}
    found: list[str] = []
    for category, threshold in ((CHARACTER, spec.character_threshold), (GENERAL, spec.threshold)):
        places = [place for place, tag in enumerate(tags) if tag.category == category and chances[place] >= threshold]
        places.sort(key=lambda place: -float(chances[place]))
        found += [tags[place].shown(spec.underscores) for place in places if tags[place].name.replace(" ", "_") not in unwanted]
    return found[: spec.longest or None]


def prepared(picture: Image.Image, side: int) -> NDArray[np.float32]:
    """(side, side, 3): padded to a square with white, resized (bicubic), in BGR and 0 to 255, as SmilingWolf's own demonstration does."""
    import numpy as np

    longer = max(picture.size)
    square = Image.new("RGB", (longer, longer), "white")
    square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
    scaled = square if longer == side else square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled, np.float32)[:, :, ::-1])


def read_tags(path: Path) -> list[Tag]:
    """The tags in the order of the network's outputs. Raises ModelError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [Tag(row["name"], row["category"]) for row in csv.DictReader(file)]
    except (KeyError, csv.Error, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: is no list of tags ({error}). It needs the columns tag_id, name, category, count.") from None


def _session(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise RecipeError('--with wd needs the package onnxruntime: pip install "sdxl-darkroom[tag]".') from None
    onnxruntime.set_default_logger_severity(3)
    there = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", "ROCMExecutionProvider") if name in there and device != "cpu"]
    try:
        return onnxruntime.InferenceSession(hand_over(str(path)), providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no class but this
        raise ModelError(f"{path}: is no network that onnxruntime can run: {str(error).splitlines()[0]}") from None
