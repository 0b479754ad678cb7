"""One training of a run folder at a time: two would write over each other's log and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkroom.errors import RunError

PATIENCE = 10.0
"""Seconds that one waits: processes whose launcher was killed finish their step and save."""


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Within the block no other process trains this run, on this machine or, where a disk that is shared knows locks, on another. A killed one lets go.

    The lock is the system's, on recipe.toml, which is written once. Where there is none (Windows, a disk without locks, a file that is not the person's)
    nothing is held. Raises RunError.
    """
    try:
        import fcntl

        file = (run / "recipe.toml").open("r+b")  # NFS gives a lock only on what could be written
    except (ImportError, OSError):
        yield
        return
    deadline = time.monotonic() + PATIENCE
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunError(f"{run}: another process is training this run. Wait until it has ended, or stop it; then go on.") from None
                time.sleep(0.1)
            except OSError:
                break
        yield
