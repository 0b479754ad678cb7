"""A cache that several machines share: DARKROOM_CACHE may be an address. Read through, written behind.

Files lie below this machine's own cache as always. What is missing here and listed there is fetched; what is made here is put there in the background. Names
are hashes of everything the content depends on, so that two machines which make the same file make the same bytes, and nobody waits for anybody. The store
is listed once a process: what another machine makes after that is made twice.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from darkroom.errors import DarkroomError
from darkroom.files import cache_folder, shared_cache
from darkroom.places.address import join
from darkroom.places.store import Seen, fetch, listing, parallel, put

WAITING = 64
"""Puts that may wait: who makes files faster than the store takes them waits for it."""


def bring(paths: Iterable[Path]) -> None:
    """Those of these files of the cache that are not here and that the shared cache has. Raises PlaceError where that cannot even be listed."""
    if shared := _shared():
        shared.bring([path for path in paths if not path.is_file()])


def offer(path: Path) -> None:
    """A file of the cache that was made here to the shared one, in the background. What cannot be put costs the others time, never this run."""
    if shared := _shared():
        shared.offer(path)


def settle() -> None:
    """Wait until everything offered is there, and say on standard error what could not be put."""
    if shared := _shared():
        shared.settle()


def _shared() -> Shared | None:
    address = shared_cache()
    return _open(address, cache_folder()) if address else None


@functools.lru_cache(maxsize=4)
def _open(address: str, folder: Path) -> Shared:
    shared = Shared(address, folder)
    atexit.register(shared.settle)
    return shared


class Shared:
    """One shared cache, seen from this process."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        self._there: dict[str, Seen] | None = None
        self._lock, self._room = threading.Lock(), threading.BoundedSemaphore(WAITING)
        self._pool = ThreadPoolExecutor(4)
        self._put: set[Future[None]] = set()
        self._failed = list[str]()

    def bring(self, paths: list[Path]) -> None:
        """What is listed there, several at a time. One that cannot be had is made anew by whoever wants it."""
        with self._lock:
            if self._there is None and paths:
                self._there = listing(self.address)
        wanted = [path for path in paths if self._name(path) in (self._there or {})]
        if wanted:
            with ThreadPoolExecutor(parallel(self.address)) as pool:
                list(pool.map(self._fetch, wanted))

    def _fetch(self, path: Path) -> None:
        name = self._name(path)
        with contextlib.suppress(DarkroomError):
            fetch(join(self.address, name), path, (self._there or {}).get(name))

    def offer(self, path: Path) -> None:
        if self._name(path) in (self._there or {}):
            return
        self._room.acquire()
        one = self._pool.submit(self._offer, path)
        with self._lock:
            self._put = {each for each in self._put if not each.done()} | {one}

    def _offer(self, path: Path) -> None:
        try:
            put(path, join(self.address, self._name(path)))
        except (DarkroomError, OSError) as error:
            self._failed.append(str(error))
        finally:
            self._room.release()

    def settle(self) -> None:
        with self._lock:
            waiting, self._put = list(self._put), set()
        for one in waiting:
            one.result()
        if self._failed:
            sys.stderr.write(f"{self.address}: {len(self._failed)} files could not be put into the shared cache, the first: {self._failed[0]}\n")
            self._failed.clear()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
