"""Which pictures are the same one again: copied, rescaled, recompressed, mirrored, shifted or cut by a twentieth.

Two steps. Pictures whose hashes differ in few bits are candidates (`near`), and a candidate is a pair only if `likeness.score` says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from darkroom.data.likeness import score
from darkroom.data.near import NEAREST, PIECES, Gallery, Hashes, Ints, Near, candidates, nearest, together
from darkroom.data.prints import PRINTS

TURNS = 3  # of comparing those that stand for others

Progress = Callable[[int, int], None]


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
    """(pairs, 2) numbers of equal pictures, the smaller first, from (n, PRINTS) hashes and (n, THUMB_BYTES) thumbnails, all in memory.

    A larger `same` calls more alike equal. Without `among` only pairs with the last picture are wanted.
    """
    gallery, found = Gallery.of(hashes, thumbs), list[Near]()

    def with_the_last(near: Near) -> Near:
        return near.take(near.pair & 0xFFFFFFFF == len(hashes) - 1)

    for done, piece in enumerate(PIECES):
        progress(done, len(PIECES) + 1)
        found.append(candidates(gallery, piece) if among else candidates(gallery, piece, wanted=with_the_last))
    near = nearest(together(found)) if among else together(found)
    progress(len(PIECES), len(PIECES) + 1)
    equal = equal_pairs(gallery, near, same)
    progress(len(PIECES) + 1, len(PIECES) + 1)
    return equal


def equal_pairs(gallery: Gallery, near: Near, same: float) -> Ints:
    """(pairs, 2) sorted numbers of the candidates that are the same picture."""
    one, other = near.one // PRINTS, near.other // PRINTS
    equal = score(gallery.thumbs, one, other, near.one % PRINTS, near.other % PRINTS) < same
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
