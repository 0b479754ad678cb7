"""A file on its way: written piece by piece under a name that nobody reads. A disk that refuses ends the run; no other row would fare better."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

from darkroom.errors import OutputError


def begin(part: Path) -> FileIO:
    """Open it for writing. Raises OutputError."""
    try:
        return part.open("wb", buffering=0)
    except OSError as error:
        raise unwritable(part, error) from None


def write(file: FileIO, piece: bytes, part: Path) -> None:
    """Add a piece. Raises OutputError."""
    try:
        while piece:
            piece = piece[file.write(piece) :]
    except OSError as error:
        raise unwritable(part, error) from None


def unwritable(path: Path, error: OSError) -> OutputError:
    """Our disk, not their server."""
    return OutputError(f"{path.parent}: cannot be written: {error.strerror or error}. What was collected is kept; make room and run it again.")
