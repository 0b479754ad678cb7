"""Small values with a meaning of their own: durations with their unit, and seeds for every draw."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Unit = Literal["steps", "epochs"]


@dataclass(frozen=True)
class Duration:
    """A length of training that carries its unit: `Duration.parse("20 epochs")`."""

    amount: int
    unit: Unit

    @classmethod
    def parse(cls, text: Any) -> Duration:
        """Read "500 steps" or "20 epochs" (a singular is accepted). Raises ValueError with the rule."""
        if isinstance(text, Duration):
            return text
        match = re.fullmatch(r"\s*(\d+)\s*(step|epoch)s?\s*", str(text))
        if not match:
            raise ValueError(f'{text!r} is not a duration: write a whole number and its unit, as in "500 steps" or "20 epochs"')
        return cls(int(match[1]), "steps" if match[2] == "step" else "epochs")

    def steps(self, steps_per_epoch: float) -> int:
        """The same length in optimizer steps."""
        return self.amount if self.unit == "steps" else math.ceil(self.amount * steps_per_epoch - 1e-6)

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


DurationField = Annotated[
    Duration,
    BeforeValidator(Duration.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ (step|epoch)s?$", "examples": ["500 steps", "20 epochs"]}),
]


def seed_for(seed: int, purpose: str, *ids: int | str) -> int:
    """A 63-bit seed for one random draw: a pure function of (seed, purpose, step or epoch, sample id).

    Every draw of Darkroom goes through here, so that no draw depends on what was drawn before it, on workers or on processes.
    """
    text = "\x1f".join([str(seed), purpose, *map(str, ids)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
