"""One training in several processes of this machine: started, heard, and taken down together.

Each is told as torchrun tells it who it is (RANK, WORLD_SIZE, MASTER_ADDR ...), and works as under `accelerate launch`. The first one's progress is the
person's to see. Where one dies the others could not go on without it: they are ended, and what is told is which it was, why, and how to go on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from darkroom import errors
from darkroom.errors import DarkroomError, RecipeError, RunError
from darkroom.jobs.stopping import at_once, standing
from darkroom.train.launch import check_device
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

GRACE = 5.0
"""Seconds from being asked to end until being made to."""
LAST = 60.0
"""Seconds that a process may take to be gone once it was made to end: a driver takes a card's memory back first."""
HEARSAY = 2.0
"""Seconds in which whoever ended first is looked for, when another tells of it already."""
STOPPED = 130
"""The code of a command that Ctrl-C ended."""
DARKROOM = (sys.executable, "-m", "darkroom")


def train_together(recipe: Recipe, out: Path, count: int, sidecar: float | None = None) -> Run:
    """Train in `count` processes: what one learns, but for rounding. Raises what a process raised; RunError for one that died; KeyboardInterrupt on Ctrl-C."""
    check_count(count, recipe)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        written = Path(folder) / "recipe.toml"
        written.write_text(recipe.to_toml(), encoding="utf-8")
        more = () if sidecar is None else ("--sidecar", str(sidecar))
        _run([*DARKROOM, "train", str(written), "--out", str(out), *more, "--json"], count, out, recipe.device == "cpu")
    return Run.open(out)


def resume_together(folder: Path, count: int) -> Run:
    """Go on in `count` processes, however many there were before. Raises as `train_together`."""
    recipe = Run.open(folder).recipe
    check_count(count, recipe)
    _run([*DARKROOM, "resume", str(folder), "--json"], count, folder, recipe.device == "cpu")
    return Run.open(folder)


def check_count(count: int, recipe: Recipe) -> None:
    """Before anything is started. Raises RecipeError."""
    if count < 1:
        raise RecipeError(f"--processes {count}: a training wants one process or more.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(f"--processes {count}: this is one of {os.environ['WORLD_SIZE']} processes already (WORLD_SIZE). Leave the option out.")
    check_device(recipe, count > 1)
    if count > 1 and recipe.train.fused:
        raise RecipeError(f"--processes {count}: train.fused = true steps each tensor before gradients could be added up. Add --set train.fused=false.")


def _run(command: Sequence[str], count: int, run: Path, on_cpu: bool) -> None:
    """Until all have ended well. Raises for the one that did not."""
    with at_once(run, count), _crew(command, count, on_cpu) as crew, _forwarded(crew[0]) as asked:
        while any(member.code is None for member in crew) and not any(member.code for member in crew):
            time.sleep(0.05)
        if (ended := _culprit(crew)) is not None:
            _wait(crew if ended.kind == "Stopped" else (), GRACE)  # the others stop by themselves, at the same step
            _end_all(crew)
            raise ended.error(standing(run, count), asked.is_set())


@dataclass(frozen=True)
class Member:
    """One process. Standard output holds what it has to tell at its end, as JSON; the first one's progress goes to the terminal."""

    rank: int
    size: int
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    noise: IO[bytes] | None

    @property
    def code(self) -> int | None:
        """How it ended: below 0 by that signal; None while it works."""
        return self.process.poll()

    @property
    def name(self) -> str:
        return f"process {self.rank} of {self.size} (pid {self.process.pid})"

    @property
    def answer(self) -> dict[str, Any]:
        """What it said at its end."""
        self.out.seek(0)
        try:
            found: dict[str, Any] = json.loads(self.out.read() or b"{}")
        except ValueError:
            return {}
        return found

    @property
    def kind(self) -> str:
        """The kind of its complaint: "RunError", "Stopped", "Fault", ... or "" for none."""
        return "Stopped" if self.code == STOPPED else str(self.answer.get("kind", ""))

    def told(self) -> str:
        """Its complaint; of a fault also the last that it wrote."""
        said = str(self.answer.get("error", ""))
        if self.noise is None or self.kind not in ("Fault", ""):
            return said
        self.noise.seek(0)
        return "\n".join([said, *self.noise.read().decode(errors="replace").splitlines()[-20:]]).strip()

    def error(self, way_out: str, asked: bool) -> BaseException:
        """What is raised for it."""
        code, said = self.code or 0, self.told()
        if self.kind == "Stopped" or (asked and self.rank == 0 and code == -signal.SIGINT):
            return KeyboardInterrupt(f"Stopped. {way_out}")
        if code < 0:
            return RunError(f"{self.name.capitalize()} was killed by {_signal(-code)}, and the others were ended with it. {way_out}")
        if self.kind == "CrewLost" or self.kind not in KINDS:
            return RuntimeError(f"{self.name} ended with code {code}, and the others were ended with it. {way_out} It said: {said or 'nothing'}")
        return KINDS[self.kind](said)


KINDS: dict[str, type[DarkroomError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, DarkroomError)
}  # fmt: skip
CRASHES = tuple(getattr(signal, name) for name in ("SIGABRT", "SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS") if hasattr(signal, name))
"""Signals that a process gives itself."""
WEIGHTY = ("killed", "said", "stopped", "crashed", "fault", "lost")
"""Of several that have ended, whose end explains the others'. A library that loses its connections may crash of it; kill -9 comes from outside."""


def _culprit(crew: Sequence[Member]) -> Member | None:
    """The one that ended badly and first: one that merely lost another is believed only if nobody else is found."""
    deadline = time.monotonic() + HEARSAY
    while True:
        bad = sorted((member for member in crew if member.code), key=lambda member: WEIGHTY.index(_end(member)))
        if not bad or _end(bad[0]) != "lost" or time.monotonic() > deadline:
            return bad[0] if bad else None
        time.sleep(0.05)


def _end(member: Member) -> str:
    match member.kind:
        case "CrewLost":
            return "lost"
        case "Stopped":
            return "stopped"
        case kind if kind in KINDS:
            return "said"
        case _ if (code := member.code or 0) < 0:
            return "crashed" if -code in CRASHES else "killed"
        case _:
            return "fault"


def _signal(number: int) -> str:
    why = {signal.SIGKILL: ", as a system does that runs out of memory", signal.SIGSEGV: ", a fault in a library"} if os.name == "posix" else {}
    try:
        return f"{signal.Signals(number).name} (signal {number}{why.get(signal.Signals(number), '')})"
    except ValueError:
        return f"signal {number}"


# ---- processes ----------------------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _crew(command: Sequence[str], count: int, on_cpu: bool) -> Iterator[list[Member]]:
    """The processes; at the end of the block none is left."""
    crew = list[Member]()
    with ExitStack() as files:
        port = files.enter_context(free_port())
        try:
            for rank in range(count):
                out = files.enter_context(tempfile.TemporaryFile())
                noise = files.enter_context(tempfile.TemporaryFile()) if rank else None
                process = _started(command, _environment(rank, count, port, on_cpu), out, noise)
                crew.append(Member(rank, count, process, out, noise))
            yield crew
        finally:
            _end_all(crew)


def _started(command: Sequence[str], environment: Mapping[str, str], out: IO[bytes], noise: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches the launcher alone, which asks the first process, which asks the others at the end of a step."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=noise, env=dict(environment), start_new_session=True)


def _environment(rank: int, count: int, port: int, on_cpu: bool) -> dict[str, str]:
    """As torchrun sets it for one host. accelerate chooses the GPU by LOCAL_RANK, and gloo or nccl by whether there are GPUs."""
    told = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "NODE_RANK": 0,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DARKROOM_LAUNCHER": os.getpid(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // count),
    }  # fmt: skip
    more = {"ACCELERATE_USE_CPU": "true"} if on_cpu else {}
    return {**os.environ, **{name: str(value) for name, value in told.items()}, **more}


@contextmanager
def free_port() -> Iterator[int]:
    """A port at which the processes meet. Within the block it is taken, so that no other program gets it, and the first process may listen all the same."""
    with socket.socket() as held:
        if os.name == "posix":  # elsewhere SO_REUSEADDR means that anybody may
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        if os.name != "posix":
            held.close()
        yield port


def _end_all(crew: Sequence[Member]) -> None:
    """Ask each to end, and make it after a while."""
    for end, patience in ((subprocess.Popen.terminate, GRACE), (subprocess.Popen.kill, LAST)):
        left = [member for member in crew if member.code is None]
        for member in left:
            end(member.process)
        _wait(left, patience)


def _wait(crew: Sequence[Member], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(member.code is None for member in crew) and time.monotonic() < deadline:
        time.sleep(0.02)


@contextmanager
def _forwarded(first: Member) -> Iterator[threading.Event]:
    """Within the block Ctrl-C asks the first process to stop, which finishes the step and saves; a second one interrupts it, a third one everything."""
    asked, times = threading.Event(), list[int]()
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":  # Windows gives Ctrl-C to all processes of a console
        yield asked
        return

    def forward(number: int, frame: object) -> None:
        asked.set()
        times.append(number)
        if len(times) > 2:
            raise KeyboardInterrupt
        if first.code is None:
            first.process.send_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, forward)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
