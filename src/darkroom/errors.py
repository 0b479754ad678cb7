"""What can go wrong, and whose fault it is.

    DarkroomError              the user's mistake: one clear message, exit code 2, no traceback
    |- RecipeError             a recipe, an option or a key
    |- DatasetError            the pictures and their captions
    |- ModelError              the base model: not found, or of another family
    |- AdapterError            an adapter file: another shape, another family, unreadable
    |- PromptError             the text of a prompt
    |- OutputError             the place to write to
    |- PlaceError              an address such as s3://bucket/run: its store, or the rights there
    `- RunError                a run folder, or a training that must not go on

Anything else that is raised is a fault of ours: exit code 1. Each message says the value, the rule and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DarkroomError(Exception):
    """The user's mistake: shown as one message, with exit code 2."""


class RecipeError(DarkroomError):
    """A recipe, an option or a key is not what it should be."""


class DatasetError(DarkroomError):
    """The pictures or their captions cannot be used."""


class ModelError(DarkroomError):
    """The base model is missing, broken or of another family."""


class AdapterError(DarkroomError):
    """An adapter file is unreadable, unsafe or made for another model."""


class PromptError(DarkroomError):
    """A prompt cannot be understood."""


class OutputError(DarkroomError):
    """The place to write to cannot be written."""


class PlaceError(DarkroomError):
    """A store behind an address cannot be reached, read or written. `why` is for programs: refused, missing, no bucket, no keys, no package, unreachable."""

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


class RunError(DarkroomError):
    """A run folder cannot be used, or a training must not go on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean "train"?', or '' where nothing known is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
