"""Pairs: what two arms scored with the same prompt, seed and noise, and how much the second one gained over the first."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from darkroom.errors import DarkroomError

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=tuple[Hashable, Hashable])  # prompt, seed
ROUNDING = 1e-12  # relative to the largest score: smaller differences are what floating point made of equal ones


class ComparisonError(DarkroomError, ValueError):
    """Scores that cannot be compared, or a question about them that has no answer."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Gains (treated - control) pair by pair, and the prompt that each belongs to. Made by `of` or `match`."""

    gains: Floats
    """(n,) in the metric's unit."""
    prompt: NDArray[np.intp]
    """(n,) which of `prompts` a gain belongs to."""
    prompts: tuple[Hashable, ...]
    """The k prompts, at least two, in the order of their texts."""
    seeds: tuple[Hashable, ...]
    """(n,) the seed of each gain; empty where seeds were not named."""
    scale: float
    """The largest absolute score of either arm."""
    left_out: tuple[str, ...] = ()
    """Pairs that could not be formed, in words."""

    @classmethod
    def of(cls, control: Sequence[float], treated: Sequence[float], clusters: Sequence[Hashable], seeds: Sequence[Hashable] = ()) -> Pairs:
        """From scores side by side; `clusters[i]` is the prompt of pair i.

        Raises ComparisonError (a ValueError too) for unequal lengths, for NaN, and for fewer than two prompts.
        """
        if not len(control) == len(treated) == len(clusters) or len(seeds) not in (0, len(clusters)):
            raise ComparisonError(f"{len(control)} control scores, {len(treated)} treated ones and {len(clusters)} clusters: pairs need as many of each")
        before, after = np.asarray(control, float), np.asarray(treated, float)
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            raise ComparisonError("a score is NaN or infinite: that pair cannot be compared. Score that picture again, or leave the pair out of both arms.")
        prompts = tuple(sorted(set(clusters), key=str))
        _enough(prompts)
        index = {prompt: i for i, prompt in enumerate(prompts)}
        scale = float(max(np.abs(before).max(), np.abs(after).max()))
        return cls(after - before, np.array([index[prompt] for prompt in clusters]), prompts, tuple(seeds), scale)

    @classmethod
    def match(
        cls, control: Mapping[Key, float | None], treated: Mapping[Key, float | None], names: tuple[str, str] = ("control", "treated"), skipped: int = 3
    ) -> Pairs:
        """From scores by (prompt, seed): what lacks a partner or a number is left out of both arms and named in `left_out` (the first `skipped` ones).

        Raises ComparisonError where fewer than two prompts remain.
        """
        rows, missing = [], []
        for key in dict.fromkeys([*control, *treated]):
            before, after = control.get(key), treated.get(key)
            if _number(before) and _number(after):
                rows.append((before, after, *key))
            else:
                lacking = " and ".join(f'"{name}"' for name, score in zip(names, (before, after), strict=True) if not _number(score))
                missing.append(f'no score in {lacking} for prompt "{key[0]}", seed {key[1]}')
        told = "; ".join(missing[:skipped]) + (f"; and {len(missing) - skipped} more" if len(missing) > skipped else "")
        _enough({row[2] for row in rows}, told)
        controls, gains, prompts, seeds = zip(*rows, strict=True)
        left_out = (f"{len(missing)} of {len(rows) + len(missing)} pairs {'is' if len(missing) == 1 else 'are'} left out: {told}",) if missing else ()
        return replace(cls.of(controls, gains, prompts, seeds), left_out=left_out)

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.gains)

    @property
    def k(self) -> int:
        """How many prompts."""
        return len(self.prompts)

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """(k,) pairs of each prompt."""
        return np.bincount(self.prompt, minlength=self.k)

    @cached_property
    def means(self) -> Floats:
        """(k,) the mean gain of each prompt."""
        return np.bincount(self.prompt, self.gains, self.k) / self.counts

    @property
    def mean(self) -> float:
        """The mean over prompts of their mean gains: each prompt counts the same."""
        return float(self.means.mean())

    @property
    def flat(self) -> bool:
        """Whether all prompts gained the same, but for rounding: then there is no spread to judge by."""
        return float(np.ptp(self.means)) <= ROUNDING * self.scale

    @property
    def same(self) -> bool:
        """Whether both arms scored the same everywhere, but for rounding."""
        return float(np.abs(self.gains).max()) <= ROUNDING * self.scale


def _number(score: float | None) -> TypeGuard[float]:
    return score is not None and math.isfinite(score)


def _enough(prompts: Sequence[Hashable] | set[Hashable], told: str = "") -> None:
    """Raise where no spread from prompt to prompt could be known."""
    if len(prompts) >= 2:
        return
    missing = f" ({told})" if told else ""
    what = f'one prompt only, "{next(iter(prompts))}"' if prompts else "no pair has a score in both arms"
    raise ComparisonError(
        f"{what}{missing}: how much the difference varies from prompt to prompt cannot be known; give at least two prompts, scored in both arms"
    )
