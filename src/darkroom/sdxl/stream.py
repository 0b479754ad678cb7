"""Write a safetensors file tensor by tensor: the header first, then each tensor as it comes. One tensor at a time is in memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from darkroom.errors import ModelError
from darkroom.files import atomic

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
HASH = "modelspec.hash_sha256"
ALIGNED = 64
"""Bytes. A matrix mapped at another multiple is multiplied by another path of the processor, and differs from its copy in the last bit."""


def stream(
    path: Path,
    entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensor: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
    hashed: bool = True,
) -> None:
    """Write `tensor(key)` of every entry (dtype, shape) atomically; `hashed` adds the SHA-256 of all that follows the header, as modelspec wants it.

    Equal entries, tensors and metadata give equal bytes. Names are sorted in the header; in the data the few tensors whose length is no multiple
    of 64 come last, so that all others are aligned. Raises ModelError where a number is NaN, infinite, or too large for its dtype, and
    OutputError where the place cannot be written.
    """
    order = sorted(entries, key=lambda key: (_length(*entries[key]) % ALIGNED != 0, -entries[key][0].itemsize, key))
    facts = dict(metadata) | ({HASH: "0x" + "0" * 64} if hashed else {})
    head = _header(entries, order, facts)
    digest = hashlib.sha256()
    with atomic(path) as part, part.open("wb") as file:
        file.write(head)
        for key in order:
            dtype, shape = entries[key]
            data = _bytes(path, key, tensor(key), dtype, shape)
            digest.update(data)
            file.write(data)
        if hashed:  # the hash is as long as its stand-in: nothing moves
            file.seek(0)
            file.write(_header(entries, order, facts | {HASH: f"0x{digest.hexdigest()}"}))


def _header(entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], order: list[str], metadata: Mapping[str, str]) -> bytes:
    offsets, end = {}, 0
    for key in order:
        dtype, shape = entries[key]
        start, end = end, end + _length(dtype, shape)
        offsets[key] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **dict(sorted(offsets.items()))}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _length(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _bytes(path: Path, key: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> memoryview:
    assert tuple(tensor.shape) == shape, f"{key}: {tuple(tensor.shape)} was announced as {shape}"
    held = tensor.detach().to("cpu", dtype).contiguous()
    if dtype.is_floating_point and not _finite(held):
        if _finite(tensor):
            raise ModelError(f"{path}: {key} holds {tensor.abs().max().item():g}, and float16 ends at 65504. Write it as bf16 or fp32.")
        raise ModelError(f"{path}: {key} holds NaN or infinity, and was not written. The model is broken: use an earlier checkpoint.")
    data: memoryview = held.reshape(-1).view(torch.uint8).numpy().data
    return data


def _finite(tensor: torch.Tensor) -> bool:
    """By the extremes, which propagate NaN: 50 times as fast as looking at each number in turn."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())
