"""A small ONNX network as bytes, written by the fields of onnx.proto: it gives sigmoid(mean colour in BGR, 0 to 255, times weights plus bias)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOAT, INTS = 1, 7


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message: a number, or text, bytes or a message with its length before it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + attributes)


def tensor(name: str, values: np.ndarray) -> bytes:
    return field(5, b"".join(field(1, size) for size in values.shape) + field(2, FLOAT) + field(8, name) + field(9, values.astype("<f4").tobytes()))


def value(number: int, name: str, shape: list[int | str]) -> bytes:
    sizes = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(number, field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, sizes))))


def write_tagger(folder: Path, tags: list[tuple[str, int]], weights: np.ndarray, bias: np.ndarray, side: int = 16, batch: int | str = "N") -> Path:
    """model.onnx and selected_tags.csv in SmilingWolf's layout. `weights` are (3, tags): of blue, green and red."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = field(5, field(1, "axes") + field(20, INTS) + field(8, 1) + field(8, 2))
    keep = field(5, field(1, "keepdims") + field(20, 2) + field(3, 0))
    graph = node("ReduceMean", ["input"], "mean", axes + keep) + node("MatMul", ["mean", "w"], "product") + node("Add", ["product", "b"], "sum")
    graph += node("Sigmoid", ["sum"], "output") + field(2, "tagger") + tensor("w", weights) + tensor("b", bias)
    graph += value(11, "input", [batch, side, side, 3]) + value(12, "output", [batch, weights.shape[1]])
    (folder / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    lines = ["tag_id,name,category,count", *(f"{number},{name},{category},1" for number, (name, category) in enumerate(tags))]
    (folder / "selected_tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
