"""A file as far as its header: enough to list runs and to look into models, whose weights stay in the store."""

from __future__ import annotations

from pathlib import Path

from darkroom.places.store import Seen, fetch, read_range

WORDS = (".json", ".jsonl", ".toml", ".txt", ".csv", ".md", ".yaml")
"""Endings of what is read whole."""
FIRST = 1 << 16
"""Bytes asked for at first: most headers of adapters are shorter."""
LONGEST = 100 << 20
"""Bytes of a header that are believed (safetensors' own limit)."""


def fetch_header(address: str, target: Path, expected: Seen) -> None:
    """Texts whole; of a .safetensors its header, the rest a hole of the true length; of any other big file a hole. Raises PlaceError."""
    if target.suffix in WORDS or expected.size <= FIRST:
        fetch(address, target, expected)
        return
    data = b""
    if target.suffix == ".safetensors":
        data = read_range(address, 0, FIRST)
        length = 8 + int.from_bytes(data[:8], "little")
        if FIRST < length <= min(LONGEST, expected.size):
            data += read_range(address, FIRST, length)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(data)
    with part.open("r+b") as file:
        file.truncate(expected.size)
    part.replace(target)
