"""Orders lie in folders that are whole at every moment, stand in a line, and know what can be done with them. No process is started here."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from darkroom.jobs.queue import Command, Draw, Line, OrderError
from darkroom.jobs.queue import line as line_module
from darkroom.jobs.queue import shelf as shelf_module
from darkroom.jobs.queue.folder import LOG_ROOM, Folder


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / ".darkroom", starts=False)


def order(title: str = "", device: str = "cpu", **more) -> Command:
    return Command(argv=more.pop("argv", ("recipes",)), title=title, device=device, **more)


def ended(line: Line, id: str, state: str, **more) -> None:
    line.shelf.change(line.shelf.find(id), state=state, ended=time.time(), **more)


def titles(line: Line, device: str = "cpu") -> list[str]:
    """As they would be taken."""
    return [line.shelf.order(folder).told for folder, _ in line.shelf.waiting(device)]


def test_they_wait_in_the_order_in_which_they_came_each_at_its_device(line: Line) -> None:
    ids = [line.put(order(name, device)) for name, device in (("a", "cpu"), ("b", "cuda:0"), ("c", "cpu"))]
    assert [row["title"] for row in line.list()] == ["c", "b", "a"]
    assert [(row["place"], row["state"]) for row in line.list()] == [(2, "waiting"), (1, "waiting"), (1, "waiting")]
    assert [row["title"] for row in line.list(limit=1, before=ids[2])] == ["b"]
    assert [row["title"] for row in line.list(device="cuda:0")] == ["b"]
    assert line.shelf.claim("cpu").id == ids[0] and line.look(ids[0])["state"] == "running"
    assert line.shelf.claim("cpu").id == ids[2] and line.shelf.claim("cpu") is None
    json.dumps(line.look(ids[0]))


def test_a_person_changes_the_turn(line: Line) -> None:
    ids = {name: line.put(order(name)) for name in "abcd"}
    line.put(order("other", "cuda:0"))
    line.move(ids["d"], -1)
    assert titles(line) == list("abdc")
    assert line.move(ids["c"], -99)["place"] == 1
    assert titles(line) == list("cabd")
    line.move(ids["c"], 2)
    assert titles(line) == list("abcd") and titles(line, "cuda:0") == ["other"]
    line.shelf.claim("cpu")
    with pytest.raises(OrderError, match="does not wait: it is running"):
        line.move(ids["a"], 1)


def test_cancelling(line: Line) -> None:
    waits, runs = line.put(order()), line.put(order())
    assert line.cancel(waits)["state"] == "cancelled" and titles(line) == ["recipes"]
    line.shelf.claim("cpu")
    told = line.cancel(runs)
    assert (told["state"], told["wish"]) == ("running", "cancel"), "whoever runs it settles it"
    with pytest.raises(OrderError, match="is cancelled already"):
        line.cancel(waits)


def test_only_trainings_are_paused_and_gone_on_with_once(line: Line) -> None:
    with pytest.raises(OrderError, match="no training"):
        line.pause(line.put(order()))
    id = line.put(order("hat", argv=("train", "demo", "--out", "runs/hat", "--processes", "2")))
    assert line.pause(id)["state"] == "paused"
    assert "Nothing was trained yet" in line.look(id)["message"]
    assert line.look(id)["again"] == ["train", "demo", "--out", "runs/hat", "--processes", "2"]
    run = line.shelf.workspace / "runs/hat"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text("")
    assert line.look(id)["again"] == ["resume", "runs/hat", "--processes", "2"]
    new = line.resume(id)
    assert line.look(new)["follows"] == id and line.look(id)["followed_by"] == new
    assert line.look(new)["title"] == "hat" and line.look(new)["run"] == "runs/hat"
    with pytest.raises(OrderError, match=f"by order {int(new[:6])} already"):
        line.resume(id)
    line.shelf.claim("cpu"), line.shelf.claim("cpu")
    assert line.pause(new)["wish"] == "pause"
    assert line.cancel(new)["wish"] == "cancel" and line.pause(new)["wish"] == "cancel", "to cancel is more than to pause"


def test_two_orders_never_train_in_one_folder(line: Line) -> None:
    id = line.put(order(argv=("train", "demo", "--out", "runs/hat")))
    for argv in (("resume", "runs/../runs/hat"), ("train", "demo", "--out", str(line.shelf.workspace / "runs/hat"))):
        with pytest.raises(OrderError, match="is at this run already"):
            line.put(order(argv=argv))
    line.cancel(id)
    line.put(order(argv=("resume", "runs/hat")))


def test_everything_that_ended_badly_can_be_gone_on_with(line: Line) -> None:
    for state in ("failed", "lost", "cancelled", "paused"):
        id = line.put(order(argv=("collect", "a.csv", "--to", "b")))
        ended(line, id, state)
        assert line.look(line.resume(id))["argv"] == ["collect", "--json", "a.csv", "--to", "b"]
    done = line.put(order())
    ended(line, done, "done")
    for id, words in ((done, "is done"), (line.put(order()), "is waiting")):
        assert line.look(id)["again"] is None
        with pytest.raises(OrderError, match=f"{words}: there is nothing to go on with"):
            line.resume(id)


def test_records_are_removed_and_numbers_go_on(line: Line) -> None:
    ids = [line.put(order(name)) for name in "abc"]
    with pytest.raises(OrderError, match=r"is waiting\. Cancel it first"):
        line.remove(ids[0])
    line.cancel(ids[0])
    line.remove(ids[0])
    line.cancel(ids[1])
    assert line.remove_ended() == 1 and [row["id"] for row in line.list()] == [ids[2]]
    with pytest.raises(OrderError, match="no such order"):
        line.look(ids[0])
    assert line.put(order()) > ids[2]


@pytest.mark.parametrize("id", ["../../etc", "000001-abcdef/..", "", "000001-ABCDEF", "x" * 9999, "000001-abcde\0", ".000001-abcdef.part", "000001-abcdef\n"])
def test_no_path_comes_in_through_a_name(line: Line, id: str) -> None:
    for act in (line.look, line.cancel, line.pause, line.resume, line.remove, line.log, line.picture):
        with pytest.raises(OrderError, match="no such order"):
            act(id)


def test_bounds(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MOST", 3)
    monkeypatch.setattr(shelf_module, "KEPT", 2)
    ids = [line.put(order()) for _ in range(3)]
    with pytest.raises(OrderError, match="3 orders wait already"):
        line.put(order())
    for id in ids:
        line.cancel(id)
    line.shelf.open()
    line.put(order())
    assert ids[0] not in {row["id"] for row in line.list()}, "the oldest record made room"
    assert len(line.list()) == 3
    with pytest.raises(OrderError, match="4 MiB"):
        line.put(Draw(requests=[{"prompt": "x" * 2**20}] * 5))


def test_a_log_keeps_its_end(line: Line) -> None:
    folder = line.shelf.find(line.put(order()))
    with folder.log_file.open("ab") as writing:  # as the job does, all the while
        for number in range(LOG_ROOM // 100 + 1):
            writing.write(f"{number:99d}\n".encode())
        writing.flush()
        folder.shorten_log()
        assert folder.log_file.stat().st_size == 0
        writing.write(b"the last\n")
    lines = line.log(folder.id).splitlines()
    assert lines[-1] == "the last" and int(lines[-2]) == LOG_ROOM // 100 and len(line.log(folder.id)) <= 1 << 16
    assert sum(path.stat().st_size for path in folder.path.iterdir()) < LOG_ROOM


def test_what_a_kill_left_half_written_is_never_taken(line: Line) -> None:
    half = line.shelf.orders / ".000009-abcdef.part"
    half.mkdir()
    (half / "order.json").write_text('{"argv": ["rec')
    assert line.list() == [] and line.shelf.claim("cpu") is None
    line.put(order())
    assert not half.exists(), "it is swept away by the next"


def test_what_another_version_wrote_is_told_and_not_hidden(line: Line) -> None:
    id = line.put(order())
    (line.shelf.find(id).path / "order.json").write_text('{"kind": "command", "argv": ["recipes"], "hologram": true}')
    other = Line(line.shelf.studio, starts=False)
    assert "cannot read" in other.list()[0]["title"]
    (line.shelf.find(id).path / "state.json").write_text('{"state": "dreaming"}')
    assert other.list()[0]["state"] == "lost" and "state.json" in other.look(id)["message"]
    assert other.remove_ended() == 1


def test_a_result_is_told_and_a_mistake_is_no_result(line: Line) -> None:
    folder = line.shelf.find(line.put(order()))
    folder.result_file.write_text('{"pictures": ["a.png"]}')
    assert line.look(folder.id)["result"] == {"pictures": ["a.png"]} and line.look(folder.id)["error"] is None
    folder.result_file.write_text('{"error": "words", "kind": "RecipeError"}')
    assert line.look(folder.id)["result"] is None and line.look(folder.id)["error"]["kind"] == "RecipeError"
    folder.result_file.write_text(json.dumps({"rows": "x" * (1 << 20)}))
    assert line.look(folder.id)["result"] is None and line.look(folder.id)["result_file"] == str(folder.result_file)


def test_many_at_once_take_and_put_without_losing_or_doubling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, each with a shelf of its own as four processes would have, put and claim; a fifth reads all the while."""
    monkeypatch.setattr(shelf_module, "PATIENCE", 120.0)  # a lock that is polled for is nobody's turn, and some thread may be late again and again
    studio, taken, stop, broken = tmp_path / ".darkroom", [], threading.Event(), []

    def work() -> None:
        mine = Line(studio, starts=False)
        for _ in range(6):
            mine.put(order())
            if (folder := mine.shelf.claim("cpu")) is not None:
                taken.append(folder.id)

    def read() -> None:
        mine = Line(studio, starts=False)
        while not stop.is_set():
            broken.extend(row for row in mine.list(100) if row["state"] not in ("waiting", "running") or not row["title"])

    reader, workers = threading.Thread(target=read), [threading.Thread(target=work) for _ in range(4)]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    reader.join()
    assert len(set(taken)) == len(taken) == 24 and broken == []
    rows = Line(studio, starts=False).list(100)
    assert sorted(row["number"] for row in rows) == list(range(1, 25))


def test_a_runner_is_started_once_for_each_device_that_has_work(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Child:
        def poll(self) -> None:
            return None

    def start(studio: Path, device: str, warm: float) -> Child:
        started.append(device)
        (studio / "devices" / device.replace(":", "-")).mkdir(parents=True)
        from darkroom.jobs.queue.launch import register

        register(studio, device, 1)  # some process that lives
        return Child()

    monkeypatch.setattr(line_module, "start_runner", start)
    line.starts = True
    line.put(order())
    line.put(order(device="cuda:1"))
    for _ in range(3):
        line.list()
    assert started == ["cpu", "cuda:1"]


def test_a_runner_that_cannot_live_is_told_and_not_started_by_every_look(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    from darkroom.jobs.queue import launch

    script = line.shelf.workspace / "broken"
    script.write_text("#!/bin/sh\necho 'ImportError: no pydantic' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(launch.sys, "executable", str(script))
    monkeypatch.setattr(launch, "RESTART", 0.4)
    line.starts = True
    id, starts = line.put(order()), 0
    deadline = time.monotonic() + 90
    while not line.look(id)["message"]:
        starts = max(starts, len(line._children))
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "ImportError: no pydantic" in line.list()[0]["message"] and line.look(id)["state"] == "waiting" and starts <= 2


def test_lists_stay_quick(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand records: a page asks each second."""
    id = line.put(order())
    source = line.shelf.find(id)
    for number in range(2, 2001):
        folder = Folder(line.shelf.orders / f"{number:06d}-aaaaaa")
        folder.path.mkdir()
        for name in ("order.json", "state.json"):
            text = (source.path / name).read_text().replace('"waiting"', '"done"')
            (folder.path / name).write_text(text)
    line.list()
    began = time.process_time()
    for _ in range(5):
        assert len(line.list(50)) == 50
    assert (time.process_time() - began) / 5 < 0.1
