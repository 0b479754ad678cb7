"""Duplicates among more pictures than one memory holds: the join over hash buckets and what follows it in parts, each done by whoever is free.

    join     the buckets of one piece of the hashes, a part of them at a time      -> candidates, sorted into parts by pair
    ways     of each pair the ways in which it is most alike                       -> pairs, sorted into parts by picture
    nearest  of each picture the pairs that are compared closely                   -> those pairs, sorted into parts by pair
    compare  the thumbnails of each pair                                           -> equal ones

Parts lie in files of a folder that all workers see, and a part is written whole or not at all, so that one whose worker was killed is just done again.
How many there are depends on the number of pictures alone: what comes out is the same on any engine, and what `find_duplicates` gives in one memory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from darkroom.data.duplicates import Progress, equal_pairs, find_duplicates
from darkroom.data.near import PIECES, ROWS, Gallery, Hashes, Ints, Near, among_nearest, candidates, pairs, together, ways
from darkroom.data.prints import PRINTS, THUMB_BYTES
from darkroom.errors import OutputError
from darkroom.files import atomic
from darkroom.jobs.engine import Engine, Work

PART = 1 << 17
"""Pictures a part; up to so many the local engine does it in memory (0.3 GB)."""
NEAR = np.dtype([("one", "i8"), ("other", "i8"), ("bits", "i1"), ("far", "f4")])
PAIR = np.dtype([("pair", "i8"), ("far", "f4")])
Stage = Literal["join", "ways", "nearest", "compare"]


def spread_duplicates(
    hashes: Hashes, thumbs: npt.NDArray[np.uint8], rows: Ints, same: float, folder: Path, engine: Engine, progress: Progress = lambda done, total: None
) -> Ints:
    """(pairs, 2) places in `rows` of equal pictures, the smaller first, as `find_duplicates` of those rows; the arrays may lie in files.

    `folder` is one that the workers of the engine see; nothing stays there. Raises OutputError where it cannot be written.
    """
    if engine.name == "local" and len(rows) <= PART:
        return find_duplicates(hashes[rows], thumbs[rows], same, progress=progress)
    cut = max(0, math.ceil(math.log2(max(len(rows), 1) / PART)))
    try:
        with tempfile.TemporaryDirectory(prefix=".duplicates-", dir=folder) as place:
            _lay_out(Path(place), hashes, thumbs, rows)
            return _in_stages(Path(place), cut, same, engine, progress)
    except OSError as error:
        raise OutputError(f"{folder}: duplicates need room there while they are looked for: {error.strerror}. Make room, or leave them out.") from None


def _lay_out(place: Path, hashes: Hashes, thumbs: npt.NDArray[np.uint8], rows: Ints) -> None:
    """The gallery of these rows as files, a few at a time."""
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {"hashes": ((len(rows), PRINTS), np.uint64), "thumbs": ((len(rows), THUMB_BYTES), np.uint8)}
    shapes |= {"blocks": ((2, len(rows), 24), np.float32), "bright": ((len(rows),), np.int64)}
    files = {name: np.lib.format.open_memmap(place / f"{name}.npy", "w+", kind, shape) for name, (shape, kind) in shapes.items() if len(rows)}
    for start in range(0, len(rows), ROWS):
        here = slice(start, start + ROWS)
        some = Gallery.of(hashes[rows[here]], thumbs[rows[here]])
        files["hashes"][here], files["thumbs"][here], files["bright"][here] = some.hashes, some.thumbs, some.bright
        files["blocks"][:, here] = some.blocks
    for file in files.values():
        file.flush()


def _in_stages(place: Path, cut: int, same: float, engine: Engine, progress: Progress) -> Ints:
    """Each stage when the one before is complete; what only that one read is deleted."""
    if not (place / "hashes.npy").is_file():
        return np.zeros((0, 2), np.int64)
    parts = 1 << cut
    stages: dict[Stage, str] = {"join": "", "ways": "join", "nearest": "ways", "compare": "nearest"}
    total, done, found = (len(PIECES) + 3) * parts, 0, [np.zeros((0, 2), np.int64)]
    for stage, read in stages.items():
        for result in engine.each(Step(place, stage, cut, same), range(len(PIECES) * parts if stage == "join" else parts)):
            done += 1
            progress(done, total)
            found.append(result)
        for file in place.glob(f"{read}-*") if read else ():
            file.unlink()
    return np.unique(np.concatenate(found), axis=0).reshape(-1, 2)


@dataclass(frozen=True)
class Step(Work[int, Ints]):
    """One stage, by the number of its part. Only comparing returns something; the others leave files."""

    place: Path
    stage: Stage
    cut: int
    same: float
    share: int = 1

    def open(self) -> Callable[[Sequence[int]], list[Ints]]:
        return lambda numbers: [self._do(number) for number in numbers]

    def _do(self, number: int) -> Ints:
        none = np.zeros((0, 2), np.int64)
        match self.stage:
            case "join":
                self._join(number)
            case "ways":
                self._ways(number)
            case "nearest":
                self._nearest(number)
            case "compare":
                return self._compare(number)
        return none

    @property
    def parts(self) -> int:
        return 1 << self.cut

    def _gallery(self) -> Gallery:
        return Gallery(*(np.load(self.place / f"{name}.npy", mmap_mode="r") for name in ("hashes", "thumbs", "blocks", "bright")))

    def _join(self, number: int) -> None:
        near = candidates(self._gallery(), PIECES[number // self.parts], number % self.parts, self.cut)
        held = np.zeros(len(near.one), NEAR)
        held["one"], held["other"], held["bits"], held["far"] = near.one, near.other, near.bits, near.far
        self._sort_out("join", number, held, self._slot(near.pair))

    def _ways(self, number: int) -> None:
        near = ways(self._near(number))
        self._write(f"kept-{number}", np.stack([near.one, near.other]))
        pair, far, _ = pairs(near)
        held = np.zeros(len(pair), PAIR)
        held["pair"], held["far"] = pair, far
        for part in range(self.parts):
            self._write(f"ways-{number}-{part}", held[(self._small(pair) == part) | (self._large(pair) == part)])

    def _nearest(self, number: int) -> None:
        held = np.concatenate(list(self._read("ways", number)))
        kept = [np.zeros(0, np.int64)]
        for picture, side in ((held["pair"] >> 32, self._small), (held["pair"] & 0xFFFFFFFF, self._large)):
            here = np.flatnonzero(side(held["pair"]) == number)
            pair = held["pair"][here]
            kept.append(pair[among_nearest(picture[here], pair, held["far"][here])])
        pair = np.unique(np.concatenate(kept))
        self._sort_out("nearest", number, pair, self._slot(pair))

    def _compare(self, number: int) -> Ints:
        one, other = np.load(self.place / f"kept-{number}.npy")
        near = Near(one, other, one, one.astype(np.float32))
        wanted = np.concatenate(list(self._read("nearest", number)))
        return equal_pairs(self._gallery(), near.take(np.isin(near.pair, wanted)), self.same)

    def _near(self, number: int) -> Near:
        found = [Near(held["one"], held["other"], held["bits"].astype(np.int64), held["far"]) for held in self._read("join", number)]
        return together(found)

    def _slot(self, pair: Ints) -> Ints:
        """The part that a pair belongs to: its number, mixed (Knuth's multiplicative hashing), so that no crowd falls into one."""
        mixed = pair.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(40)).astype(np.int64) & (self.parts - 1)

    def _small(self, pair: Ints) -> Ints:
        return (pair >> 32) & (self.parts - 1)

    def _large(self, pair: Ints) -> Ints:
        return pair & (self.parts - 1)

    def _sort_out(self, stage: Stage, number: int, held: npt.NDArray[Any], slot: Ints) -> None:
        for part in range(self.parts):
            self._write(f"{stage}-{number}-{part}", held[slot == part])

    def _write(self, name: str, held: npt.NDArray[Any]) -> None:
        with atomic(self.place / f"{name}.npy") as part, part.open("wb") as file:
            np.save(file, held)

    def _read(self, stage: Stage, part: int) -> Iterator[npt.NDArray[Any]]:
        """What all parts of the stage wrote for this one."""
        count = len(PIECES) * self.parts if stage == "join" else self.parts
        return (np.load(self.place / f"{stage}-{number}-{part}.npy") for number in range(count))
