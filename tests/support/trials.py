"""Simulated trials: crossed prompts x seeds with effects of prompts, pictures and seeds, for calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from darkroom.statistics import Pairs

Draw = Callable[[np.random.Generator, tuple[int, ...]], Any]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.normal(size=shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Student's t with 3 degrees of freedom, brought to a variance of 1."""
    return rng.standard_t(3, size=shape) / np.sqrt(3)


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Lognormal (skewness 6), brought to a mean of 0 and a variance of 1."""
    return (rng.lognormal(0, 1, shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def scores(
    rng: np.random.Generator,
    trials: int,
    prompts: int,
    seeds: int,
    draw: Draw = normal,
    gain: float = 0.0,
    arm: float = 0.7,
    picture: float = 1.0,
    seed: float = 0.0,
) -> tuple[Any, Any]:
    """(trials, prompts, seeds) of two arms: what a prompt scores is shared; what it does in an arm, the pictures, and a seed in an arm are drawn for each."""
    shared = 60 + 5 * draw(rng, (trials, prompts, 1)) + draw(rng, (trials, 1, seeds))
    arms = [
        shared + arm * draw(rng, (trials, prompts, 1)) + picture * draw(rng, (trials, prompts, seeds)) + seed * draw(rng, (trials, 1, seeds)) for _ in range(2)
    ]
    return arms[0], arms[1] + gain


def pairs(control: Any, treated: Any) -> Pairs:
    """(prompts, seeds) of two arms as pairs."""
    prompts, seeds = control.shape
    names = [f"prompt {i:03d}" for i in range(prompts) for _ in range(seeds)]
    return Pairs.of(control.ravel(), treated.ravel(), names, list(range(1, seeds + 1)) * prompts)


def trial(rng: np.random.Generator, prompts: int, seeds: int, **how: Any) -> Pairs:
    """One simulated trial."""
    control, treated = scores(rng, 1, prompts, seeds, **how)
    return pairs(control[0], treated[0])
