"""Starting what looks after a device: one detached process each, which no server's end takes along."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from darkroom.files import write_json
from darkroom.jobs.ledger import PROGRESS
from darkroom.jobs.queue.folder import read_object
from darkroom.jobs.queue.life import alive, mark

PACKAGES = Path(__file__).parents[3]
"""Where darkroom lies."""
RESTART = 1.5
"""Seconds after its start in which no runner is started anew: one that cannot live is not started by every look."""


def place(studio: Path, device: str) -> Path:
    """The folder of a device: runner.json, runner.lock and the logs of what works there."""
    return studio / "devices" / device.replace(":", "-")


def lives(studio: Path, device: str) -> bool:
    """Whether a runner looks after the device, or is about to."""
    found = read_object(place(studio, device) / "runner.json") or {}
    return alive(found.get("pid"), str(found.get("mark", ""))) or 0 <= time.time() - float(found.get("at", 0)) < RESTART


def register(studio: Path, device: str, pid: int) -> None:
    """From now on that process looks after the device."""
    write_json(place(studio, device) / "runner.json", {"pid": pid, "mark": mark(pid), "at": time.time()})


def trouble(studio: Path, device: str) -> str:
    """The last word of a runner that ended without signing off; "" of one that said nothing, as after kill -9."""
    folder = place(studio, device)
    if not (folder / "runner.json").is_file():
        return ""
    try:
        lines = (folder / "runner.log").read_text(encoding="utf-8", errors="replace")[-4000:].splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def unregister(studio: Path, device: str) -> None:
    """Nobody does."""
    (place(studio, device) / "runner.json").unlink(missing_ok=True)


def start_runner(studio: Path, device: str, warm: float) -> subprocess.Popen[bytes]:
    """In a session of its own: it goes on when this process is killed."""
    folder = place(studio, device)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "runner.log"
    if log.is_file():
        log.replace(folder / "runner.old.log")
    with log.open("wb") as out:
        command = [sys.executable, "-m", "darkroom.jobs.queue.runner", str(studio), device, str(warm)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=studio.parent, env=environment(), start_new_session=True)
    register(studio, device, process.pid)
    return process


def environment() -> dict[str, str]:
    """This process's, without what belongs to it alone. Nothing that lies in the working folder is taken for a module (a `datasets` beside the pictures)."""
    mine = {name: value for name, value in os.environ.items() if name != PROGRESS and not name.startswith("DARKROOM_STUDIO")}
    paths = [str(PACKAGES), *(str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return mine | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONSAFEPATH": "1"}


def seeing(device: str) -> dict[str, str]:
    """The environment of a job that sees its own device and no other, so that "auto" is that one."""
    match device.partition(":"):
        case ("cuda", _, number):
            cards = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
            card = cards[int(number)] if int(number) < len(cards) else number
            return environment() | {"CUDA_VISIBLE_DEVICES": card}
        case ("cpu", _, _):
            return environment() | {"CUDA_VISIBLE_DEVICES": ""}
    return environment()
