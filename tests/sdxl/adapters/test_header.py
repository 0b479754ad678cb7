"""Headers: whole and true, or refused before anything is allocated."""

import contextlib
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.header import Header

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def wrote(path: Path, header: object, body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


def test_a_header_is_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6, dtype=torch.float16).view(2, 3), "a": torch.tensor(2.0), "c": torch.zeros(0, 4, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "x.safetensors", {"ss_steps": "7"})
    header = Header.read(tmp_path / "x.safetensors")
    assert header.names == ["a", "b", "c"] and header.metadata == {"ss_steps": "7"} and header.shape("b") == (2, 3)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors()} == {name: (t.dtype, t.shape) for name, t in tensors.items()}
    assert torch.equal(header.tensor("b"), tensors["b"]) and header.meta("b").shape == (2, 3) and header.meta("b").is_meta


def test_two_gigabytes_open_at_once(tmp_path: Path) -> None:
    """In a process of its own: how much memory it took at most, and how long of a processor."""
    rows = (2 << 30) // 4 // 1024
    path = wrote(tmp_path / "big.safetensors", {"w": {"dtype": "F32", "shape": [rows, 1024], "data_offsets": [0, rows * 4096]}})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + rows * 4096)
    assert path.stat().st_size > 2 << 30
    program = (
        "import resource, sys, time; from pathlib import Path; from darkroom.sdxl.adapters.header import Header\n"
        "before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        "assert Header.read(Path(sys.argv[1])).shape('w')[1] == 1024\n"
        "print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    seconds, kilobytes = map(float, subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout.split())
    assert seconds < 1 and kilobytes < 100_000


WRONG = {
    "empty": (b"", "0 bytes"),
    "length beyond the file": ((1 << 40).to_bytes(8, "little") + b"{}", "claims 1,099,511,627,776"),
    "not JSON": ((4).to_bytes(8, "little") + b"{nop", "not JSON"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "list"),
    "deep": ((200_000).to_bytes(8, "little") + b'{"a":' * 40_000, "not JSON"),
    "a web page": (b"<!DOCTYPE html><html>" + b" " * 50, "web page"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs"),
    "a pickle by its content": (pickle.dumps({"a": list(range(50))}, protocol=2), "pickle"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_safetensors_file_is_refused(case: str, tmp_path: Path) -> None:
    content, reason = WRONG[case]
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match=reason):
        Header.read(tmp_path / "x.safetensors")


def test_a_header_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = wrote(tmp_path / "x.safetensors", b"{", length=200_000_000)
    with path.open("r+b") as file:
        file.truncate(300_000_000)
    with pytest.raises(AdapterError, match="too long"):
        Header.read(path)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.safetensors", "w") as file:
        file.writestr("archive/data.pkl", b"x" * 100)
    for name in ("x.safetensors", "x.pt", "x.ckpt", "x.BIN"):
        with pytest.raises(AdapterError, match=r"pickle.*Convert it to \.safetensors"):
            Header.read(tmp_path / name)
    with pytest.raises(AdapterError, match="no such file"):
        Header.read(tmp_path / "y.safetensors")


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """0x80 0x02 begins a pickle, and a header of 640 bytes too."""
    text = json.dumps({"a": ENTRY}).encode()
    header = Header.read(wrote(tmp_path / "x.safetensors", text + b" " * (640 - len(text)), bytes(8)))
    assert header.path.read_bytes()[:2] == b"\x80\x02" and header.names == ["a"]


LIES = {
    "duplicate": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "twice"),
    "duplicate within": (b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}', "twice"),
    "case": ({"a": ENTRY, "A": ENTRY | {"data_offsets": [8, 16]}}, "upper and lower case"),
    "dtype": ({"a": ENTRY | {"dtype": "F31"}}, "F31"),
    "negative": ({"a": ENTRY | {"shape": [-2]}}, "not counts"),
    "fraction": ({"a": ENTRY | {"shape": [2.0]}}, "not counts"),
    "truth": ({"a": ENTRY | {"shape": [True, 2]}}, "not counts"),
    "huge": ({"a": ENTRY | {"shape": [1 << 40, 1 << 40]}}, "takes 8 bytes"),
    "size": ({"a": ENTRY | {"shape": [3]}}, "takes 8 bytes"),
    "backwards": ({"a": ENTRY | {"data_offsets": [8, 0]}}, "takes -8 bytes"),
    "overlap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, "overlaps"),
    "hole": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, "hole of 4"),
    "beyond": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 16]}, "c": ENTRY | {"data_offsets": [16, 24]}}, "cut short"),
    "left over": ({"a": ENTRY}, "16 are there"),
    "missing field": ({"a": {"dtype": "F32", "shape": [2]}}, "not described"),
    "odd field": ({"a": ENTRY | {"code": "x"}}, "not described"),
    "metadata": ({"a": ENTRY, "__metadata__": {"x": 3}}, "metadata"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_header_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    header, reason = LIES[case]
    with pytest.raises(AdapterError, match=reason):
        Header.read(wrote(tmp_path / "x.safetensors", header, bytes(16)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_when_read(dtype: torch.dtype, number: float, tmp_path: Path) -> None:
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, number]).to(dtype)}, tmp_path / "x.safetensors")
    header = Header.read(tmp_path / "x.safetensors")
    assert torch.equal(header.tensor("good"), torch.ones(2))
    with pytest.raises(AdapterError, match="bad holds NaN"):
        header.tensor("bad")


@given(data=st.data())
def test_a_file_cut_or_changed_anywhere_is_refused_or_equal(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = save({"a": torch.arange(4.0), "b": torch.arange(3.0)}, {"k": "v"})
    path = tmp_path_factory.mktemp("cut") / "x.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(AdapterError):
            Header.read(path)
        return
    at = data.draw(st.integers(0, len(whole) - 29))  # before the tensors
    path.write_bytes(whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :])
    with contextlib.suppress(AdapterError):
        assert all(tensor.numel() in (3, 4) for _, tensor in Header.read(path).tensors())
