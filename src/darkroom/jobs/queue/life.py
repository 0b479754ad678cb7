"""Processes by who they really are: a number that the system gives away again is none. Which are alive, which belong to an order, and how they are ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from darkroom.jobs.ledger import PROGRESS

STAT = Path("/proc")
BIRTH = 5.0
"""Seconds in which a process may still be on its way into its program: Linux shows no environment of it until then."""


def mark(pid: int) -> str:
    """Who the process `pid` is, another each time the number is used; "" where no such process lives (one that waits to be buried does not)."""
    if STAT.joinpath("self/stat").exists():
        return _linux(pid)
    try:
        found = psutil.Process(pid)
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{found.create_time():.2f}"
    except psutil.Error:
        return ""


def _linux(pid: int) -> str:
    """Boot and clock ticks since then: unlike a time of day, no clock that is set later changes them."""
    try:
        facts = (STAT / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if facts[0] in "ZX" else f"{_boot()}:{facts[19]}"


@cache
def _boot() -> str:
    return (STAT / "sys/kernel/random/boot_id").read_text().strip()


def alive(pid: int | None, who: str) -> bool:
    """Whether that very process lives."""
    return bool(pid and who) and mark(pid or 0) == who


def of_order(progress: Path) -> list[psutil.Process]:
    """Every process of this person's that an order's job has started, the eldest first; those whose parents are gone too."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _environment(process).get(PROGRESS) == str(progress) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.create_time(), process.pid, process))
        except (psutil.Error, OSError):  # another person's, or gone meanwhile
            continue
    return [process for _, _, process in sorted(found, key=lambda row: row[:2])]


def _environment(process: psutil.Process) -> dict[str, str]:
    """Its environment, which is waited for where it was started a moment ago. Raises psutil.Error."""
    while not (told := dict(process.environ())) and process.exe() and time.time() - process.create_time() < BIRTH:
        time.sleep(0.01)
    return told


def family(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """A signal to each that is still there."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def end(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ask each to end, and make it after `grace` seconds."""
    left = list(processes)
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            try:
                ask(process)
            except psutil.Error:
                continue
        _, left = psutil.wait_procs(left, timeout=grace)
        if not left:
            return
