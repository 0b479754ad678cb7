"""Which pictures are the same one again: copied, rescaled, recompressed, mirrored, shifted or cut by a twentieth.

Two steps. Hashes that differ in few bits make a pair a candidate, found through buckets and not by comparing all with all: of three pieces of a hash one
differs in at most one bit where the whole differs in at most five (the pigeonhole principle; Norouzi, Punjani and Fleet 2012). A candidate is a pair only if
`likeness.score` says so. What one picture can cost is bounded (CROWD, NEAREST), so that a thousand drawings that all look alike cost no million comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.data.likeness import coarse, score
from darkroom.data.prints import PRINTS, WINDOWS

PIECES = ((0, 21), (21, 21), (42, 22))  # first bit and width: 2 million buckets each
BITS = 6
"""Hashes that differ in more make no candidates: copies, mirrors and shifts of 360 pictures differed in at most 6 (docs/log.md)."""
FAR = 30.0  # grey levels: candidates whose 4 x 4 blocks differ more on average are no pair
CROWD = 64  # of a fuller bucket so many are looked at: those of the most similar brightness
WAYS = 2  # of a pair so many are tried: those whose hashes agree best
NEAREST = 24  # candidates of one picture that are compared closely: the nearest by their 4 x 4 blocks
BLOCK = 1 << 18  # candidates held at once
TURNS = 3  # of comparing those that stand for others

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Near:
    """Candidates. An entry names a hash: entry e is hash e % PRINTS of picture e // PRINTS."""

    one: Ints
    other: Ints
    bits: Ints
    """In how many the hashes differ."""
    far: npt.NDArray[np.float32]
    """How unlike the two pictures are, in grey levels."""

    @property
    def pair(self) -> Ints:
        """One number for each two pictures, whichever asked."""
        one, other = self.one // PRINTS, self.other // PRINTS
        return np.minimum(one, other) << 32 | np.maximum(one, other)

    def take(self, which: npt.NDArray[np.bool_] | Ints) -> Near:
        return Near(self.one[which], self.other[which], self.bits[which], self.far[which])


def gathered(worth: Ints, find: Callable[[Ints, float], Ints], same: float = 1.0) -> dict[int, int]:
    """For each picture that equals a better one, the number of that one. `worth[n]` is picture n's place among all, the best has 0.

    `find(numbers, same)` gives the pairs among some of them. Each is compared with the one that stands for it, and not only with a neighbour of a neighbour:
    drawings that change little from one to the next do not all become one. Where a crowd hides its own (NEAREST), those that stand for others are
    compared again, more strictly.
    """
    standing = np.arange(len(worth))
    owner: dict[int, int] = {}
    for turn in range(TURNS):
        absorbed = _absorbed(find(standing, same / (1 + turn)), worth)
        owner |= absorbed
        standing = np.setdiff1d(standing, np.fromiter(absorbed, np.int64, len(absorbed)))
        if not absorbed or np.bincount(list(absorbed.values())).max() < NEAREST // 2:
            break
    return {number: _last(owner, number) for number in owner}


def find_duplicates(
    hashes: Hashes, thumbs: npt.NDArray[np.uint8], same: float = 1.0, among: bool = True, progress: Progress = lambda done, total: None
) -> Ints:
    """(pairs, 2) numbers of equal pictures, the smaller first, from (n, PRINTS) hashes and (n, THUMB_BYTES) thumbnails.

    A larger `same` calls more alike equal. Without `among` only pairs with the last picture are wanted.
    """
    blocks, none = coarse(thumbs), np.zeros(0, np.int64)
    found: list[Near] = [Near(none, none, none, none.astype(np.float32))]
    for done, piece in enumerate(PIECES):
        progress(done, len(PIECES) + 1)
        for near in _candidates(hashes, blocks, piece):
            found.append(near if among else near.take(near.pair & 0xFFFFFFFF == len(hashes) - 1))
            if sum(len(part.one) for part in found) > 16 * BLOCK:
                found = [_nearest(found)]
    near = _nearest(found) if among else _joined(found)
    one, other = near.one // PRINTS, near.other // PRINTS
    progress(len(PIECES), len(PIECES) + 1)
    equal = score(thumbs, one, other, near.one % PRINTS, near.other % PRINTS) < same
    progress(len(PIECES) + 1, len(PIECES) + 1)
    return np.unique(np.sort(np.stack([one, other], 1)[equal], axis=1), axis=0).reshape(-1, 2)


def _absorbed(pairs: Ints, worth: Ints) -> dict[int, int]:
    """Who stands for whom: the best that nobody stands for yet takes in all that equal it."""
    owner: dict[int, int] = {}
    ranked = np.sort(worth[pairs], axis=1)
    by_worth = np.argsort(worth)
    for one, other in by_worth[ranked[np.lexsort((ranked[:, 1], ranked[:, 0]))]].tolist():
        if one not in owner and other not in owner:
            owner[other] = one
    return owner


def _last(owner: dict[int, int], number: int) -> int:
    while number in owner:
        number = owner[number]
    return number


def _candidates(hashes: Hashes, blocks: npt.NDArray[np.float32], piece: tuple[int, int]) -> Iterator[Near]:
    """Pairs by one piece of the hashes, in blocks of about BLOCK. Every hash asks, the unmirrored ones answer; a pair may come several times."""
    first, width = piece
    flat, bright = hashes.ravel(), blocks[0, :, :16].mean(1).astype(np.int64)
    asked, known = _entries(hashes, PRINTS), _entries(hashes, len(WINDOWS))
    keys = ((flat >> np.uint64(first)) & np.uint64((1 << width) - 1)).astype(np.int64)
    sortable = keys[known] << 8 | bright[known // PRINTS]
    order = np.argsort(sortable, kind="stable")
    sortable, known = sortable[order], known[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys[known], minlength=1 << width))])
    for flip in (0, *(1 << bit for bit in range(width))):
        bucket = keys[asked] ^ flip
        begin, end = starts[bucket], starts[bucket + 1]
        full = np.flatnonzero(end - begin > CROWD)
        wanted = bucket[full] << 8 | bright[asked[full] // PRINTS]
        left, right = np.searchsorted(sortable, wanted), np.searchsorted(sortable, wanted, "right")
        middle = left + asked[full] // PRINTS % np.maximum(right - left, 1)  # of equally bright ones not all the same
        begin[full] = np.clip(middle - CROWD // 2, begin[full], end[full] - CROWD)
        end[full] = begin[full] + CROWD
        for rows, places in _expanded(begin, end):
            yield _close(asked[rows], known[places], flat, blocks)


def _entries(hashes: Hashes, upto: int) -> Ints:
    """The entries of the first `upto` hashes of each picture, without those that a picture has twice."""
    order = np.argsort(hashes[:, :upto], axis=1, kind="stable")
    ordered = np.take_along_axis(hashes[:, :upto], order, 1)
    again = np.concatenate([np.zeros((len(hashes), 1), bool), ordered[:, 1:] == ordered[:, :-1]], 1)
    entries = (np.arange(len(hashes))[:, None] * PRINTS + order)[~again]
    return np.sort(entries)


def _expanded(begin: Ints, end: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Every (row, place) with begin[row] <= place < end[row], in blocks of about BLOCK."""
    counts = end - begin
    total = np.cumsum(counts)
    low = 0
    while low < len(counts):
        high = max(low + 1, int(np.searchsorted(total, (total[low - 1] if low else 0) + BLOCK, "right")))
        here = counts[low:high]
        rows = np.repeat(np.arange(low, high), here)
        yield rows, np.arange(len(rows)) - np.repeat(np.cumsum(here) - here - begin[low:high], here)
        low = high


def _close(one: Ints, other: Ints, flat: Hashes, blocks: npt.NDArray[np.float32]) -> Near:
    """Those that differ in at most BITS bits and by at most FAR grey levels."""
    bits = np.bitwise_count(flat[one] ^ flat[other]).astype(np.int64)
    kept = (one // PRINTS != other // PRINTS) & (bits <= BITS)
    one, other, bits = one[kept], other[kept], bits[kept]
    mirrored = (one % PRINTS >= len(WINDOWS)).astype(np.int64)
    gaps = np.abs(blocks[mirrored, one // PRINTS] - blocks[0, other // PRINTS])
    far = np.maximum(gaps[:, :16].mean(1), 2 * gaps[:, 16:].mean(1))
    return Near(one, other, bits, far).take(far <= FAR)


def _nearest(parts: list[Near]) -> Near:
    """Of each pair the WAYS in which the hashes agree best, and pairs only with one of the NEAREST of either picture."""
    near = _joined(parts)
    near = near.take(np.lexsort((near.other, near.one, near.bits, near.pair)))
    again = (np.diff(near.one, prepend=-1) == 0) & (np.diff(near.other, prepend=-1) == 0)
    near = near.take(~again)
    near = near.take(_rank(near.pair) < WAYS)
    pair, first = np.unique(near.pair, return_index=True)
    far, kept = near.far[first], np.zeros(len(pair), bool)
    for picture in (pair >> 32, pair & 0xFFFFFFFF):
        order = np.lexsort((pair, far, picture))
        kept[order[_rank(picture[order]) < NEAREST]] = True
    return near.take(np.repeat(kept, np.diff(first, append=len(near.one))))


def _joined(parts: list[Near]) -> Near:
    one, other, bits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("one", "other", "bits"))
    return Near(one, other, bits, np.concatenate([part.far for part in parts]))


def _rank(ordered: Ints) -> Ints:
    """The place of each value among its equals, which stand together."""
    fresh = np.diff(ordered, prepend=-1) != 0
    places = np.arange(len(ordered))
    return places - np.maximum.accumulate(np.where(fresh, places, 0))
