"""Candidates for duplicates: pictures whose hashes differ in few bits, found through buckets and not by comparing all with all.

Of three pieces of a hash one differs in at most one bit where the whole differs in at most five (the pigeonhole principle; Norouzi, Punjani and Fleet 2012).
What one picture can cost is bounded (CROWD, NEAREST). The buckets of a piece can be joined part by part: what lies in a bucket decides what comes out of it,
so that the parts together give what the whole gives, and none needs the others' memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.data.likeness import coarse
from darkroom.data.prints import PRINTS, WINDOWS

PIECES = ((0, 21), (21, 21), (42, 22))  # first bit and width: 2 million buckets each
BITS = 6
"""Hashes that differ in more make no candidates: copies, mirrors and shifts of 360 pictures differed in at most 6 (docs/log.md)."""
FAR = 30.0  # grey levels: candidates whose 4 x 4 blocks differ more on average are no pair
CROWD = 64  # of a fuller bucket so many are looked at: those of the most similar brightness
WAYS = 2  # of a pair so many are tried: those whose hashes agree best
NEAREST = 24  # candidates of one picture that are compared closely: the nearest by their 4 x 4 blocks
BLOCK = 1 << 18  # candidates held at once
ROWS = 1 << 16  # pictures whose hashes are read at once

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Gallery:
    """What pictures are recognised by; the arrays may lie in files."""

    hashes: Hashes
    """(n, PRINTS)"""
    thumbs: npt.NDArray[np.uint8]
    """(n, THUMB_BYTES)"""
    blocks: Floats
    """(2, n, 24), see `likeness.coarse`."""
    bright: npt.NDArray[np.int64]
    """(n,) brightness, 0 to 255."""

    @classmethod
    def of(cls, hashes: Hashes, thumbs: npt.NDArray[np.uint8]) -> Gallery:
        """In memory."""
        blocks = coarse(thumbs)
        return cls(hashes, thumbs, blocks, blocks[0, :, :16].mean(1).astype(np.int64))

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class Near:
    """Candidates. An entry names a hash: entry e is hash e % PRINTS of picture e // PRINTS."""

    one: Ints
    other: Ints
    bits: Ints
    """In how many the hashes differ."""
    far: Floats
    """How unlike the two pictures are, in grey levels."""

    @classmethod
    def none(cls) -> Near:
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, empty, empty.astype(np.float32))

    @property
    def pair(self) -> Ints:
        """One number for each two pictures, whichever asked."""
        one, other = self.one // PRINTS, self.other // PRINTS
        return np.minimum(one, other) << 32 | np.maximum(one, other)

    def take(self, which: npt.NDArray[np.bool_] | Ints) -> Near:
        return Near(self.one[which], self.other[which], self.bits[which], self.far[which])


def candidates(gallery: Gallery, piece: tuple[int, int], part: int = 0, cut: int = 0, wanted: Callable[[Near], Near] = lambda near: near) -> Near:
    """The candidates that the buckets of one piece make, or part `part` of 2^cut of its buckets; `wanted` takes those that are. Where there are very many,
    the nearest of them."""
    found, held = [Near.none()], 0
    for block in _joined(gallery, piece, part, cut):
        near = wanted(block)
        found.append(near)
        held += len(near.one)
        if held > 16 * BLOCK:
            found = [nearest(together(found))]
            held = len(found[0].one)
    return together(found)


def together(parts: Sequence[Near]) -> Near:
    """All of them."""
    one, other, bits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("one", "other", "bits"))
    return Near(one, other, bits, np.concatenate([part.far for part in parts]))


def nearest(near: Near) -> Near:
    """Of each pair the WAYS in which the hashes agree best, and pairs only with one of the NEAREST of either picture."""
    near = ways(near)
    pair, far, counts = pairs(near)
    kept = among_nearest(pair >> 32, pair, far) | among_nearest(pair & 0xFFFFFFFF, pair, far)
    return near.take(np.repeat(kept, counts))


def ways(near: Near) -> Near:
    """Of each pair the WAYS in which the hashes agree best, in the order of the pairs, the best way first."""
    near = near.take(np.lexsort((near.other, near.one, near.bits, near.pair)))
    again = (np.diff(near.one, prepend=-1) == 0) & (np.diff(near.other, prepend=-1) == 0)
    near = near.take(~again)
    return near.take(_rank(near.pair) < WAYS)


def pairs(near: Near) -> tuple[Ints, Floats, Ints]:
    """Of what `ways` gives the pairs, how far apart each is by its best way, and how many ways it has."""
    pair, first, counts = np.unique(near.pair, return_index=True, return_counts=True)
    return pair, near.far[first], counts


def among_nearest(picture: Ints, pair: Ints, far: Floats) -> npt.NDArray[np.bool_]:
    """Whether each pair is one of the NEAREST of this picture of it, among the pairs in which it stands on this side."""
    kept = np.zeros(len(pair), bool)
    order = np.lexsort((pair, far, picture))
    kept[order[_rank(picture[order]) < NEAREST]] = True
    return kept


def _joined(gallery: Gallery, piece: tuple[int, int], part: int, cut: int) -> Iterator[Near]:
    """Pairs by one piece of the hashes, in blocks of about BLOCK. Every hash asks, the unmirrored ones answer; a pair may come several times."""
    width = piece[1]
    low, count = part << (width - cut), 1 << (width - cut)
    asked, asked_keys = _entries(gallery.hashes, PRINTS, piece, part, cut, near=True)
    known, keys = _entries(gallery.hashes, len(WINDOWS), piece, part, cut, near=False)
    sortable = keys << 8 | gallery.bright[known // PRINTS]
    order = np.argsort(sortable, kind="stable")
    sortable, known = sortable[order], known[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys - low, minlength=count))])
    for flip in (0, *(1 << bit for bit in range(width))):
        bucket = asked_keys ^ flip
        here = bucket >> (width - cut) == part
        asking, bucket = (asked, bucket) if here.all() else (asked[here], bucket[here])
        begin, end = starts[bucket - low], starts[bucket - low + 1]
        full = np.flatnonzero(end - begin > CROWD)
        wanted = bucket[full] << 8 | gallery.bright[asking[full] // PRINTS]
        left, right = np.searchsorted(sortable, wanted), np.searchsorted(sortable, wanted, "right")
        middle = left + asking[full] // PRINTS % np.maximum(right - left, 1)  # of equally bright ones not all the same
        begin[full] = np.clip(middle - CROWD // 2, begin[full], end[full] - CROWD)
        end[full] = begin[full] + CROWD
        for rows, places in _expanded(begin, end):
            yield _close(asking[rows], known[places], gallery)


def _entries(hashes: Hashes, upto: int, piece: tuple[int, int], part: int, cut: int, near: bool) -> tuple[Ints, Ints]:
    """The entries of the first `upto` hashes of each picture, without those that a picture has twice, and their keys; only those with a key in this part of
    the buckets, or, `near`, with one that a flip of a bit brings there."""
    first, width = piece
    entries, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(hashes), ROWS):
        some = np.asarray(hashes[start : start + ROWS, :upto])
        order = np.argsort(some, axis=1, kind="stable")
        ordered = np.take_along_axis(some, order, 1)
        again = np.concatenate([np.zeros((len(some), 1), bool), ordered[:, 1:] == ordered[:, :-1]], 1)
        key = ((ordered >> np.uint64(first)) & np.uint64((1 << width) - 1)).astype(np.int64)
        off = np.bitwise_count((key >> (width - cut)) ^ part)
        kept = ~again & (off <= int(near))
        entry = (start + np.arange(len(some))[:, None]) * PRINTS + order
        where = np.argsort(entry[kept])
        entries.append(entry[kept][where])
        keys.append(key[kept][where])
    return np.concatenate(entries), np.concatenate(keys)


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


def _close(one: Ints, other: Ints, gallery: Gallery) -> Near:
    """Those that differ in at most BITS bits and by at most FAR grey levels."""
    flat = gallery.hashes.reshape(-1)
    bits = np.bitwise_count(flat[one] ^ flat[other]).astype(np.int64)
    kept = (one // PRINTS != other // PRINTS) & (bits <= BITS)
    one, other, bits = one[kept], other[kept], bits[kept]
    mirrored = (one % PRINTS >= len(WINDOWS)).astype(np.int64)
    gaps = np.abs(gallery.blocks[mirrored, one // PRINTS] - gallery.blocks[0, other // PRINTS])
    far = np.maximum(gaps[:, :16].mean(1), 2 * gaps[:, 16:].mean(1))
    return Near(one, other, bits, far).take(far <= FAR)


def _rank(ordered: Ints) -> Ints:
    """The place of each value among its equals, which stand together."""
    fresh = np.diff(ordered, prepend=-1) != 0
    places = np.arange(len(ordered))
    return places - np.maximum.accumulate(np.where(fresh, places, 0))
