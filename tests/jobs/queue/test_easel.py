"""An order that cannot be drawn fails with words and leaves the easel; what is worse than a mistake ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from darkroom.errors import ModelError
from darkroom.jobs.queue import Draw, Line, easel
from darkroom.jobs.queue.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    line = Line(tmp_path / ".darkroom", starts=False)
    return line.shelf.find(line.put(Draw(requests=({"prompt": "a cat"},))))


class OutOfMemoryError(RuntimeError):
    """By the name of torch's."""


@pytest.mark.parametrize(
    ("error", "sound", "kind", "words"),
    [
        (ModelError("x: is no model."), True, "ModelError", "x: is no model."),
        (easel.Cancelled(), True, "Stopped", "Stopped."),
        (MemoryError(), False, "Fault", "not enough memory"),
        (OutOfMemoryError("CUDA out of memory"), False, "Fault", "not enough memory"),
        (ValueError("odd"), False, "Fault", "fault of Darkroom, not yours: ValueError: odd"),
    ],
)
def test_ends(folder: Folder, monkeypatch: pytest.MonkeyPatch, error: Exception, sound: bool, kind: str, words: str, capfd) -> None:
    def generate(*asked: object) -> list[Path]:
        print("a library says so")
        raise error

    monkeypatch.setattr(easel, "generate", generate)
    with capfd.disabled():
        assert easel.answer(folder) is sound
    told = json.loads(folder.said_file.read_text())
    assert told["kind"] == kind and words in told["error"]
    assert "a library says so" in folder.log(), "all that is said in the meantime belongs to the order"
    assert ("Traceback" in folder.log()) is not sound
