"""What looks after one device: takes its orders one by one, in their turn, and ends when none is left.

`python -m darkroom.jobs.queue.runner STUDIO DEVICE [WARM]`
It is nobody's child that matters: the server may be killed, and it goes on. Killed itself, its job goes on; the next runner finds it by number and mark,
waits for it, and settles what came of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from darkroom.fence import variable
from darkroom.files import write_json
from darkroom.jobs.ledger import PROGRESS
from darkroom.jobs.queue.ends import FAULT, End
from darkroom.jobs.queue.folder import Folder, read_state
from darkroom.jobs.queue.launch import lives, place, register, seeing, unregister
from darkroom.jobs.queue.life import alive, end, family, mark, of_order
from darkroom.jobs.queue.order import Command, Draw, OrderError
from darkroom.jobs.queue.shelf import Shelf
from darkroom.jobs.queue.stopping import Asking
from darkroom.jobs.queue.telling import standing

DARKROOM = (sys.executable, "-m", "darkroom")
EASEL = (sys.executable, "-m", "darkroom.jobs.queue.easel")
POLL = 0.1
"""Seconds between two looks at a job."""
IDLE = 1.0
"""Seconds that an empty line is watched before the runner ends."""
HANDOVER = 15.0
"""Seconds that a runner waits for the one before it to be gone."""


@dataclass
class Runner:
    """Looks after `device` of a studio. `warm`: seconds that the easel's models stay open."""

    shelf: Shelf
    device: str
    warm: float
    easel: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def go(self) -> None:
        """Until nothing is left to do."""
        self.adopt()
        while (folder := self.shelf.claim(self.device)) is not None or self.rest():
            if folder is not None:
                self.take(folder)
        self.leave_easel()

    def take(self, folder: Folder) -> None:
        """Run one order to its end."""
        order = self.shelf.order(folder)
        try:
            match order:
                case Command():
                    self.leave_easel()
                    self.command(folder, order)
                case Draw():
                    self.draw(folder)
                case None:
                    self.fail(folder, "This version of Darkroom cannot read the order (order.json). Put it anew.")
                case _:
                    assert_never(order)
        except OSError as error:
            self.fail(folder, f"It could not be started: {error}.")

    def command(self, folder: Folder, order: Command) -> None:
        """In a process and session of its own, which writes to files: it needs nobody to listen."""
        environment = seeing(self.device) | variable(order.grounds) | {PROGRESS: str(folder.progress_file)}
        with folder.said_file.open("wb") as said, folder.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*DARKROOM, *order.words], stdin=subprocess.DEVNULL, stdout=said, stderr=log, cwd=self.shelf.workspace,
                env=environment, start_new_session=True,
            )  # fmt: skip
        self.shelf.change(folder, pid=process.pid, mark=mark(process.pid))
        self.watch(folder, lambda: process.poll() is None, process.pid)
        self.settle(folder, process.wait())

    def draw(self, folder: Folder) -> None:
        """By the easel, which is started where there is none; and once more where it had died before it heard."""
        for _ in range(2):
            easel = self.easel = self.easel if self.easel is not None and self.easel.poll() is None else self.start_easel()
            self.hand(folder, easel)
            if folder.log_file.exists():  # it is opened before anything else
                break
        else:
            folder.log_file.write_bytes(self.easel_log.read_bytes())  # it cannot so much as begin: here is why
        said = folder.said() or {}
        self.settle(folder, None if said else easel.poll())
        if said.get("kind") == FAULT:  # it is about to end by itself
            self.leave_easel()

    def hand(self, folder: Folder, easel: subprocess.Popen[bytes]) -> None:
        """Give an order to the easel, and watch until it is told or the easel has ended."""
        self.shelf.change(folder, pid=easel.pid, mark=mark(easel.pid))
        assert easel.stdin is not None
        try:
            easel.stdin.write(f"{folder.id}\n".encode())
        except BrokenPipeError:
            easel.wait()
        self.watch(folder, lambda: easel.poll() is None and not folder.said_file.exists(), easel.pid)
        if not folder.said_file.exists():
            easel.wait()

    def start_easel(self) -> subprocess.Popen[bytes]:
        """Its standard input is this process's to close: it ends with it."""
        with self.easel_log.open("wb") as log:
            return subprocess.Popen(
                [*EASEL, str(self.shelf.studio)], bufsize=0, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.shelf.workspace,
                env=seeing(self.device), start_new_session=True,
            )  # fmt: skip

    @property
    def easel_log(self) -> Path:
        """What it says between orders."""
        return place(self.shelf.studio, self.device) / "easel.log"

    def leave_easel(self) -> None:
        """Its models make room; what is drawn is drawn to its end before."""
        if self.easel is not None:
            assert self.easel.stdin is not None
            self.easel.stdin.close()
            try:
                self.easel.wait(10)
            except subprocess.TimeoutExpired:
                end(family(self.easel.pid), 5)
                self.easel.wait()
            self.easel = None

    def watch(self, folder: Folder, works: Callable[[], bool], pid: int) -> None:
        """Until the job has ended: hear what is wished of it, and keep its log short."""
        asking = Asking(folder, pid, drawing=isinstance(self.shelf.order(folder), Draw))
        while works():
            state = read_state(folder)
            asking.hear(state.wish if state else None)
            folder.shorten_log()
            time.sleep(POLL)

    def settle(self, folder: Folder, code: int | None) -> None:
        """Write what came of it. Nothing that it started is left."""
        if strays := of_order(folder.progress_file):
            end(strays, 5)
        with self.shelf.held():
            state = read_state(folder)
            if state is None:
                return
            found = End(code, folder.said(), state.wish, folder.log(1 << 13))
            on = "" if found.standing == "done" or "darkroom resume" in found.words else standing(self.shelf.order(folder), self.shelf.workspace)
            if found.said is not None:
                write_json(folder.result_file, found.said)
                folder.said_file.unlink(missing_ok=True)
            words = " ".join(part for part in (found.words, on) if part)
            self.shelf.change(folder, state=found.standing, code=found.code, message=words[:4000], ended=time.time(), wish=None, pid=None, mark="")

    def fail(self, folder: Folder, words: str) -> None:
        """An order that never became a job."""
        self.shelf.change(folder, state="failed", message=words, ended=time.time(), wish=None, pid=None, mark="")

    def adopt(self) -> None:
        """What a runner before this one left running, each to its end; what it took and had not begun goes back into the line.

        A log is opened before anything is started: where there is none, nothing was. Where there is one and no process, the job has ended.
        """
        for folder, state in self.shelf.open(self.device):
            if state.state == "running":
                pid, who = state.pid, state.mark
                if pid is None and (found := of_order(folder.progress_file)):  # started and not yet written down
                    pid, who = found[0].pid, mark(found[0].pid)
                    self.shelf.change(folder, pid=pid, mark=who)
                if pid is not None:
                    self.await_stranger(folder, pid, who)
                if folder.log_file.exists():
                    self.settle(folder, None)
                else:
                    self.shelf.change(folder, state="waiting", began=None, pid=None, mark="")

    def await_stranger(self, folder: Folder, pid: int, who: str) -> None:
        """Until a job has ended that another runner started. An easel lives on when its order is told."""
        drawing = isinstance(self.shelf.order(folder), Draw)
        self.watch(folder, lambda: alive(pid, who) and not (drawing and folder.said_file.exists()), pid)

    def rest(self) -> bool:
        """Wait for an order, as long as models are kept open. False once the runner has signed off: whoever puts the next order starts another."""
        until = time.monotonic() + (self.warm if self.easel is not None else IDLE)
        while time.monotonic() < until:
            if self.shelf.waiting(self.device):
                return True
            if self.easel is not None and self.easel.poll() is not None:
                break
            time.sleep(POLL)
        self.leave_easel()
        with self.shelf.held():
            if self.shelf.waiting(self.device):
                return True
            unregister(self.shelf.studio, self.device)
            return False


def look_after(studio: Path, device: str, warm: float) -> None:
    """Be the device's runner, unless it has one."""
    from filelock import FileLock, Timeout

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server behind nohup or & ignores Ctrl-C, and jobs would inherit that: they must hear it
    shelf, folder = Shelf(studio), place(studio, device)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "runner.lock", timeout=HANDOVER):
            register(studio, device, os.getpid())
            Runner(shelf, device, warm).go()
    except Timeout:
        if not lives(studio, device):
            raise OrderError(f"{folder / 'runner.lock'}: is held by a process that is not known.") from None


if __name__ == "__main__":
    look_after(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 300.0)
