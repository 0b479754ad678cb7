"""The queue with real processes on the pocket model: what is killed loses nothing, and what is drawn or learned has the bytes of the command line's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from darkroom.cli.main import run
from darkroom.jobs.ledger import PROGRESS
from darkroom.jobs.queue import Command, Draw, Line
from darkroom.jobs.queue.launch import place
from darkroom.jobs.queue.life import mark, of_order
from support.waiting import until

SERVER = """
import sys, time
from pathlib import Path
from darkroom.jobs.queue import Command, Line
print(Line(Path(sys.argv[1])).put(Command(argv=tuple(sys.argv[2:]))), flush=True)
time.sleep(600)
"""
STEPS = 60
REQUEST = {"prompt": "a 3d cat on a red background", "steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def line(space: Path) -> Iterator[Line]:
    """At the end nothing of the workspace is left running."""
    found = Line(space / ".darkroom", warm=60.0)
    yield found
    left = of_space(space)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)


@pytest.fixture(scope="module")
def training(cats: Path) -> tuple[str, ...]:
    settings = (
        f"train.length={STEPS} steps", "train.save_every=20 steps", "preview.every=1000 steps", "preview.steps=2", "device=cpu", "method.rank=4",
        "data.batch_size=2", "data.resolution=32",
    )  # fmt: skip
    return ("demo", "--images", str(cats), "--subject", "TOK cat", *(word for setting in settings for word in ("--set", setting)))


def of_space(space: Path) -> list[psutil.Process]:
    """The processes that work in this workspace."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if process.pid != os.getpid() and str(space) in " ".join(process.info["cmdline"] or ())]


def settled(line: Line, id: str, *states: str) -> dict:
    until(lambda: line.look(id)["state"] not in ("waiting", "running"))
    told = line.look(id)
    assert told["state"] in states, (told["message"], told["log"])
    return told


def step(line: Line, id: str) -> int:
    told = line.look(id)
    assert told["state"] in ("waiting", "running"), (told["message"], told["log"])
    return ((told["progress"] or {}).get("figures") or {}).get("step", 0)


def runner_pid(line: Line) -> int:
    from darkroom.jobs.queue.folder import read_object

    return (read_object(place(line.shelf.studio, "cpu") / "runner.json") or {}).get("pid", 0)


def pending(pid: int) -> set[int]:
    """Signals that a process was sent and has not come to."""
    words = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(("SigPnd", "ShdPnd")))
    return {number for number in range(1, 65) for mask in words.values() if int(mask, 16) >> (number - 1) & 1}


def test_a_training_outlives_server_and_runner_is_paused_and_gone_on_with(line: Line, space: Path, training: tuple[str, ...], tmp_path: Path) -> None:
    source = str(Path(__file__).parents[3] / "src")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(space / ".darkroom"), "train", *training], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": source}
    )
    assert server.stdout is not None
    id = server.stdout.readline().strip()
    os.kill(server.pid, signal.SIGKILL)  # before the job has well begun
    server.wait()
    silent = Line(space / ".darkroom", starts=False)
    until(lambda: step(silent, id) >= 3)
    job, runner = silent.look(id)["pid"], runner_pid(line)
    os.kill(job, signal.SIGSTOP)  # a quick machine would be done before the next runner is there
    os.kill(runner, signal.SIGKILL)
    until(lambda: not mark(runner))
    then = step(silent, id)
    os.kill(job, signal.SIGCONT)
    until(lambda: step(silent, id) > then)  # the job does not mind
    os.kill(job, signal.SIGSTOP)
    assert silent.look(id)["state"] == "running" and mark(job)
    line.list()  # a page that is opened again
    until(lambda: runner_pid(line) not in (0, runner))
    assert line.look(id)["pid"] == job, "nothing is run twice"
    line.pause(id)
    until(lambda: signal.SIGINT in pending(job))  # the new runner has to be there first, and to hear the wish
    os.kill(job, signal.SIGCONT)
    told = settled(line, id, "paused")
    place_of_run, paused = space / told["run"], int(told["message"].split("step ")[1].split(";")[0])
    assert "everything is saved" in told["message"] and 3 < paused < STEPS
    assert not mark(job) and not (place_of_run / "adapter.safetensors").exists()
    assert told["again"] == ["resume", told["run"]]
    new = line.resume(id)
    assert settled(line, new, "done")["result"]["steps"] == STEPS
    assert "Going on from step" in line.log(new)
    assert run(["train", *training, "--out", str(tmp_path / "whole"), "--json"]) == 0
    assert (place_of_run / "adapter.safetensors").read_bytes() == (tmp_path / "whole" / "adapter.safetensors").read_bytes()


def test_pictures_are_drawn_by_a_warm_easel_with_the_bytes_of_the_command_line(
    line: Line, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(out: str, **more) -> str:
        return line.put(Draw.from_tree({"requests": [REQUEST | more.pop("request", {})], "out": out, **more}, "test"))

    def took(told: dict) -> float:
        return told["ended"] - told["began"]

    first = draw("one", previews=2)
    wrong = draw("two", request={"adapters": [{"file": "no-such.safetensors"}]})
    cold, *warm = (settled(line, id, "done") for id in (first, *(draw(name) for name in ("three", "again", "once-more"))))
    assert min(map(took, warm)) < took(cold) / 3, (took(cold), *map(took, warm))  # the best of three: the machine may be busy with something else
    failed = settled(line, wrong, "failed")
    assert failed["error"]["kind"] == "AdapterError" and "no-such.safetensors" in failed["message"]
    from PIL import Image

    preview = line.picture(first)
    assert preview is not None and max(Image.open(preview).size) <= 384
    assert cold["progress"]["done"] == cold["progress"]["total"] == REQUEST["steps"]

    monkeypatch.chdir(tmp_path)
    assert run(["generate", REQUEST["prompt"], "--steps", "3", "--seed", "5", "--out", "pictures", "--device", "cpu", "--json"]) == 0
    (mine,) = (tmp_path / "pictures").glob("*.png")
    for told in (cold, *warm):
        (drawn,) = told["result"]["pictures"]
        assert (space / drawn).read_bytes() == mine.read_bytes()

    long = draw("four", request={"steps": 1000})
    until(lambda: (line.look(long)["progress"] or {}).get("done"))
    easel = line.look(long)["pid"]
    line.cancel(long)
    assert settled(line, long, "cancelled")["again"] == "draw" and list((space / "four").glob("*.png")) == []
    dies = draw("five", request={"steps": 1000})
    until(lambda: (line.look(dies)["progress"] or {}).get("done"))
    assert line.look(dies)["pid"] == easel, "a cancelled picture does not cost the models"
    os.kill(easel, signal.SIGKILL)
    waits = draw("six")
    assert "SIGKILL" in settled(line, dies, "failed")["message"]
    settled(line, waits, "done")
    easels = [process for process in of_space(space) if "darkroom.jobs.queue.easel" in process.cmdline()]
    assert len(easels) == 1
    command = line.put(Command(argv=("recipes",)))
    assert "demo" in settled(line, command, "done")["result"]["recipes"]
    assert not easels[0].is_running(), "its models make room for a command"


def test_a_cancelled_training_leaves_no_process_and_says_what_is_there(line: Line, training: tuple[str, ...]) -> None:
    id = line.put(Command(argv=("train", *training, "--set", "train.length=5000 steps")))
    until(lambda: step(line, id) >= 1)
    progress = line.shelf.find(id).progress_file
    assert of_order(progress) and os.environ.get(PROGRESS) is None
    line.cancel(id)
    told = settled(line, id, "cancelled")
    assert of_order(progress) == []
    assert "The last whole checkpoint is of step" in told["message"] and f"darkroom resume {told['run']}" in told["message"]
    assert told["again"] == ["resume", told["run"]]
