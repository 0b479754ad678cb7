"""Darkroom fine-tunes Stable Diffusion XL on your own pictures and shows, with evidence, whether it got better."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from darkroom.errors import DarkroomError as DarkroomError
    from darkroom.evidence.demo import demo as demo
    from darkroom.evidence.trial import Arm as Arm
    from darkroom.evidence.trial import Trial as Trial
    from darkroom.evidence.trial import run_trial as run_trial
    from darkroom.jobs.generate import generate as generate
    from darkroom.jobs.grid import Grid as Grid
    from darkroom.jobs.grid import run_grid as run_grid
    from darkroom.jobs.train import resume_training as resume_training
    from darkroom.jobs.train import run_training as run_training
    from darkroom.sampling.request import Request as Request
    from darkroom.train.recipe import Recipe as Recipe
    from darkroom.train.recipe import load_recipe as load_recipe

_PLACES = {
    "Arm": "evidence.trial", "DarkroomError": "errors", "Grid": "jobs.grid", "Recipe": "train.recipe", "Request": "sampling.request", "Trial": "evidence.trial",
    "demo": "evidence.demo", "generate": "jobs.generate", "load_recipe": "train.recipe", "resume_training": "jobs.train", "run_training": "jobs.train",
    "run_grid": "jobs.grid", "run_trial": "evidence.trial",
}  # fmt: skip

__all__ = [
    "Arm",
    "DarkroomError",
    "Grid",
    "Recipe",
    "Request",
    "Trial",
    "__version__",
    "demo",
    "generate",
    "load_recipe",
    "resume_training",
    "run_grid",
    "run_training",
    "run_trial",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
    return getattr(importlib.import_module(f"darkroom.{_PLACES[name]}"), name)
