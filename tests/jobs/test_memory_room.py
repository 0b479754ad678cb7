"""How much memory a device has, without torch: asked of a stand-in for nvidia-smi, which says what it was asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom.jobs.memory_room import memory_mib


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    memory_mib.cache_clear()
    yield
    memory_mib.cache_clear()


def stand_in(folder: Path, says: str, code: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$1" > "{folder}/asked"\necho "{says}"\nexit {code}\n')
    program.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_a_card_is_asked_by_the_number_it_has_for_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    stand_in(tmp_path, "143771")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    assert memory_mib("cuda:1") == 143771 and (tmp_path / "asked").read_text().strip() == "--id=GPU-abc"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert memory_mib("cuda:2") == 143771 and (tmp_path / "asked").read_text().strip() == "--id=2"


def test_what_nobody_tells_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory_mib("cuda:0") is None and memory_mib("tpu") is None and memory_mib("cuda:x") is None
    stand_in(tmp_path, "[N/A]")
    assert memory_mib("cuda:7") is None
    stand_in(tmp_path, "1000", 9)
    assert memory_mib("cuda:8") is None


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="this system has no sysconf")
def test_main_memory() -> None:
    assert memory_mib("cpu") == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
