"""What a command makes beside the file or folder that it was given: it goes to the store too, and is called by its address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom import files, places
from darkroom.errors import PlaceError
from darkroom.places.copy import Copy

pytestmark = pytest.mark.usefixtures("own_cache")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("place", ["in/x.safetensors", "in/x"])
def test_files_and_folders_beside_go_to_the_store(memory: Any, place: str) -> None:
    memory.pipe_file(f"/{place}" + ("" if place.endswith("s") else "/1.png"), b"x")
    with places.writing(f"memory://{place}") as path:
        write(path.with_name("y.json"), b"y")
        write(path.with_name("words") / "toy" / "a.safetensors", b"a")
        write(path.with_name(".half.part"), b"unfinished")
    assert {name for name in memory.store if not name.startswith(f"/{place}")} == {"/in/y.json", "/in/words/toy/a.safetensors"}


def test_what_is_beside_is_called_by_its_address(memory: Any) -> None:
    with places.writing("memory://in/x.safetensors") as path:
        assert files.told(f"{path}, {path.with_name('x-peft.safetensors')}: written") == "memory://in/x.safetensors, memory://in/x-peft.safetensors: written"
        notes = Copy.of("memory://in/x.safetensors").notes / "place.json"
        assert files.told(f"{notes}: cannot be written") == f"{notes}: cannot be written", "its own notes lie here, not there"


def test_what_was_made_beside_is_known_the_next_time_and_another_one_is_kept(memory: Any) -> None:
    memory.pipe_file("/in/x.safetensors", b"x")
    with places.writing("memory://in/x.safetensors") as path:
        write(path.with_name("y.json"), b"ours")
    places._compared.clear()
    with places.writing("memory://in/x.safetensors") as path:
        assert path.with_name("y.json").read_bytes() == b"ours"
    memory.pipe_file("/in/y.json", b"theirs")
    with pytest.raises(PlaceError, match="Nothing was overwritten"), places.writing("memory://in/x.safetensors") as path:
        write(path.with_name("z.json"), b"z")
        memory.pipe_file("/in/z.json", b"another's")
    assert (memory.cat_file("/in/y.json"), memory.cat_file("/in/z.json")) == (b"theirs", b"another's")


def test_a_checkpoint_of_a_run_is_asked_for_by_its_step(memory: Any) -> None:
    memory.pipe_file("/run/steps/000500/adapter.safetensors", b"a")
    memory.pipe_file("/set@2/1.png", b"1")
    found = places.near("memory://run@500")
    assert found == places.near("memory://run").with_name("run@500")
    assert places.near("memory://set@2").joinpath("1.png").read_bytes() == b"1", "a folder that is called so"
    with pytest.raises(PlaceError, match="memory://none: there is nothing there"):
        places.near("memory://none@5")
