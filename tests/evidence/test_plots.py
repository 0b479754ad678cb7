"""Plots are one list of marks: the SVG is well formed and within its box, the PNG has the same marks, and ticks are numbers that people read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from darkroom.evidence.plots import HEIGHT, INKS, WIDTH, Line, Panel, marks, sheet, svg, ticks

PANEL = Panel(
    'Likeness <of "cats">', "points of 100 & more",
    (Line("a", ((0, 40.0), (100, 52.5), (400, 50.0)), (None, (50.0, 55.0), (44.0, 56.0))), Line("b", ((0, -3.0), (400, 20.0)), role="second")), 100, 400,
)  # fmt: skip


def test_the_svg_is_whole_and_everything_lies_within() -> None:
    root = ElementTree.fromstring(svg(PANEL))
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}" and "100 is marked" in root.attrib["aria-label"]
    assert [child.text for child in root if child.attrib.get("class") == "title"] == ['Likeness <of "cats">']
    for mark in marks(PANEL):
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in mark.points), mark


def test_higher_is_further_up_and_later_is_further_right() -> None:
    dots = [mark.points[0] for mark in marks(PANEL) if mark.kind == "dot"]
    assert dots[0][0] < dots[1][0] < dots[2][0] and dots[1][1] < dots[2][1] < dots[0][1]


def test_the_png_shows_the_same_marks() -> None:
    seen = {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in sheet([PANEL, PANEL, PANEL]).getcolors(1 << 24)}
    assert {INKS[role] for role in ("line", "second", "band", "grid", "chosen")} <= seen


@pytest.mark.parametrize(
    ("low", "high", "wanted", "found"),
    [(0, 400, 5, [0, 100, 200, 300, 400]), (0.0392, 0.0654, 4, [0.04, 0.05, 0.06]), (-11, 11, 4, [-10, 0, 10]), (0, 25, 5, [0, 5, 10, 15, 20, 25]),
     (7, 7, 4, [7])],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, wanted: int, found: list[float]) -> None:
    assert ticks(low, high, wanted) == found


def test_a_curve_that_never_moves_is_a_line() -> None:
    assert ElementTree.fromstring(svg(Panel("flat", "", (Line("a", ((0, 1.0), (10, 1.0))),), 10))) is not None
