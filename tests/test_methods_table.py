"""docs/methods.md has a row for every method there is, and no row tells of one that fails to train or to resume exactly."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> Any:
    found = importlib.util.spec_from_file_location("methods_table", ROOT / "tools" / "methods_table.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    import sys

    sys.modules["methods_table"] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in lines[2:]}


def test_every_method_has_a_row(tool: Any, rows: dict[str, list[str]]) -> None:
    assert [name for name, _ in tool.variants()] == list(rows), "a method came or went: run `make methods-table`"


def test_all_of_them_train_and_resume(rows: dict[str, list[str]]) -> None:
    assert {name: cells[2:4] for name, cells in rows.items() if not cells[2].startswith("yes: ") or cells[3] != "byte-equal"} == {}


def test_another_change_is_told(tool: Any) -> None:
    """The comparison can fail: half the change, a module left out, and equal."""
    ours = {"a": torch.ones(2, 2), "b": torch.eye(2)}
    assert tool.compared(ours, {key: delta.clone() for key, delta in ours.items()}) == "equal to 0e+00 in 2 modules"
    assert tool.compared(ours, {key: delta / 2 for key, delta in ours.items()}) == "**another change**: 50% off"
    assert tool.compared(ours, {"a": torch.ones(2, 2), "b": torch.zeros(2, 2)}) == "**1 of 2 modules are left out**"


def test_reasons_name_no_folder(tool: Any) -> None:
    assert (
        tool.first_line(ValueError("/tmp/x1/whole/TOK.safetensors: is another thing | really\nsecond line")) == "TOK.safetensors: is another thing \\| really"
    )
