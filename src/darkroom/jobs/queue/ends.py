"""What the end of a job means: by the code it ended with, what it told at its end, and what had been asked of it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from darkroom.jobs.queue.folder import Standing

FAULT = "Fault"
"""The kind of what is nobody's mistake but ours: a process that told it is not trusted with more."""
STOPPED = 130
"""The code of a command that Ctrl-C ended."""


@dataclass(frozen=True)
class End:
    """All that is known of an ended job."""

    code: int | None
    """Below 0 by that signal; None where nobody saw it end."""
    said: dict[str, Any] | None
    """The JSON object that it told."""
    wish: str | None
    """What had been asked of it: cancel, pause."""
    log: str = ""
    """The last that it wrote."""

    @property
    def standing(self) -> Standing:
        """How its order stands from now on."""
        if self.said is not None and "error" not in self.said and self.code in (0, None):
            return "done"
        if self.wish == "cancel":
            return "cancelled"
        if self.stopped:
            return "paused"
        return "lost" if self.code is None and self.said is None else "failed"

    @property
    def stopped(self) -> bool:
        """Whether it ended as a command does that is asked to stop."""
        asked = self.wish == "pause" and self.said is None and self.code in (-signal.SIGINT, STOPPED)  # before it could say so
        return asked or (self.said is not None and self.said.get("kind") == "Stopped")

    @property
    def words(self) -> str:
        """Why, as far as it is known."""
        told = str(self.said.get("error", "")) if self.said else ""
        match self.standing:
            case "done":
                return ""
            case "cancelled":
                return "Cancelled."
            case "paused":
                return told or "Paused."
            case "lost":
                return "It ended, and nobody saw how: the machine was restarted, or it was killed together with what looked after it."
        return told or self._last()

    def _last(self) -> str:
        """Of a job that said nothing for itself."""
        if self.code is not None and self.code < 0:
            return f"It was killed by {named(-self.code)}."
        lines = [line for line in self.log.splitlines() if line.strip()][-3:]
        return f"It ended with code {self.code} and told no result. The last it wrote: {' / '.join(lines) or 'nothing'}"


def named(number: int) -> str:
    """A signal with what it usually means."""
    why = {signal.SIGKILL: ", as a system does that runs out of memory", signal.SIGSEGV: ", a fault in a library"} if os.name == "posix" else {}
    try:
        return f"{signal.Signals(number).name} (signal {number}{why.get(signal.Signals(number), '')})"
    except ValueError:
        return f"signal {number}"
