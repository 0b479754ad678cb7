"""Darkroom fine-tunes Stable Diffusion XL on your own pictures and shows, with evidence, whether it got better."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from darkroom.data.adopt import adopt as adopt
    from darkroom.data.manifest import Manifest as Manifest
    from darkroom.data.screening import Screening as Screening
    from darkroom.errors import DarkroomError as DarkroomError
    from darkroom.evidence.demo import demo as demo
    from darkroom.evidence.trial import Arm as Arm
    from darkroom.evidence.trial import Trial as Trial
    from darkroom.evidence.trial import run_trial as run_trial
    from darkroom.jobs.caption import Captioning as Captioning
    from darkroom.jobs.caption import caption as caption
    from darkroom.jobs.collect import Collect as Collect
    from darkroom.jobs.collect import collect as collect
    from darkroom.jobs.combine import Merge as Merge
    from darkroom.jobs.combine import merge as merge
    from darkroom.jobs.generate import generate as generate
    from darkroom.jobs.grid import Grid as Grid
    from darkroom.jobs.grid import run_grid as run_grid
    from darkroom.jobs.screen import screen as screen
    from darkroom.jobs.train import resume_training as resume_training
    from darkroom.jobs.train import run_training as run_training
    from darkroom.sampling.request import Request as Request
    from darkroom.train.recipe import Recipe as Recipe
    from darkroom.train.recipe import load_recipe as load_recipe

if os.environ.get("DARKROOM_GROUNDS"):  # a page ordered this: before anything else is read
    from darkroom.fence import heard

    heard()

_PLACES = {
    "Arm": "evidence.trial", "Captioning": "jobs.caption", "Collect": "jobs.collect", "DarkroomError": "errors", "Grid": "jobs.grid",
    "Manifest": "data.manifest", "Merge": "jobs.combine", "Recipe": "train.recipe", "Request": "sampling.request", "Screening": "data.screening",
    "Trial": "evidence.trial", "adopt": "data.adopt", "caption": "jobs.caption", "collect": "jobs.collect", "demo": "evidence.demo",
    "generate": "jobs.generate", "load_recipe": "train.recipe", "merge": "jobs.combine", "resume_training": "jobs.train", "run_grid": "jobs.grid",
    "run_training": "jobs.train", "run_trial": "evidence.trial", "screen": "jobs.screen",
}  # fmt: skip

__all__ = [
    "Arm",
    "Captioning",
    "Collect",
    "DarkroomError",
    "Grid",
    "Manifest",
    "Merge",
    "Recipe",
    "Request",
    "Screening",
    "Trial",
    "__version__",
    "adopt",
    "caption",
    "collect",
    "demo",
    "generate",
    "load_recipe",
    "merge",
    "resume_training",
    "run_grid",
    "run_training",
    "run_trial",
    "screen",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
    return getattr(importlib.import_module(f"darkroom.{_PLACES[name]}"), name)
