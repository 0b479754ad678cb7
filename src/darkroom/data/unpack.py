"""WebDataset shards to a dataset: our own bring back every row as it was, those of other programs their pictures, captions and JSON.

What a shard may hold, and what is refused, is samples.py's; nothing is written outside the dataset's folder, and nothing over what is there.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from darkroom.data.adopt import described
from darkroom.data.manifest import ORIGINAL, Row
from darkroom.data.samples import MASK, Sample, check_name, row_of, samples
from darkroom.errors import DatasetError, OutputError
from darkroom.files import sha256_bytes, sha256_file

__all__ = ["Sample", "samples", "unpacked"]


def unpacked(sample: Sample, shard: Path, folder: Path) -> Row | None:
    """Write the sample's picture (and mask) below the folder; its row, or None where it has no picture.

    Raises DatasetError where its row leads outside the folder, or its bytes are not what the row says; OutputError where another file is in the way.
    """
    where = f"{shard}, sample {sample.key!r}"
    row = row_of(sample, shard)
    if row is None or sample.ending is None:
        return None
    path = _place(folder, row.file, where)
    _put(path, sample.members[sample.ending])
    if row.mask:
        _put(_place(folder, row.mask, where), sample.members[MASK])
    if row.beside:
        _put(path.with_name(row.beside), f"{row.captions.get(ORIGINAL, '')}\n".encode())
    return described(path, row.but(changed=path.stat().st_mtime_ns))


def _place(folder: Path, name: str, where: str) -> Path:
    """Where a file of the dataset goes. Raises DatasetError for a name that leads elsewhere, is hidden, or is no picture's."""
    check_name(name, where)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{where}: {name!r} leads out of {folder} by a link, and nothing is written outside of it.")
    return path


def _put(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there; an equal one is left. Raises OutputError where another is in the way."""
    if path.exists():
        if sha256_file(path) != sha256_bytes(content):
            raise OutputError(f"{path}: is there already with other content, and is not written over. Unpack into another folder with --to.")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}. Choose another folder with --to.") from None
