"""A file is whole or not there, a hash is the hash everybody else computes, and a place that cannot be written is said so."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import OutputError
from darkroom.files import atomic, cache_folder, sha256_bytes, sha256_file, sha256_files, writable_folder, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.bin"
    with atomic(path) as part:
        assert part.parent == path.parent and not path.exists()
        part.write_bytes(b"first")
    with atomic(path) as part:
        part.write_bytes(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: Any) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    expected = OutputError if isinstance(error, OSError) else error
    with pytest.raises(expected) as caught, atomic(path) as part:
        part.write_text("half of the new", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"], "a part was left behind"
    assert expected is not OutputError or "No space left" in str(caught.value)


def test_a_killed_process_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom darkroom.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as part:\n    part.write_text('half')\n    print('now', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "now\n"
        writer.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert path.read_text(encoding="utf-8") == "old"


def test_two_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    script = (
        "import sys\nfrom pathlib import Path\nfrom darkroom.files import write_text\nfor _ in range(60): write_text(Path(sys.argv[1]), sys.argv[2] * 100_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), letter]) for letter in "ab"]
    seen, stop = set(), time.monotonic() + 120
    while any(writer.poll() is None for writer in writers) and time.monotonic() < stop:
        if path.exists():
            text = path.read_text(encoding="utf-8")
            seen.add((len(text), len(set(text))))
    assert [writer.wait(120) for writer in writers] == [0, 0]
    assert seen <= {(100_000, 1)}, "a reader saw half a file or a mixture"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_like_any_new_file(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "x")
        assert os.umask(mask) == mask, "the umask of the process was changed"
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    """Works for root too, who may write anywhere: a file is no folder."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"x\.txt: cannot be written"):
        write_text(tmp_path / "file" / "x.txt", "")
    with pytest.raises(OutputError, match=r"file.*cannot be written"):
        writable_folder(tmp_path / "file" / "inner")
    with pytest.raises(OutputError, match=r"file: cannot be written"):
        writable_folder(tmp_path / "file")


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        write_text(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder"]


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert writable_folder(folder) == folder == writable_folder(folder)
    assert names(folder) == []


def test_text_is_utf8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "1\nзwei\r\n🐈\n")
    assert (tmp_path / "a.txt").read_bytes() == "1\nзwei\r\n🐈\n".encode()


def test_json_can_be_read_by_everybody(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "ü": "🐈"}
    write_json(tmp_path / "a.json", value | {"path": Path("x")})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value | {"path": "x"}
    assert "🐈" in text and text.endswith("}\n") and "\n  " in text


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_json_has_no_infinity(tmp_path: Path, number: float) -> None:
    """RFC 8259, section 6: numbers such as Infinity and NaN are not permitted. A browser's JSON.parse and Go refuse the whole file."""

    def refuse(word: str) -> None:
        pytest.fail(f"wrote {word}, which is not JSON")

    try:
        write_json(tmp_path / "a.json", {"effect": number})
    except ValueError:
        return  # refusing is right too
    json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_hashes_are_sha256() -> None:
    """The example of FIPS 180-2, B.1."""
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("size", [0, 1, (1 << 22) - 1, 1 << 22, (1 << 22) + 1])
def test_a_file_read_in_pieces_has_the_hash_of_the_whole(tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "a").write_bytes(data[:size])
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data[:size]).hexdigest()


@given(st.permutations(["a", "b/c", "b/d", "e"]))
def test_the_hash_of_files_does_not_depend_on_their_order(tmp_path_factory: pytest.TempPathFactory, order: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "hashed"
    (root / "b").mkdir(parents=True, exist_ok=True)
    for name in order:
        (root / name).write_text(name, encoding="utf-8")
    assert sha256_files([root / name for name in order], root) == sha256_files([root / name for name in sorted(order)], root)


def test_the_hash_of_files_sees_names_and_contents(tmp_path: Path) -> None:
    def of(**contents: str) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        for name, text in contents.items():
            (root / name).write_text(text, encoding="utf-8")
        return sha256_files(root.iterdir(), root)

    assert of(a="1", b="2") == of(b="2", a="1"), "it must not depend on where the folder lies"
    assert len({of(a="1", b="2"), of(a="2", b="1"), of(a="1", c="2"), of(a="1"), of(a="12", b=""), of()}) == 6


def test_the_cache_can_be_put_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("DARKROOM_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "darkroom"
