"""Killed 20 times at moments of no order, `collect` loses nothing and fetches nothing twice that it had (issue 5)."""

from __future__ import annotations

from pathlib import Path

from darkroom.data.manifest import Manifest
from support.kills import killed


def test_twenty_kills_lose_nothing_and_fetch_nothing_twice(tmp_path: Path) -> None:
    print(killed(tmp_path, rows=400, kills=20))
    assert len(Manifest.open(tmp_path / "set").rows) == 400
