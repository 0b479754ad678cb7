"""Programs that draw a training's curves while it learns: which of them a recipe asks for, and whether they can."""

from __future__ import annotations

import importlib.util
import os
import re

from pydantic import Field, field_validator

from darkroom.errors import RecipeError
from darkroom.spec import Spec

UNFIT = re.compile(r"[/\\#?%:]|[\x00-\x1f]")


class Track(Spec):
    """Where the figures of a training go beside its own log.jsonl: nowhere, unless asked."""

    tensorboard: bool = Field(False, description="Write TensorBoard's files into the run folder: tensorboard --logdir RUN (of Darkroom: off).")
    wandb: str = Field("", description="Project of Weights & Biases that figures and previews go to; empty: nothing is sent (of Darkroom: off).")
    wandb_offline: bool = Field(
        False,
        description="Keep what wandb writes in the run folder, to be sent later by `wandb sync` (wandb's default: send; WANDB_MODE=offline does the same).",
    )

    @field_validator("wandb")
    @classmethod
    def _names_a_project(cls, name: str) -> str:
        if UNFIT.search(name) or len(name) > 128:
            raise ValueError("the name of a project has at most 128 characters and none of / \\ # ? % :")
        return name

    @property
    def wandb_mode(self) -> str:
        """online, offline or disabled: as the recipe says, and where it says nothing as the environment does."""
        return "offline" if self.wandb_offline else os.environ.get("WANDB_MODE", "") or "online"

    def check(self) -> None:
        """Before anything is trained. Raises RecipeError where a library is missing, or where wandb would have to ask who you are."""
        for key, module in (("tensorboard", "tensorboard"), ("wandb", "wandb")):
            if getattr(self, key) and importlib.util.find_spec(module) is None:
                raise RecipeError(
                    f'track.{key}: the package {module} is not installed. Install it: pip install "sdxl-darkroom[track]"; or leave track.{key} out.'
                )
        if self.wandb and self.wandb_mode not in ("online", "offline", "disabled", "dryrun", "run", "shared"):
            raise RecipeError(f'WANDB_MODE = "{self.wandb_mode}": wandb knows online, offline and disabled.')
        if self.wandb and self.wandb_mode in ("online", "run", "shared"):
            _check_login()


def _check_login() -> None:
    import wandb

    if not wandb.api.api_key:
        raise RecipeError(
            "track.wandb: nobody is logged in to Weights & Biases here. Log in with `wandb login` or set WANDB_API_KEY; "
            "or keep everything on this machine with --set track.wandb_offline=true."
        )
