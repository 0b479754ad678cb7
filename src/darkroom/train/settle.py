"""Has it learned what it will learn? A rule on the held-out losses so far, asked after each measurement, that a resumed run answers alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from darkroom.spec import Spec


class Settled(Spec):
    """A training has settled where the loss on held-out pictures has not improved for a while (Prechelt 1998, with a least improvement)."""

    patience: int = Field(3, ge=1, le=1000, description="So many measurements in a row without a real improvement end the training.")
    least: float = Field(0.05, ge=0, lt=1, description="What is real: this share of all that the loss has fallen so far; less is chance.")


def measured(log: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(step, held-out loss) of the log's rows that have one, in the order of steps."""
    return sorted((int(row["step"]), float(row["validation"])) for row in log if "validation" in row)


def settled_at(history: Sequence[tuple[int, float]], rule: Settled) -> int | None:
    """The step at which a training settled, as far as (step, held-out loss) by step tell; None while it has not. A pure function of the history.

    The step is that of the last real improvement, at least `patience` measurements ago: what was learned since is not to be seen in the loss, or was learned by
    heart. The base (step 0) is what falls are counted from and is never the answer: a loss that never falls settles at the first measurement.
    On simulated histories that jitter by a twentieth of the whole fall it settles before the loss turns in 9 of 10 (by a tenth: in 85 %), and on average at
    most a tenth of the fall above the lowest
    (tests/train/test_settle.py). The scores of a preview or two are not asked: from one checkpoint to the next they are mostly chance.
    """
    later = [(step, loss) for step, loss in history if step]
    if not later:
        return None
    (at, best), since, start = later[0], 0, history[0][1]
    for step, loss in later[1:]:
        since += 1
        if loss < best - rule.least * max(0.0, start - best):
            at, best, since = step, loss, 0
    return at if since >= rule.patience else None
