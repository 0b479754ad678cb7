"""Choices: two pictures side by side, and which of them a person preferred without knowing which is which."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

Answer = Literal["left", "right", "tie"]
ANSWERS: tuple[Answer, ...] = ("left", "right", "tie")


@dataclass(frozen=True)
class Choice:
    """One answer of one rater."""

    left: str
    """The arm whose picture was shown on the left."""
    right: str
    answer: Answer
    """ "tie" is "can't tell"."""
    prompt: Hashable
    """Answers to one prompt are not independent of each other: it is the cluster."""
    rater: str = ""
    seed: Hashable = 0
    again: bool = False
    """The rater had answered this pair before, with the sides swapped."""

    @property
    def pair(self) -> Hashable:
        """What was compared, whoever looked and whichever side: two answers to the same pair may be held against each other."""
        return tuple(sorted((self.left, self.right))), self.prompt, self.seed

    @property
    def value(self) -> int:
        """+1 where the arm first in the alphabet was preferred, -1 where the other one, 0 for "can't tell": what is left when sides are forgotten."""
        if self.answer == "tie":
            return 0
        return 1 if (self.answer == "left") == (self.left <= self.right) else -1
