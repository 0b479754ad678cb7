"""The demo's promise: the adapter really learns the cat. About a minute on two cores; `make test-slow`."""

import pytest

from darkroom.evidence.demo import demo


@pytest.mark.slow
def test_likeness_rises_with_an_interval_that_excludes_zero(tmp_path):
    result = demo(tmp_path)
    likeness = next(row for row in result["comparisons"] if row["metric"] == "likeness")
    assert likeness["pairs"] >= 32
    assert likeness["low"] > 0
    assert likeness["verdict"] == "better"
    assert result["seconds"] < 360
