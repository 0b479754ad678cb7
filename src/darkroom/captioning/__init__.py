"""Who writes captions: a template, BLIP, a WD tagger, a vision-language model here or on a local server, the pocket's CLIP.

A captioner is a Spec with `open(device, rows) -> Writer`; a writer has `batch`, `looks` and `write(exhibits) -> list[str]`. A new one is one file and one
word in `Captioner`: the contract tests iterate over it.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from darkroom.captioning.blip import Blip
from darkroom.captioning.exhibit import Exhibit, Writer
from darkroom.captioning.pocket import Pocket
from darkroom.captioning.server import Server
from darkroom.captioning.template import Template
from darkroom.captioning.vlm import Vlm
from darkroom.captioning.wd import Wd
from darkroom.errors import RecipeError, did_you_mean

Captioner = Annotated[Template | Blip | Wd | Vlm | Server | Pocket, Field(discriminator="kind")]
KINDS: dict[str, type[Template | Blip | Wd | Vlm | Server | Pocket]] = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(Captioner)[0])}


def captioner(kind: str, settings: dict[str, Any]) -> Template | Blip | Wd | Vlm | Server | Pocket:
    """The captioner of that kind with these settings. Raises RecipeError, with the nearest name, for an unknown kind or setting."""
    if kind not in KINDS:
        raise RecipeError(f'--with "{kind}" is not known.{did_you_mean(kind, KINDS)} Known: {", ".join(KINDS)}.')
    return KINDS[kind].from_tree(settings, f"--with {kind}")


__all__ = ["KINDS", "Blip", "Captioner", "Exhibit", "Pocket", "Server", "Template", "Vlm", "Wd", "Writer", "captioner"]
