"""How a job is asked to stop: politely, again, and at last made to. A pause only ever asks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from darkroom.jobs.queue.folder import Folder
from darkroom.jobs.queue.life import family, of_order, send

GRACE = 30.0
"""Seconds that a training has to finish its step and save, before Ctrl-C is given a second time, which interrupts at once."""
SHORT = 5.0
"""Seconds from there to SIGTERM, and from there to SIGKILL."""
DRAWN = 15.0
"""Seconds that the easel has to come to the end of a step."""
UNHEARD = 3
"""Steps after which a Ctrl-C has plainly gone unheard: a training stops after the step at hand."""


KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has no such signal, and its SIGTERM is one."""


@dataclass
class Asking:
    """What has been asked of one job, process `pid`; heard every moment while it works."""

    folder: Folder
    pid: int
    drawing: bool = False
    clock: Callable[[], float] = time.monotonic
    grace: float = GRACE
    short: float = SHORT
    _paused_at: int | None = field(default=None, init=False)
    _cancelled: float | None = field(default=None, init=False)
    _rungs: list[tuple[float, signal.Signals]] = field(default_factory=list, init=False)

    def hear(self, wish: str | None) -> None:
        """Do what is due now."""
        match wish:
            case "pause":
                self._pause()
            case "cancel":
                self._cancel()

    def _pause(self) -> None:
        step = int(((self.folder.progress() or {}).get("figures") or {}).get("step", 0))
        if self._paused_at is None or step >= self._paused_at + UNHEARD:  # a Ctrl-C that came in the middle of an import may be lost
            self._paused_at = step
            self._interrupt()

    def _cancel(self) -> None:
        if self._cancelled is None:
            self._cancelled = self.clock()
            self._rungs = self._ladder()
        while self._rungs and self.clock() - self._cancelled >= self._rungs[0][0]:
            match self._rungs.pop(0)[1]:
                case signal.SIGINT:
                    self._interrupt()
                case number:
                    self._all(number)

    def _ladder(self) -> list[tuple[float, signal.Signals]]:
        """Seconds after the wish, and what is sent then. A pause that is under way has been asked politely already."""
        if self.drawing:  # it looks for the wish after every step
            return [(DRAWN, signal.SIGTERM), (DRAWN + self.short, KILL)]
        polite = [] if self._paused_at is not None else [(0.0, signal.SIGINT)]
        after = self.grace + self.short
        return [*polite, (self.grace, signal.SIGINT), (after, signal.SIGTERM), (after + self.short, KILL)]

    def _interrupt(self) -> None:
        """Ctrl-C for the job itself, which tells its own processes."""
        try:
            os.kill(self.pid, signal.SIGINT)
        except ProcessLookupError:
            return

    def _all(self, number: signal.Signals) -> None:
        """For every process of the job."""
        send({*family(self.pid), *of_order(self.folder.progress_file)}, number)
