"""Pictures read and decoded ahead of the one who needs them: in order, on a few threads, never more than a few at once in memory.

What lies in shards is read in the order of the shards, in large pieces, so that a disk or a network is read from front to back.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from darkroom.data.dataset import Photo
from darkroom.data.member import Member, follows, read_piece

Item = TypeVar("Item")
THREADS = 4  # that decode, at most
PIECES = 2  # pieces of shards that are held at once: the one that is decoded from, and the next


def in_order_of_shards(items: Sequence[Item], photo: Callable[[Item], Photo]) -> list[Item]:
    """The same items as their pictures lie, shard by shard; those of folders behind, as they came."""

    def place(item: Item) -> tuple[bool, str, int]:
        path = photo(item).path
        return (False, path.archive.address, path.offset) if isinstance(path, Member) else (True, "", 0)

    return sorted(items, key=place)


def stretch(items: Sequence[Item], rank: int, size: int) -> Sequence[Item]:
    """Part `rank` of `size` parts, each in one piece: what lies together is read by one process."""
    return items[len(items) * rank // size : len(items) * (rank + 1) // size]


def ahead(items: Sequence[Item], photo: Callable[[Item], Photo], cut: Callable[[Item, Image.Image], Image.Image]) -> Iterator[tuple[Item, Image.Image]]:
    """Each item with its picture, decoded and cut, in order. Raises DatasetError at the item whose picture cannot be read."""
    threads = min(THREADS, os.cpu_count() or 1)

    def made(item: Item, content: bytes | None) -> Image.Image:
        return cut(item, photo(item).read(content))

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Item, Future[Image.Image]]] = deque()
        try:
            for item, content in _contents(items, photo, reader):
                waiting.append((item, pool.submit(made, item, content)))
                if len(waiting) > 2 * threads:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _next(waiting: deque[tuple[Item, Future[Image.Image]]]) -> tuple[Item, Image.Image]:
    item, future = waiting.popleft()
    return item, future.result()


def _contents(items: Sequence[Item], photo: Callable[[Item], Photo], reader: ThreadPoolExecutor) -> Iterator[tuple[Item, bytes | None]]:
    """Each item with its picture's bytes; None for a file, which is read where it is decoded. While one piece of a shard is taken from, the next is read."""
    coming: deque[tuple[list[Item], Future[list[bytes]] | None]] = deque()
    for piece in _pieces(items, photo):
        members = [path for item in piece if isinstance(path := photo(item).path, Member)]
        coming.append((piece, reader.submit(read_piece, members) if members else None))
        if len(coming) == PIECES:
            yield from _taken(*coming.popleft())
    for piece, contents in coming:
        yield from _taken(piece, contents)


def _taken(piece: list[Item], contents: Future[list[bytes]] | None) -> Iterator[tuple[Item, bytes | None]]:
    return zip(piece, contents.result() if contents else [None], strict=True)


def _pieces(items: Sequence[Item], photo: Callable[[Item], Photo]) -> Iterator[list[Item]]:
    """The items in groups whose pictures are read at once; a file is read by itself."""
    piece: list[Item] = []
    members: list[Member] = []
    for item in items:
        path = photo(item).path
        if piece and not (isinstance(path, Member) and members and follows(members, path)):
            yield piece
            piece, members = [], []
        piece.append(item)
        members += [path] if isinstance(path, Member) else []
    if piece:
        yield piece
