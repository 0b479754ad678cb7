"""The header of a safetensors file: names, shapes and metadata, checked before anything is allocated. Tensors are read one by one.

The format (huggingface/safetensors, README): 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}}, then the bytes of
the tensors without holes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from safetensors import SafetensorError, safe_open

from darkroom.errors import AdapterError
from darkroom.fence import hand_over
from darkroom.files import sha256_file
from darkroom.sdxl.model import PICKLES

MOST = 100_000_000
"""Bytes of a header that the safetensors library accepts."""
DTYPES = {
    "F64": (torch.float64, 8), "F32": (torch.float32, 4), "F16": (torch.float16, 2), "BF16": (torch.bfloat16, 2),
    "F8_E4M3": (torch.float8_e4m3fn, 1), "F8_E5M2": (torch.float8_e5m2, 1), "I64": (torch.int64, 8), "I32": (torch.int32, 4), "I16": (torch.int16, 2),
    "I8": (torch.int8, 1), "U8": (torch.uint8, 1), "BOOL": (torch.bool, 1),
}  # fmt: skip
PICKLE = "a pickle, which can run code when it is opened, and is refused unread. Convert it to .safetensors where you trust it"
MAGIC = {
    b"PK\x03\x04": PICKLE,
    b"\x80": PICKLE,
    b"GGUF": "a GGUF file, which holds quantized models. An adapter is a .safetensors file",
    b"version https://git-lfs": "a git-lfs pointer and not the file itself. Fetch it with `git lfs pull`",
    b"<": "a web page and not the file itself: the site wanted a login. Fetch it again, logged in",
}


@dataclass(frozen=True)
class Entry:
    """One tensor as the header names it; `begin` and `end` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Header:
    """What a safetensors file says of itself. `entries` keep the file's own order."""

    path: Path
    size: int
    start: int
    entries: dict[str, Entry]
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Header:
        """Read and check the header alone. Raises AdapterError for a pickle, what is missing, truncated or lies about itself."""
        if path.suffix.lower() in PICKLES:
            raise AdapterError(f"{path}: is {PICKLE}.")
        if not path.is_file():
            raise AdapterError(f"{path}: there is no such file. An adapter is a .safetensors file.")
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                text = _text(path, size, file)
        except OSError as error:
            raise AdapterError(f"{path}: cannot be read: {error.strerror}. Check its permissions.") from None
        facts = _parse(path, text)
        metadata = _metadata(path, facts.pop("__metadata__", {}))
        entries = {name: _entry(path, name, fact) for name, fact in facts.items()}
        start = 8 + len(text)
        _check_names(path, entries)
        _check_layout(path, entries, size - start)
        return cls(path, size, start, entries, metadata)

    @property
    def names(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self.entries)

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the whole file."""
        return sha256_file(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, unread."""
        return self.entries[name].shape

    def meta(self, name: str) -> torch.Tensor:
        """A tensor of this shape and dtype without memory, to reason about what is not read."""
        entry = self.entries[name]
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype][0], device="meta")

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor. Raises AdapterError where it holds NaN or infinity."""
        return dict(self.tensors([name]))[name]

    def tensors(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
        """Read the named tensors (None: all) one by one as (name, tensor). Raises AdapterError for NaN or infinity."""
        try:
            with safe_open(hand_over(self.path), "pt") as opened:
                for name in self.names if names is None else names:
                    yield name, _finite(self.path, name, opened.get_tensor(name))
        except (SafetensorError, OSError) as error:
            _broken(self.path, f"it cannot be read ({error})")


def _broken(path: Path, why: str) -> NoReturn:
    raise AdapterError(f"{path}: is not a whole safetensors file: {why}. Fetch or train it again.")


def _text(path: Path, size: int, file: BinaryIO) -> bytes:
    """The bytes of the JSON. A pickle's first bytes could be a header's length, but then no "{" follows."""
    first = file.read(32)
    if first[8:9] != b"{":
        for magic, what in MAGIC.items():
            if first.startswith(magic):
                raise AdapterError(f"{path}: is {what}.")
    if size < 10:
        _broken(path, f"it has {size} bytes")
    length = int.from_bytes(first[:8], "little")
    if length > min(MOST, size - 8):
        _broken(path, f"its header claims {length:,} bytes, and the file has {size:,}" if length > size - 8 else f"its header of {length:,} bytes is too long")
    file.seek(8)
    text = file.read(length)
    if len(text) != length:
        _broken(path, "it ends within its header")
    return text


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            _broken(path, f"its header names {twice!r} twice")
        return found

    try:
        facts = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        _broken(path, "its header is not JSON")
    if not isinstance(facts, dict):
        _broken(path, f"its header is a {type(facts).__name__} and not an object")
    return facts


def _metadata(path: Path, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        _broken(path, "its metadata is not text by name")
    return found


def _entry(path: Path, name: str, fact: Any) -> Entry:
    if not isinstance(fact, dict) or fact.keys() != {"dtype", "shape", "data_offsets"}:
        _broken(path, f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = fact["dtype"], fact["shape"], fact["data_offsets"]
    if dtype not in DTYPES:
        _broken(path, f"{name!r} has the dtype {dtype!r}, which is none of {', '.join(DTYPES)}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        _broken(path, f"{name!r} has the shape {shape!r} at {offsets!r}, which are not counts")
    entry = Entry(dtype, tuple(shape), *offsets)
    if entry.end - entry.begin != prod(entry.shape) * DTYPES[dtype][1]:
        _broken(path, f"{name!r} takes {entry.end - entry.begin:,} bytes, and {dtype} {entry.shape} wants {prod(entry.shape) * DTYPES[dtype][1]:,}")
    return entry


def _counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(type(number) is int and 0 <= number < 1 << 62 for number in value)


def _check_names(path: Path, entries: dict[str, Entry]) -> None:
    seen: dict[str, str] = {}
    for name in entries:
        if (other := seen.setdefault(name.lower(), name)) != name:
            _broken(path, f"{other!r} and {name!r} differ in upper and lower case alone, and programs would take one or the other")


def _check_layout(path: Path, entries: dict[str, Entry], room: int) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != at:
            _broken(path, f"{name!r} {'overlaps the tensor before it' if entry.begin < at else f'leaves a hole of {entry.begin - at:,} bytes before it'}")
        at = entry.end
    if at != room:
        _broken(path, f"its tensors take {at:,} bytes, and {room:,} are there" + (": it is cut short" if at > room else ""))


def _finite(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    wide = tensor.float() if tensor.element_size() == 1 and tensor.is_floating_point() else tensor
    if not torch.isfinite(wide).all():
        raise AdapterError(f"{path}: {name} holds NaN or infinity. The training that made it diverged: use an earlier checkpoint.")
    return tensor
