"""SSCD, the network for copies (Pizzi et al. 2022), from its published TorchScript file. The file is a program: take it from where its authors put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from darkroom.errors import ModelError
from darkroom.files import sha256_file
from darkroom.metrics.memory import Memory, Recent, recall, stamp

SIDE = 320  # pixels, square: what its authors advise where pictures are seen in batches
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Sscd:
    """The network and what it saw of the training pictures: (2, N, D), as they are and mirrored."""

    model: Any
    device: torch.device | str
    key: str
    memory: Memory = field(default_factory=Recent)
    seen: torch.Tensor = field(default_factory=lambda: torch.zeros(2, 0, 0))
    copy_from: float = 50.0

    @classmethod
    def load(cls, source: str, training: Sequence[Image.Image], device: torch.device | str = "cpu", memory: Memory | None = None) -> Sscd:
        """From sscd_disc_mixup.torchscript.pt or another of its files. Raises ModelError."""
        path = Path(source)
        try:
            model = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
            made = cls(model, device, stamp("sscd", sha256_file(path), torch.device(device).type), memory or Recent())
            turned = _Turned(training)
            made.seen = torch.stack([made.see(training), made.see(turned)])
        except (OSError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"{source}: is not a TorchScript file that sees pictures: {first} Leave --model copying out to compare by overlay.") from None
        return made

    def see(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(N, D) unit vectors."""
        return recall(self.memory, self.key, pictures, self._look)

    def to_each(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """(training pictures,) the cosine to each or its mirror image, the larger."""
        found: npt.NDArray[np.float32] = (self.seen @ self.see([picture])[0]).amax(0).numpy()
        return found

    @torch.no_grad()
    def _look(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        arrays = [np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255 for picture in pictures]
        pixels = torch.from_numpy((np.stack(arrays) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).permute(0, 3, 1, 2)
        return nn.functional.normalize(self.model(pixels.to(self.device)).float().cpu(), dim=-1)


class _Turned(Sequence[Image.Image]):
    """The mirror images, made when they are looked at."""

    def __init__(self, pictures: Sequence[Image.Image]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: Any) -> Any:
        found = self.pictures[place]
        turn = Image.Transpose.FLIP_LEFT_RIGHT
        return found.transpose(turn) if isinstance(found, Image.Image) else [one.transpose(turn) for one in found]
