"""docs/scale.md is what tools/scale_plan.py prints, and its reckoning is right where it can be done by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> Any:
    sys.path.insert(0, str(ROOT / "tools"))  # where a script finds its neighbours
    found = importlib.util.spec_from_file_location("scale_plan", ROOT / "tools" / "scale_plan.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["scale_plan"] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    sys.path.remove(str(ROOT / "tools"))
    return module


def changed(tool: Any, **values: float) -> SimpleNamespace:
    return SimpleNamespace(**(vars(tool.WORLDS[1]) | values))


def test_the_page_is_what_the_script_prints(tool: Any) -> None:
    assert (ROOT / "docs" / "scale.md").read_text(encoding="utf-8") == tool.page(), "run `make scale`"


def test_what_the_code_says_is_what_the_code_says(tool: Any) -> None:
    import inspect

    from darkroom.data import near, prints
    from darkroom.train.feed import Feed

    told = {name: value for name, (value, _) in tool.CODE.items()}
    assert (told["prints"], told["crowd"], told["buckets"]) == (prints.PRINTS, near.CROWD, 1 << near.PIECES[0][1])
    assert (told["encoding_cards"] > 1) == ("crew" in inspect.signature(Feed.encode_all).parameters), "encoding is shared now, or no longer: 8 or 1"


def test_a_training_by_hand(tool: Any) -> None:
    """A thousand million parameters, 1 TFLOP forwards, 2 pictures a card at 100 TFLOP/s: 0.08 s; a ring of 4 sends 6 GB of 4 at 60 GB/s: 0.1 s."""
    w = changed(tool, unet_parameters=10**9, unet_tflop=1.0, peak_tflops=200, used_training=0.5, batch=2, activation_gb=3, inside_gbs=60, disk_rate_gb=2)
    found = tool.training(w, 4)
    assert found.adding == pytest.approx(0.1) and found.step == pytest.approx(0.18) and found.rate == pytest.approx(8 / 0.18)
    assert (found.card_gb, found.sharded_gb, found.saving) == (22, 10, 7)
    assert found.divided_step == pytest.approx(0.08 + 0.15), "weights twice and gradients once, 3 GB each of 4"


def test_collecting_is_as_fast_as_its_slowest_part(tool: Any) -> None:
    few = tool.collect(changed(tool, hosts=10, download_s=2, alive=0.5), 108_000)
    assert (few.slowest, few.hours) == ("politeness", pytest.approx(2.0))
    slow = tool.collect(changed(tool, link_gb=0.01, picture_bytes=1e6, alive=1.0), 36_000)
    assert (slow.slowest, slow.hours) == ("the link", pytest.approx(1.0))


def test_comparing_grows_with_the_buckets_until_they_are_full(tool: Any) -> None:
    straight, crowded = changed(tool, crowded=0.0), changed(tool, crowded=1.0)
    assert tool.comparing(straight, 10**7) == pytest.approx(100 * tool.comparing(straight, 10**5))
    growth = [tool.comparing(crowded, 2 * n) / tool.comparing(crowded, n) for n in (10**6, 10**8)]
    assert growth == [pytest.approx(4.0), pytest.approx(2.0)]


def test_a_wall_is_where_its_figure_is_reached(tool: Any) -> None:
    w = tool.WORLDS[1]
    for wall in tool.WALLS:
        assert 0 < wall.at(w) < 1e15, wall.name
    assert tool.last(lambda n: n < 12_345) == pytest.approx(12_345, rel=2e-3)
    at = next(wall.at(w) for wall in tool.WALLS if "collects" in wall.name)
    assert tool.collect(w, round(at)).hours == pytest.approx(w.patience_h, rel=2e-3)


def test_every_assumption_has_a_source_and_is_used(tool: Any) -> None:
    text = (ROOT / "tools" / "scale_plan.py").read_text(encoding="utf-8")
    assert len(tool.ASSUMED) > 20
    for name, given in tool.ASSUMED.items():
        assert given.source and (f"w.{name}" in text or f"{{{name}:" in text), name


def test_figures_read_well(tool: Any) -> None:
    assert [tool.short(value) for value in (0, 0.0123, 0.99, 1.04, 9.96, 12.3, 99.6, 123_456)] == ["0", "0.012", "0.99", "1.0", "10.0", "12", "100", "120,000"]
