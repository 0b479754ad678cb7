"""One writer of a file at a time, whichever process it is in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from darkroom.files import cache_folder, sha256_bytes

LONGEST = 60.0
"""Seconds that one waits for the others."""


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Within the block nobody else of this machine is in a block of the same path. A process that is killed leaves it.

    The lock is SQLite's, on a file of the cache folder: it holds on every system. Where the cache cannot be written, or others take longer than LONGEST,
    nothing is waited for: whoever writes looks all the same at what lies there.
    """
    place = cache_folder() / "turns" / f"{sha256_bytes(str(path.resolve()).encode())[:32]}.sqlite"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        turn = sqlite3.connect(place, timeout=LONGEST, isolation_level=None)
    except (OSError, sqlite3.Error):
        yield
        return
    with closing(turn):
        try:
            turn.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            yield
            return
        yield
        turn.execute("ROLLBACK")
