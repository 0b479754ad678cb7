"""A row's file from a store, as `s3://bucket/cat.jpg`: bounded as what comes from the web is, and each failure with a reason that a summary counts by.

Only stores of objects are asked, with the keys that their own programs take. A table that says `file://`, `sftp://` or `smb://` may come from anybody.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from darkroom.data.part import begin, write
from darkroom.data.proof import Unusable
from darkroom.errors import PlaceError
from darkroom.fence import current
from darkroom.places.address import protocol
from darkroom.places.store import BLOCK, WHOLE, Seen, read_range, seen

STATUS = "stored"
REASONS = {
    "refused": ("the store refused", False), "missing": ("not in the store", False), "no bucket": ("no such bucket", False),
    "no keys": ("no keys for the store", False), "no package": ("a package is missing", False), "unreachable": ("no connection", True),
}  # fmt: skip
"""By what a PlaceError says to programs: the reason, and whether another time may bring it."""


def is_stored(address: str) -> bool:
    """Whether a row names an object of a store."""
    return "://" in address and protocol(address) in WHOLE


def bucket(address: str) -> str:
    """Whose turn it takes: so many requests at a time go to one bucket, as to one host."""
    return "/".join(address.split("/")[:3]).lower()


async def stored(address: str, to: Path, most: int) -> str:
    """Bring the object, of at most so many bytes, into the file; the status. Raises Unusable; OutputError where it cannot be written."""
    if current() is not None:
        raise Unusable("an address of a store", "a page's table is read from the web alone; `darkroom collect` on the command line takes it")
    try:
        found = await asyncio.to_thread(seen, address)
        if found is None:
            raise Unusable(*REASONS["missing"][:1], f"{address}: the bucket has no object of this name")
        if found.size > most:
            raise Unusable("too large", f"{found.size:,} bytes; at most {most:,} (--max-size)", status=STATUS)
        await _bring(address, to, found)
        if found.size > BLOCK and await asyncio.to_thread(seen, address) != found:
            raise Unusable("broken off", "it was changed while it was read", temporary=True)
    except PlaceError as error:
        reason, temporary = REASONS.get(error.why, ("the store failed", True))
        raise Unusable(reason, str(error), temporary) from None
    return STATUS


async def _bring(address: str, to: Path, found: Seen) -> None:
    with begin(to) as file:
        for start in range(0, found.size, BLOCK):
            end = min(start + BLOCK, found.size)
            piece = await asyncio.to_thread(read_range, address, start, end)
            if len(piece) != end - start:
                raise Unusable("broken off", f"{start + len(piece):,} of {found.size:,} bytes came", temporary=True)
            write(file, piece, to)
