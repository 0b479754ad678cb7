"""`make findings` at its smallest, from the albums to the page; and once more, from where it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "findings.py"


@pytest.mark.slow
def test_findings_quick(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--quick", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "negative-lora.md").read_text(encoding="utf-8")
    assert page.count("| target against") >= 10 and "## In the trial's words" in page and "## Faults" not in page
    for picture in ("bad", "good", "grid"):
        assert (tmp_path / "out" / f"negative-lora-{picture}.jpg").stat().st_size > 1000
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png") if path.name != "grid.png"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert drawn == {path: path.stat().st_mtime_ns for path in drawn}
    assert "loss" not in done.stderr, "something was trained again"
    assert (tmp_path / "out" / "negative-lora.md").read_text(encoding="utf-8") == page
