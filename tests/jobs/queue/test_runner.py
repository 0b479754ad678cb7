"""One runner a device: every order to a written end, none twice, and no process left behind. Jobs are small scripts here; real ones are in test_studio."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from darkroom.jobs.ledger import PROGRESS
from darkroom.jobs.queue import Command, Draw, Line, stopping
from darkroom.jobs.queue import runner as runner_module
from darkroom.jobs.queue.folder import Folder
from darkroom.jobs.queue.launch import lives, place, register
from darkroom.jobs.queue.life import alive, mark, of_order
from darkroom.jobs.queue.runner import Runner, look_after
from darkroom.jobs.queue.stopping import Asking
from support.waiting import until

JOB = """
import json, os, signal, subprocess, sys, time
name = sys.argv[3] if len(sys.argv) > 3 else "done"
print("hello", file=sys.stderr, flush=True)
match name:
    case "done":
        print(json.dumps({"cwd": os.getcwd(), "words": sys.argv[1:], "progress": os.environ["DARKROOM_PROGRESS"]}))
    case "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    case "silent":
        sys.exit(3)
    case "noisy":
        patient = time.monotonic() + 60
        for _ in range(90):
            sys.stderr.write("x" * 99_999 + "\\n")
            while os.fstat(2).st_size > 4 << 20 and time.monotonic() < patient: time.sleep(0.01)  # until whoever looks after it has come round
        print("a library says hello"); print("{}"[:-1] + '"made": 1}')
    case "orphans":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        print("{}"[:-1] + '"made": 1}')
    case "stubborn":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", file=sys.stderr, flush=True); time.sleep(300)
    case "polite":
        try:
            print("ready", file=sys.stderr, flush=True); time.sleep(300)
        except KeyboardInterrupt:
            print(json.dumps({"error": "Stopped.", "kind": "Stopped"})); sys.exit(130)
    case "slow":
        time.sleep(1.0); print("{}"[:-1] + '"made": 1}')
"""

LONG = 90.0
"""Seconds that nothing here takes unless it hangs."""


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for `python -m darkroom`."""
    file = tmp_path / "job.py"
    file.write_text(JOB)
    monkeypatch.setattr(runner_module, "DARKROOM", (sys.executable, "-S", "-E", str(file)))
    monkeypatch.setattr(runner_module, "IDLE", 0.05)
    monkeypatch.setattr(runner_module, "POLL", 0.02)
    return file


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "space" / ".darkroom", starts=False)


@pytest.fixture
def running(line: Line) -> Iterator[threading.Thread]:
    """A runner in a thread of its own; at the end of a test it has ended."""
    runner = Runner(line.shelf, "cpu", 0.0)
    thread = threading.Thread(target=runner.go)
    yield thread
    thread.join(LONG)
    assert not thread.is_alive()


def job(name: str, device: str = "cpu") -> Command:
    return Command(argv=("recipes", name), device=device)


def wait_for(line: Line, id: str, *states: str) -> dict:
    until(lambda: line.look(id)["state"] in states, LONG)
    return line.look(id)


def wait_ready(line: Line, id: str) -> None:
    until(lambda: "ready" in line.log(id), LONG)


def folder(line: Line, id: str) -> Folder:
    return line.shelf.find(id)


def test_the_line_is_drained_in_its_order(line: Line) -> None:
    ids = {name: line.put(job(name)) for name in ("done", "killed", "silent", "orphans")}
    elsewhere = line.put(job("done", "cuda:3"))
    Runner(line.shelf, "cpu", 0.0).go()
    done = line.look(ids["done"])
    assert (done["state"], done["code"], done["pid"], done["log"]) == ("done", 0, None, "hello")
    assert done["result"] == {
        "cwd": str(line.shelf.workspace), "words": ["recipes", "--json", "done"], "progress": str(folder(line, ids["done"]).progress_file)
    }  # fmt: skip
    assert [line.look(ids[name])["state"] for name in ("killed", "silent", "orphans")] == ["failed", "failed", "done"]
    assert "SIGKILL" in line.look(ids["killed"])["message"] and line.look(ids["killed"])["code"] == -9
    assert "code 3" in line.look(ids["silent"])["message"]
    began = [line.look(id)["began"] for id in ids.values()]
    assert began == sorted(began)
    assert of_order(folder(line, ids["orphans"]).progress_file) == [], "what a job leaves behind is ended"
    assert line.look(elsewhere)["state"] == "waiting"
    assert not lives(line.shelf.studio, "cpu")


def test_a_log_does_not_fill_the_disk(line: Line) -> None:
    id = line.put(job("noisy"))
    Runner(line.shelf, "cpu", 0.0).go()
    assert line.look(id)["result"] == {"made": 1}, "what stands before the result is no matter"
    assert sum(path.stat().st_size for path in folder(line, id).path.iterdir()) < 6 << 20


def test_a_polite_job_is_cancelled_at_once(line: Line, running: threading.Thread) -> None:
    id = line.put(job("polite"))
    running.start()
    wait_ready(line, id)
    began = time.monotonic()
    assert line.cancel(id)["wish"] == "cancel"
    told = wait_for(line, id, "cancelled")
    assert time.monotonic() - began < stopping.GRACE / 2, "it was asked once, and not made to"
    assert told["message"] == "Cancelled." and told["again"] == ["recipes", "polite"] and told["wish"] is None


def test_a_stubborn_job_is_made_to_end_with_all_its_processes(line: Line, running: threading.Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "Asking", lambda folder, pid, drawing: Asking(folder, pid, drawing, grace=0.2, short=0.2))
    id = line.put(job("stubborn"))
    running.start()
    wait_ready(line, id)
    until(lambda: len(of_order(folder(line, id).progress_file)) == 2, LONG)
    line.cancel(id)
    assert wait_for(line, id, "cancelled")["code"] == -signal.SIGKILL
    assert of_order(folder(line, id).progress_file) == []


def test_a_job_outlives_its_runner_and_is_settled_by_the_next(line: Line, script: Path) -> None:
    """As after kill -9: nobody waits for the process, and the order says that it runs."""
    id = line.put(job("slow"))
    process = orphan(line, line.shelf.claim("cpu"), script, "slow")
    reaper = threading.Thread(target=process.wait)  # as init does for a process whose parent is gone
    reaper.start()
    Runner(line.shelf, "cpu", 0.0).go()
    told = line.look(id)
    assert (told["state"], told["result"], told["code"]) == ("done", {"made": 1}, None)
    reaper.join()


def orphan(line: Line, taken: Folder, script: Path, name: str, known: bool = True) -> subprocess.Popen:
    with taken.said_file.open("wb") as said, taken.log_file.open("ab") as log:
        command = [sys.executable, str(script), "recipes", "--json", name]
        process = subprocess.Popen(command, stdout=said, stderr=log, env=os.environ | {PROGRESS: str(taken.progress_file)}, start_new_session=True)
    if known:
        line.shelf.change(taken, pid=process.pid, mark=mark(process.pid))
    return process


def test_one_that_was_started_and_not_yet_written_down_is_found_and_never_started_twice(line: Line, script: Path, running: threading.Thread) -> None:
    id = line.put(job("polite"))
    process = orphan(line, line.shelf.claim("cpu"), script, "polite", known=False)
    wait_ready(line, id)
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    running.start()
    until(lambda: line.look(id)["pid"] is not None, LONG)
    assert line.look(id)["pid"] == process.pid
    line.cancel(id)  # a stranger's child is cancelled as one's own
    assert wait_for(line, id, "cancelled")["state"] == "cancelled"
    reaper.join()


def test_one_that_was_taken_and_not_started_goes_back_into_the_line(line: Line) -> None:
    first, second = line.put(job("done")), line.put(job("done"))
    line.shelf.claim("cpu")
    Runner(line.shelf, "cpu", 0.0).go()
    assert line.look(first)["state"] == line.look(second)["state"] == "done"
    assert line.look(first)["began"] < line.look(second)["began"], "at its old place"


def test_one_that_ended_before_it_was_written_down_is_not_run_again(line: Line, script: Path) -> None:
    """Killed between starting a quick job and noting its number: what it said is there."""
    told, dead = line.put(job("done")), line.put(job("killed"))
    for id, name in ((told, "done"), (dead, "killed")):
        orphan(line, line.shelf.claim("cpu"), script, name, known=False).wait()
        assert line.look(id)["pid"] is None
    Runner(line.shelf, "cpu", 0.0).go()
    assert line.look(told)["state"] == "done" and line.look(dead)["state"] == "lost"
    assert line.look(told)["log"] == line.look(dead)["log"] == "hello", "once each"


def test_one_whose_end_nobody_saw_is_lost_with_the_way_to_go_on(line: Line) -> None:
    """A machine that was restarted: the number may belong to another process by now."""
    id = line.put(Command(argv=("train", "demo", "--out", "runs/x")))
    taken = line.shelf.claim("cpu")
    line.shelf.change(taken, pid=os.getpid(), mark="another boot:1")
    taken.log_file.write_text("training 4/100")
    taken.said_file.write_text('{"run": "runs/x", "adap')
    run = line.shelf.workspace / "runs/x"
    (run / "steps" / "000004").mkdir(parents=True)
    for name in ("recipe.toml", "facts.json", "steps/000004/state.json", "steps/000004/state.safetensors"):
        (run / name).write_text("")
    Runner(line.shelf, "cpu", 0.0).go()
    told = line.look(id)
    assert told["state"] == "lost" and "checkpoint is of step 4; go on from it with: darkroom resume runs/x" in told["message"]
    assert told["again"] == ["resume", "runs/x"]
    assert psutil.pid_exists(os.getpid()), "who merely has its number is left alone"


def test_an_order_that_cannot_be_read_fails_and_the_next_is_taken(line: Line) -> None:
    first, second = line.put(job("done")), line.put(job("done"))
    (folder(line, first).path / "order.json").write_text("{")
    Runner(Line(line.shelf.studio, starts=False).shelf, "cpu", 0.0).go()
    assert "cannot read" in line.look(first)["message"] and line.look(second)["state"] == "done"


EASEL = """
import sys
from pathlib import Path
mood = Path(sys.argv[2])
for line in sys.stdin:
    if mood.read_text() == "dying":
        mood.write_text("well")
        sys.exit(0)
    folder = Path(sys.argv[1]) / "orders" / line.strip()
    folder.joinpath("output.log").write_text("drawing")
    folder.joinpath("said").write_text('{"pictures": []}')
    folder.joinpath("said").rename(folder / "said.json")
"""


def test_an_easel_that_died_before_it_heard_costs_no_order(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "easel.py").write_text(EASEL)
    monkeypatch.setattr(runner_module, "EASEL", ("/bin/sh", "-c", f'exec "{sys.executable}" -S -E "{tmp_path / "easel.py"}" "$0" "{tmp_path / "mood"}"'))
    place(line.shelf.studio, "cpu").mkdir(parents=True)
    ids = []
    for mood in ("well", "dying", "well"):
        (tmp_path / "mood").write_text(mood)
        ids.append(line.put(Draw(requests=({"prompt": "a cat"},))))
        Runner(line.shelf, "cpu", 0.0).go()
    assert [line.look(id)["state"] for id in ids] == ["done"] * 3


def test_an_easel_that_cannot_begin_tells_why(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "EASEL", ("/bin/sh", "-c", "echo 'ImportError: no torch'; exit 1"))
    place(line.shelf.studio, "cpu").mkdir(parents=True)
    id = line.put(Draw(requests=({"prompt": "a cat"},)))
    Runner(line.shelf, "cpu", 0.0).go()
    assert line.look(id)["state"] == "failed" and "ImportError: no torch" in line.look(id)["message"]


def test_a_program_that_cannot_be_started_fails_its_order(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "DARKROOM", ("/no/such/python",))
    id = line.put(job("done"))
    Runner(line.shelf, "cpu", 0.0).go()
    assert line.look(id)["state"] == "failed" and "could not be started" in line.look(id)["message"]


def test_a_second_runner_leaves_the_device_to_the_first(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    studio = line.shelf.studio
    place(studio, "cpu").mkdir(parents=True)
    monkeypatch.setattr(runner_module, "HANDOVER", 0.1)
    id = line.put(job("done"))
    with FileLock(place(studio, "cpu") / "runner.lock", thread_local=False):
        register(studio, "cpu", os.getpid())
        look_after(studio, "cpu", 0.0)
    assert line.look(id)["state"] == "waiting"
    look_after(studio, "cpu", 0.0)
    assert line.look(id)["state"] == "done"


def test_a_process_is_known_by_more_than_its_number() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    who = mark(child.pid)
    assert alive(child.pid, who) and not alive(child.pid, "another") and not alive(None, "") and not alive(child.pid, "")
    assert mark(os.getpid()) != who
    child.kill()
    until(lambda: not mark(child.pid), LONG)  # a dead one that nobody buried is dead
    assert not alive(child.pid, who)
    child.communicate()


def test_a_process_that_was_started_this_moment_is_one_of_its_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux shows no environment of it before it has come into its program, which is later than Popen's return; on a busy machine much later."""

    class Newborn(psutil.Process):
        looks = 0

        def environ(self) -> dict[str, str]:
            Newborn.looks += 1
            return super().environ() if Newborn.looks > 3 else {}

    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, env={PROGRESS: str(tmp_path)}) as child:
        monkeypatch.setattr(psutil, "process_iter", lambda: [Newborn(child.pid)])
        assert [process.pid for process in of_order(tmp_path)] == [child.pid]
        child.kill()


def test_a_pause_asks_once_more_only_where_it_was_not_heard(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C would interrupt a training in the middle of what it saves."""
    taken, sent = folder(line, line.put(job("done"))), []
    monkeypatch.setattr(stopping.os, "kill", lambda pid, number: sent.append(number))
    asking, clock = Asking(taken, 1, clock=lambda: now[0]), [0.0]
    now = clock

    def at(step: int) -> None:
        taken.progress_file.write_text(f'{{"figures": {{"step": {step}}}}}')
        asking.hear("pause")

    for step in (10, 10, 11, 12, 12):
        at(step)
    assert sent == [signal.SIGINT]
    at(13)
    assert sent == [signal.SIGINT] * 2
    now[0] = 3600
    at(14)
    assert sent == [signal.SIGINT] * 2, "it never comes to more than asking"
    monkeypatch.setattr(Asking, "_all", lambda self, number: sent.append(number))
    for now[0] in (3600, 3629, 3631, 3634, 3636, 3641, 3700):
        asking.hear("cancel")
    assert sent[2:] == [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], "what was asked politely already is not asked again at once"
