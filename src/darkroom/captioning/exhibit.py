"""What a captioner is shown, and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from darkroom.data.manifest import Row


@dataclass(frozen=True)
class Exhibit:
    """A picture to be captioned: its row, and itself as upright RGB, unless the writer does not look."""

    row: Row
    picture: Image.Image | None = None

    @property
    def seen(self) -> Image.Image:
        """The picture, for writers that look."""
        assert self.picture is not None, "a writer that looks is shown pictures"
        return self.picture


class Writer(Protocol):
    """An opened captioner. The same pictures get the same captions, in whatever batches: nothing is drawn by chance."""

    batch: int
    """Pictures at once."""
    looks: bool
    """Whether it needs the pictures, or their rows alone."""

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """A caption for each, "" where it has nothing to say. Raises DatasetError for a picture that it cannot caption, ModelError where it cannot go on."""
