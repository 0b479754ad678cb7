"""DARKROOM_CACHE as an address: what one machine encoded another one fetches, byte for byte; a store that fails costs time, never the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom import files
from darkroom.errors import PlaceError
from darkroom.places import shared, store


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def go(name: str) -> Path:
        shared.settle() if files.shared_cache() else None
        monkeypatch.setenv("HOME", str(tmp_path / name))
        monkeypatch.setenv("DARKROOM_CACHE", "memory://bucket/cache")
        shared._open.cache_clear()
        return files.cache_folder()

    return go


def test_an_address_leaves_the_cache_itself_here(machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine("a") == tmp_path / "a" / ".cache" / "darkroom"
    assert files.shared_cache() == "memory://bucket/cache"
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    assert (files.cache_folder(), files.shared_cache()) == (tmp_path, "")


def test_what_one_machine_encoded_another_does_not_encode(memory: Any, machine: Any, quick: Any, trainer_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from darkroom.train import cache
    from darkroom.train.feed import Feed

    trainer = trainer_for(quick)

    def encode() -> dict[str, bytes]:
        folder, feed = files.cache_folder() / "encoded", Feed(quick, trainer.plan, trainer.model, trainer.attached)
        feed.encode_all(0, 6, lambda done, total: None, trainer.crew)
        return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}

    machine("a")
    first = encode()
    shared.settle()
    assert len(first) >= 7
    assert {name.rpartition("/")[2]: memory.cat_file(name) for name in memory.store if "/encoded/" in name} == first
    machine("b")
    monkeypatch.setattr(cache, "encoded_photo", lambda *_: pytest.fail("a picture was encoded again"))
    monkeypatch.setattr(cache, "encoded_caption", lambda *_: pytest.fail("a caption was encoded again"))
    assert encode() == first


def test_a_shared_cache_that_cannot_be_listed_is_told(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine("a")
    monkeypatch.setenv("DARKROOM_CACHE", "s4://bucket")
    with pytest.raises(PlaceError, match=r"^s4://bucket: .* is not known"):
        shared.bring([folder / "encoded" / "x"])


def test_what_cannot_be_put_is_said_and_ends_nothing(memory: Any, machine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = machine("a") / "encoded" / "ab" / "x.safetensors"
    files.write_text(file, "tensors")
    monkeypatch.setattr(store, "_put", lambda *_: (_ for _ in ()).throw(PermissionError("Access Denied")))
    shared.bring([file])
    shared.offer(file)
    shared.settle()
    assert (
        "1 files could not be put into the shared cache, the first: memory://bucket/cache/encoded/ab/x.safetensors: may not be written"
        in capsys.readouterr().err
    )


def test_what_cannot_be_fetched_is_left_to_be_made(memory: Any, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/bucket/cache/encoded/ab/x.safetensors", b"tensors")
    file = machine("a") / "encoded" / "ab" / "x.safetensors"
    monkeypatch.setattr(type(memory), "get_file", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("gone")))
    shared.bring([file])
    assert not file.exists()
    monkeypatch.undo()
