"""What a job's end means, for every way in which one can end."""

from __future__ import annotations

import signal

import pytest

from darkroom.jobs.queue.ends import End

STOP = {"error": "Stopped at step 4; everything is saved. Go on with: darkroom resume runs/x", "kind": "Stopped"}
MISTAKE = {"error": "no such folder", "kind": "DatasetError"}


@pytest.mark.parametrize(
    ("code", "said", "wish", "state", "words"),
    [
        (0, {"run": "x"}, None, "done", ""),
        (None, {"run": "x"}, None, "done", ""),  # its runner was killed, and it went on to its end
        (0, {"run": "x"}, "cancel", "done", ""),  # it was quicker than the wish
        (2, MISTAKE, None, "failed", "no such folder"),
        (None, MISTAKE, None, "failed", "no such folder"),
        (130, STOP, "pause", "paused", "Stopped at step 4"),
        (130, STOP, None, "paused", "Stopped at step 4"),  # Ctrl-C by a hand
        (130, STOP, "cancel", "cancelled", "Cancelled."),
        (-signal.SIGKILL, None, "cancel", "cancelled", "Cancelled."),
        (-signal.SIGINT, None, "pause", "paused", "Paused."),  # asked before it could answer
        (-signal.SIGKILL, None, "pause", "failed", "killed by SIGKILL"),
        (-signal.SIGKILL, None, None, "failed", "as a system does that runs out of memory"),
        (-signal.SIGSEGV, None, None, "failed", "a fault in a library"),
        (1, None, None, "failed", "The last it wrote: b / c / d"),
        (0, None, None, "failed", "told no result"),
        (None, None, None, "lost", "nobody saw how"),
    ],
)
def test_ends(code, said, wish, state, words) -> None:
    end = End(code, said, wish, "a\nb\n\nc\nd\n")
    assert end.standing == state and words in end.words
