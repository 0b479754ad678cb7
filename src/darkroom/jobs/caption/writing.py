"""Captions as a worker writes them: a captioner that is held, pictures a batch at a time, and a picture's failure is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import pocket
from darkroom.captioning import Exhibit, Writer
from darkroom.data.manifest import Manifest, Row
from darkroom.data.picture import read_picture
from darkroom.errors import DarkroomError, DatasetError, ModelError
from darkroom.jobs.engine import Work

if TYPE_CHECKING:
    from darkroom.captioning import Captioner

SILENT = "nothing was said of it (no word was sure enough, or the answer was empty)"


@dataclass(frozen=True)
class Said:
    """What is said of one picture, or why nothing is."""

    text: str = ""
    why: str = ""


@dataclass(frozen=True)
class Writing(Work[Row, Said]):
    """A captioner and where its pictures lie."""

    folder: Path
    by: Captioner
    device: str
    share: int
    here: Writer | None = field(default=None, repr=False)
    """The asking process's own, which no other process gets."""
    holds: bool = True

    def open(self) -> Callable[[Sequence[Row]], Sequence[Said]]:
        """Raises ModelError or RecipeError."""
        writer = self.here or opened(self.by, self.device, ())
        return lambda rows: [said for start in range(0, len(rows), writer.batch) for said in self._batch(rows[start : start + writer.batch], writer)]

    def died(self, item: Row) -> Said:
        """The others go on."""
        return Said(why="its worker died of it each time, the last time with this alone")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "here": None}

    def _batch(self, rows: Sequence[Row], writer: Writer) -> list[Said]:
        found: dict[str, Said] = {}
        exhibits = list(self._exhibits(rows, writer.looks, found))
        try:
            told = list(zip(exhibits, writer.write(exhibits), strict=True)) if exhibits else []
        except ModelError:
            raise
        except Exception as error:  # whatever a model stumbles over: one of them may be to blame
            told = list(_one_by_one(exhibits, writer, found)) if len(exhibits) > 1 else []
            found |= {exhibits[0].row.file: Said(why=_why(error))} if len(exhibits) == 1 else {}
        found |= {exhibit.row.file: Said(text) if text.strip() else Said(why=SILENT) for exhibit, text in told}
        return [found[row.file] for row in rows]

    def _exhibits(self, rows: Sequence[Row], looks: bool, found: dict[str, Said]) -> Iterator[Exhibit]:
        manifest = Manifest(self.folder, ())
        for row in rows:
            try:
                yield Exhibit(row, read_picture(manifest.path(row)) if looks else None)
            except DatasetError as error:
                found[row.file] = Said(why=str(error))


def writing(manifest: Manifest, by: Captioner, device: str, rows: Sequence[Row], here: bool) -> Writing:
    """The work of captioning these rows. `here`: with a captioner that is open in this process. Raises ModelError, RecipeError."""
    writer = opened(by, device, rows) if here else None
    return Writing(manifest.folder, by, device, writer.batch if writer else by.batch, writer)


def opened(by: Captioner, device: str, rows: Sequence[Row]) -> Writer:
    """The captioner with its weights. Raises ModelError or RecipeError."""
    if by.kind == "pocket" and by.model == "pocket":
        by = by.model_copy(update={"model": str(pocket.folder("scorer"))})
    return by.open(device, rows)


def _one_by_one(exhibits: Sequence[Exhibit], writer: Writer, found: dict[str, Said]) -> Iterator[tuple[Exhibit, str]]:
    for exhibit in exhibits:
        try:
            yield exhibit, writer.write([exhibit])[0]
        except ModelError:
            raise
        except Exception as error:
            found[exhibit.row.file] = Said(why=_why(error))


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, DarkroomError) else f"the model fails on it ({type(error).__name__}: {error})"
