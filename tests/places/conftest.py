"""What tests of places share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom import places


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine "a" with a cache of its own, in an empty folder; `machine("b")` goes to another: another cache, nothing in mind, no connection."""
    from support import s3

    def go(name: str) -> None:
        monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / name))
        places._compared.clear()
        s3.forget()

    monkeypatch.chdir(tmp_path)
    go("a")
    return go
