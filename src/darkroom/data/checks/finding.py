"""What a check says of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from darkroom.data.look import Look
from darkroom.spec import Spec

Word = Literal["reject", "unknown", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`reject` with the reason in words; `unknown` where the picture does not say; `note` where it is good to know and no fault."""

    word: Word
    reason: str
    """The value, the limit and the way out."""


class Rule(Spec):
    """What every check has. A check is a subclass with its `kind` and its limits as fields, `judge`, and one word in `checks/__init__.py`."""

    wanted: ClassVar[bool] = True
    """Whether it is made without being asked for."""
    measure: ClassVar[str] = ""
    """What must be measured for it beside a look (`jobs/measure.py`); "" for nothing."""
    needs_picture: ClassVar[bool] = True
    """Whether it says nothing of files that give no picture."""

    def figures(self, look: Look) -> dict[str, float]:
        """What it goes by, for the manifest; {} where the picture does not say."""
        raise NotImplementedError

    def judge(self, look: Look) -> Finding | None:
        """None where the picture passes. A pure function of the look and the limits."""
        raise NotImplementedError
