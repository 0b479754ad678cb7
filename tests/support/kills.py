"""`collect` in a process of its own, stopped without warning again and again: what was done before a kill must not be asked for after it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from darkroom.data.fetch import Limits
from darkroom.data.journal import HIDDEN, Journal
from darkroom.jobs.collect import Collect, collect
from darkroom.values import seed_for
from support.server import Server, png

JOBS = 8
COMMAND = """
import sys
from darkroom.jobs.collect import Collect, collect
from darkroom.data.fetch import Limits
from pathlib import Path

try:
    collect(Collect(Path(sys.argv[1]), Path(sys.argv[2]), limits=Limits(jobs=8, per_host=8)))
except KeyboardInterrupt as stopped:
    print(stopped)
    sys.exit(130)
"""


def started(source: Path, to: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(source), str(to)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def wait_for(to: Path, entries: int) -> None:
    journal = to / HIDDEN / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not journal.is_file() or journal.read_bytes().count(b"\n") < entries:
        assert time.monotonic() < deadline, "the run does not come on"
        time.sleep(0.01)


def killed(folder: Path, rows: int, kills: int) -> dict[str, float]:
    """Collect so many rows with so many kills -9 in between, then to the end; asserts that nothing is lost or fetched twice, and tells how it went."""
    source, to, begun = folder / "list.txt", folder / "set", time.monotonic()
    with Server(delay=0.06) as server:
        source.write_text("\n".join(server.url(f"/picture/{n}.png") for n in range(rows)), encoding="utf-8")
        asked_when_done: dict[str, int] = {}
        stood = []
        for kill in range(kills):
            process = started(source, to)
            _wait_a_while(to, kill, rows // kills // 2)
            process.kill()
            assert process.wait() == -9, "it was stopped before its end"
            for address in _done(to):
                asked_when_done.setdefault(address, server.asked[address.removeprefix(server.url(""))])
            stood.append(len(asked_when_done))
        found = collect(Collect(source, to, limits=Limits(jobs=JOBS, per_host=JOBS)))
        asked = Counter(server.asked)
        assert found.before == stood[-1] and found.before + found.new == rows and not found.failed, "nothing is lost"
        for address, times in asked_when_done.items():
            assert asked[address.removeprefix(server.url(""))] == times, f"{address} was done and asked for again"
        assert sum(asked.values()) - rows <= kills * JOBS, "only what was under way at a kill is asked for again"
        for entry in Journal(to).entries.values():
            number = int(entry.address.rpartition("/")[2].removesuffix(".png"))
            assert (to / entry.file).read_bytes() == png(number), "the bytes are the server's"
    return {"rows": rows, "kills": kills, "stood": stood, "asked": sum(asked.values()), "seconds": round(time.monotonic() - begun, 1)}  # type: ignore[dict-item]


def _wait_a_while(to: Path, kill: int, share: int) -> None:
    """To a moment of no order: every third time anywhere from its start, else after some rows and a fraction of the next."""
    draw = seed_for(0, "kill", kill)
    if kill % 3 == 2:
        time.sleep(draw % 500 / 1000)
        return
    wait_for(to, len(Journal(to).entries) + 1 + draw % share)
    time.sleep(draw % 40 / 1000)


def _done(to: Path) -> set[str]:
    return {entry.address for entry in Journal(to).entries.values() if entry.file and (to / entry.file).is_file()}
