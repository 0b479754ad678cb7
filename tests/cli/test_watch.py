"""The live table of a training says where it stands; without a terminal it is plain lines."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from darkroom.cli.watch import Terminal
from darkroom.jobs.readings import Readings, spoken, trend
from darkroom.jobs.watch import Reader, Silent, tell_figures, tell_picture


def figures(step: int) -> dict[str, float]:
    found = {"loss": 1.0 if step < 10 else 0.5, "rate": 1e-4, "grad_norm": 0.25, "seconds": 0.5, "memory_mib": 1234.0}
    return found | ({"validation": {10: 0.3, 20: 0.2, 30: 0.25}[step]} if step in (10, 20, 30) else {})


def terminal(is_terminal: bool) -> tuple[Terminal, io.StringIO]:
    heard = io.StringIO()
    return Terminal(Console(file=heard, force_terminal=is_terminal, width=100, highlight=False, color_system=None)), heard


def test_lines_where_nobody_looks() -> None:
    watcher, heard = terminal(is_terminal=False)
    with watcher:
        watcher.move("encoding", 6, 6)
        for step in range(1, 51):
            tell_figures(watcher, step, 50, figures(step))
    lines = heard.getvalue().splitlines()
    assert lines[0] == "encoding 6/6"
    assert [line.split()[1] for line in lines[1:]] == [f"{step}/50" for step in range(5, 51, 5)]
    assert "held out 0.2000  the lowest so far" in lines[4]
    assert "held out 0.2500  +25.0% above step 20's 0.2000" in lines[6]
    assert "rate 0.0001  gradient 0.25" in lines[-1] and "memory 1234 MiB at most" in lines[-1]
    assert "\x1b" not in heard.getvalue()


def test_a_table_on_a_terminal() -> None:
    watcher, heard = terminal(is_terminal=True)
    with watcher:
        for step in range(1, 31):
            tell_figures(watcher, step, 50, figures(step))
        tell_picture(watcher, 30, Path("runs/[x]/previews/000030_0.png"))
        watcher.say("something happened [here]")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", heard.getvalue())
    last = shown[shown.rindex("training") :]
    assert "30/50" in last
    for words in (
        "loss",
        "held out  0.2500  +25.0% above step 20's 0.2000",
        "rate      0.0001",
        "gradient  0.25",
        "speed",
        "left",
        "memory    1234 MiB at most",
    ):
        assert words in last, words
    assert "preview   runs/[x]/previews/000030_0.png" in last, "brackets are no markup"
    assert "something happened [here]" in shown


def test_other_work_has_no_table() -> None:
    watcher, heard = terminal(is_terminal=True)
    with watcher:
        watcher.move("screening", 3, 10, "two rejected")
    assert "screening" in heard.getvalue() and "loss" not in heard.getvalue()


def test_figures_reach_a_watcher_that_reads_none() -> None:
    class Plain:
        def __init__(self) -> None:
            self.moved: list[tuple[str, int, int, str]] = []

        def say(self, text: str) -> None:
            pass

        def move(self, what: str, done: int, total: int, note: str = "") -> None:
            self.moved.append((what, done, total, note))

    plain = Plain()
    tell_figures(plain, 10, 50, figures(10))
    tell_picture(plain, 10, Path("x.png"))
    tell_figures(Silent(), 1, 2, {})
    assert plain.moved == [("training", 10, 50, "loss 0.5000  held out 0.3000")]
    assert isinstance(terminal(is_terminal=False)[0], Reader) and not isinstance(plain, Reader)


def test_readings() -> None:
    now = 100.0
    readings = Readings(clock=lambda: now)
    readings.read(11, 100, {"loss": 2.0, "seconds": 0.5})  # goes on from step 10
    assert readings.loss == 2.0 and readings.speed == pytest.approx(2.0)
    now = 104.5
    readings.read(20, 100, {"loss": 1.0})
    assert readings.loss == pytest.approx(0.95 * 2 + 0.05)
    assert readings.speed == pytest.approx(2.0) and readings.seconds_left == pytest.approx(40)
    assert ("left", "40 s") in readings.rows()
    readings.read(100, 100, {})
    assert "left" not in dict(readings.rows()), "nothing is left of a finished one"
    assert Readings().rows() == [("step", "0/0")] and Readings().speed == 0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7620, "2 h 07 min"), (360000, "4 d 4 h")]
)
def test_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_trend() -> None:
    assert trend([(1, 0.5)]) == ""
    assert trend([(0, 0.5), (10, 0.4)]) == "the lowest so far"
    assert trend([(0, 0.5), (10, 0.4), (20, 0.44)]) == "+10.0% above step 10's 0.4000"
