"""What was scored stays scored: one file of the cache, by content. It may be deleted at any time."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path

from darkroom.files import cache_folder
from darkroom.jobs.watch import Watcher

FILE = "scores.sqlite"
WAIT = 60.0  # seconds for another process that writes


class Store:
    """Bytes by key in SQLite: what is put is there whole after a kill, or not at all, and several processes may share it."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.Error or OSError where it cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.base = sqlite3.connect(path, timeout=WAIT)
        with self.base:
            self.base.execute("CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        row = self.base.execute("SELECT value FROM found WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def put(self, found: Mapping[str, bytes]) -> None:
        """Remember all of it at once."""
        with self.base:
            self.base.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", found.items())


def open_store(watcher: Watcher, path: Path | None = None) -> Store:
    """The cache's; a new one in place of a broken one; one in memory, and it is said, where the cache cannot be written."""
    path = path or cache_folder() / FILE
    try:
        return Store(path)
    except sqlite3.DatabaseError as error:
        if not isinstance(error, sqlite3.OperationalError):
            watcher.say(f"{path}: is damaged ({error}) and is begun anew: everything is scored again.")
            path.unlink(missing_ok=True)
            return Store(path)
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    watcher.say(f"{path}: cannot be used ({reason}): a stopped scoring will begin anew. Choose another cache with DARKROOM_CACHE.")
    return Store(Path(":memory:"))


def packed(score: float) -> bytes:
    """Eight bytes that read back equal, NaN too."""
    return struct.pack("<d", score)


def unpacked(value: bytes | None) -> float | None:
    """The score, or None where nothing was put."""
    return None if value is None else float(struct.unpack("<d", value)[0])
