"""Merging into a base, blending and extracting hold one tensor in memory at a time: measured at an eighth of SDXL's width.

At the true size, by hand: `python tests/slow/merging.py make|into|blend|extract FOLDER`, one after the other (13 GiB of disk).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def stage(name, folder, scale):
    """One stage in its own process; its figures."""
    script = Path(__file__).with_name("merging.py")
    done = subprocess.run([sys.executable, str(script), name, str(folder), str(scale)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    print(name, figures)
    return figures


def test_an_eighth_of_the_width_goes_the_whole_way(tmp_path):
    made = stage("make", tmp_path, 8)
    assert made["modules"] == 722 + 72 + 192
    merged = stage("into", tmp_path, 8)
    blended = stage("blend", tmp_path, 8)
    taken = stage("extract", tmp_path, 8)
    assert merged["modules"] == made["modules"] <= taken["modules"]
    assert merged["gib"] == pytest.approx(made["gib"], rel=0.01)
    largest = 49408 * 160 * 8 / (1 << 30)  # bigG's embedding in float64
    lora = (tmp_path / "lora.safetensors").stat().st_size / (1 << 30)
    for found in (merged, blended, taken):
        assert found["own_gib"] < 4 * largest + 3 * lora + 0.1, "one tensor in a few copies, and the adapter"
    assert 0 < merged["rounding"] < 1 and blended["distances"][0] == pytest.approx(blended["distances"][1], rel=0.05)
    assert taken["error"] < 1.2 * merged["rounding"], "a LoRA of the same rank holds what was merged, but for bfloat16's rounding"
