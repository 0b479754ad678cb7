"""A job's progress in a file: whole whenever it is read, at most four times a second, and the last of it always."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from darkroom.cli.watch import Terminal
from darkroom.jobs.ledger import EVERY, PROGRESS, STAGES, Ledger
from darkroom.jobs.watch import Reader, tell_figures, tell_picture


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_and_time_left(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "progress.json", clock=clock)
    assert isinstance(ledger, Reader)
    for done in range(11):
        clock.now = done * 2.0
        ledger.move("screening", done, 100, f"picture {done}")
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["what"], told["done"], told["total"], told["note"]) == ("screening", 10, 100, "picture 10")
    assert told["rate"] == pytest.approx(0.5) and told["left"] == pytest.approx(180)


def test_a_second_round_begins_anew_and_stages_are_bounded(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "progress.json", clock=clock)
    for done in (1, 50, 100, 1):
        clock.now += 10
        ledger.move("drawing", done, 100)
    assert ledger.told()["rate"] is None and ledger.told()["left"] is None
    for number in range(50):
        ledger.move(f"part {number}", 1, 1)
    assert len(ledger.told()["stages"]) == STAGES and ledger.told()["what"] == "part 49"


def test_it_is_rarely_written_always_whole_and_ends_with_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written, broken, stop = tmp_path / "progress.json", list[float](), list[str](), threading.Event()
    write = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda ledger: (written.append(time.monotonic()) if ledger.path == path else None, write(ledger)))

    def read() -> None:
        while not stop.is_set():
            if path.is_file():
                try:
                    json.loads(text := path.read_text())
                except ValueError:
                    broken.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    with Ledger(path) as ledger:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < 1.1:
            ledger.move("x", int(passed * 1000), 2000)
        ledger.move("x", 1500, 2000)
        began = time.monotonic()
        while json.loads(path.read_text())["done"] != 1500:  # a job that rests
            assert time.monotonic() - began < 20, "the last move is told though no other follows"
            time.sleep(EVERY / 4)
        ledger.move("x", 1999, 2000)
        ledger.move("x", 2000, 2000)
    stop.set()
    reader.join()
    assert json.loads(path.read_text())["done"] == 2000 and not broken
    *rested, _ = (after - before for before, after in pairwise(written))  # the last is written at the end, whenever that is
    assert rested and min(rested) > EVERY * 0.95, "four a second at most"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writing_that_was_put_off_and_comes_too_late_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine its timer wakes after a further move has written everything, and cannot be cancelled any more."""
    timers = list[Callable[[], None]]()

    class Timer(threading.Timer):
        def start(self) -> None:
            timers.append(self.function)

    monkeypatch.setattr(threading, "Timer", Timer)
    clock, path = Clock(), tmp_path / "progress.json"
    ledger = Ledger(path, clock=clock)
    for clock.now, done in ((0.0, 1), (EVERY / 2, 2), (EVERY * 1.1, 3)):
        ledger.move("x", done, 9)
    assert len(timers) == 1 and json.loads(path.read_text())["done"] == 3
    path.unlink()
    timers[0]()
    assert not path.exists()
    ledger.move("x", 4, 9)
    timers[1]()
    assert json.loads(path.read_text())["done"] == 4, "the next one that is put off is written"


def test_every_command_reports_without_knowing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS, str(path))
    with Terminal() as watcher:
        watcher.move("encoding", 3, 3)
        watcher.say("something happened")
        tell_figures(watcher, 4, 10, {"loss": 0.5, "rate": 1e-4, "validation": float("nan")})
        tell_figures(watcher, 5, 10, {"loss": 0.4, "rate": 1e-4})
        tell_picture(watcher, 5, Path("runs/x/previews/000005_0.png"))
    told = json.loads(path.read_text())
    assert told["said"] == "something happened" and (told["done"], told["total"]) == (5, 10)
    assert told["figures"] == {"loss": 0.4, "rate": 1e-4, "validation": None, "step": 5, "total": 10}
    assert told["picture"] == "runs/x/previews/000005_0.png"
    assert [stage["what"] for stage in told["stages"]] == ["encoding", "training"]
    monkeypatch.setenv("RANK", "1")
    path.unlink()
    with Terminal() as watcher:
        watcher.move("encoding", 3, 3)
    assert not path.exists(), "of several processes the first one tells"


def test_a_place_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    heard: list[str] = []
    with Ledger(tmp_path / "gone" / "progress.json", heard.append, clock=Clock()) as ledger:
        for step in range(5):
            ledger.clock.now += 1
            ledger.move("x", step, 5)
    assert len(heard) == 1 and "the work goes on" in heard[0]
