"""What a trial is: arms that differ in what they say, the prompts and noise that they share, and which of them are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from darkroom import pocket
from darkroom.errors import did_you_mean
from darkroom.evidence.things import THINGS
from darkroom.jobs.generate import resolve
from darkroom.sampling.request import Refine, Request, Word, Worn
from darkroom.sampling.samplers import named
from darkroom.spec import Spec
from darkroom.values import seed_for

EVERY = "*"


class Arm(Spec):
    """One way of drawing: what differs from the other arms, and nothing else."""

    name: str = Field(min_length=1)
    """Short, and unlike the others': it names files and columns."""
    differs: tuple[str, ...] | None = None
    """What it says it differs in from the first arm, such as ["adapters"]; where it differs in anything else, the trial is refused."""
    base: str = ""
    """Another base model; empty: the trial's."""
    adapters: tuple[Worn, ...] = ()
    """Adapters worn, each with its weight and branch."""
    embeddings: tuple[Word, ...] = ()
    """Textual inversions that the prompts of this arm may name."""
    negative: str | None = None
    """None: zeroed embeddings; "": the encoded empty text; else the text, with weights, <lora:...> tags or "@basic" as in `generate`."""
    prefix: str = ""
    """Stands before each prompt, as it is written here."""
    suffix: str = ""
    """Stands after each prompt, as it is written here."""
    guidance: float | None = Field(None, ge=0, le=100)
    """Another guidance; None: the trial's."""
    guidance_rescale: float | None = Field(None, ge=0, le=1)
    """Another rescaling of the guided prediction; None: the trial's."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Another number of steps; None: the trial's."""
    sampler: str | None = None
    """Another sampler; None: the trial's."""
    clip_skip: int | None = Field(None, ge=0, le=31)
    """Another number of text-encoder layers left out; None: the trial's."""
    refiner: Refine | Literal["none"] | None = None
    """Another refiner; "none": none, though the trial has one; None: the trial's."""

    @field_validator("sampler")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else named(value)

    @field_validator("differs")
    @classmethod
    def _things(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for word in value or ():
            if word not in THINGS:
                raise ValueError(f'"{word}" is nothing that arms differ in.{did_you_mean(word, THINGS)} There are {", ".join(THINGS)}')
        return value

    def what(self, trial: Trial) -> str:
        """The arm in words, every difference from the trial's own settings named."""
        parts = [self.base or trial.base]
        parts += [f"wearing {_worn(worn)}" for worn in self.adapters] or ["as it is"]
        parts += [f"knowing the word of {Path(word.file).name}" for word in self.embeddings]
        if self.negative is not None:
            parts.append("negative encoded empty" if self.negative == "" else f'negative "{self.negative}"')
        if self.prefix or self.suffix:
            parts.append(f'prompts written "{self.prefix}…{self.suffix}"')
        names = ("guidance", "guidance_rescale", "steps", "clip_skip", "sampler")
        parts += [f"{name.replace('_', ' ')} {value}" for name in names if (value := getattr(self, name)) is not None]
        if self.refiner is not None:
            parts.append("no refiner" if self.refiner == "none" else f"refined by {Path(self.refiner.model).name}")
        return ", ".join(parts)


def _worn(worn: Worn) -> str:
    branch = "" if worn.branch == "both" else f" in the {worn.branch} branch"
    return f"{Path(worn.file).name} at {worn.weight:g}{branch}"


class Trial(Spec):
    """A comparison, whole: what is drawn, through which arms, and what is asked of the pictures."""

    title: str = "Trial"
    about: str = ""
    base: str = "pocket"
    """The base model of every arm that names no other."""
    arms: tuple[Arm, ...] = Field(min_length=2)
    """The first is the one that the others are compared with."""
    comparisons: tuple[tuple[str, str], ...] = ()
    """Pairs of arms, ["target", "word"] for target against word; "*" stands for every other arm. Empty: each against the first."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Every arm draws every prompt with every seed."""
    seeds: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1)
    """How many pictures of a prompt, and where their noise comes from."""
    seeds_shared: bool = False
    """False: seed 1 of one prompt is other noise than seed 1 of another, so that prompts are independent (fewer pictures tell as much)."""
    steps: int = Field(25, ge=1, le=1000)
    guidance: float = Field(5.0, ge=0, le=100)
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    clip_skip: int = Field(0, ge=0, le=31)
    sampler: str = "euler"
    refiner: Refine | None = None
    """A refiner after the base, in every arm that names no other."""
    language: Literal["auto", "plain", "compel", "a1111"] = "auto"
    width: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own."""
    height: int = Field(0, ge=0, le=16384)
    """Pixels; 0 is the model's own."""
    batch: int = Field(1, ge=1, le=64)
    """Pictures of one prompt and arm drawn at once."""
    metrics: tuple[str, ...] = Field(("likeness", "clip", "aesthetic"), min_length=1)
    """Named in the order in which the report shows them."""
    scorer: str = ""
    """A CLIPModel folder or hub id; empty: pocket's own for pocket, else openai/clip-vit-large-patch14."""
    models: dict[str, str] = {}
    """By metric, a file, folder or hub id of its own model, where it has one."""
    reference: str = ""
    """A folder of held-out pictures of the subject, for likeness."""
    clip_prompts: tuple[str, ...] = ()
    """What the clip metric is asked instead of each prompt, in the same order (for example without the trigger word); empty: the prompts' bare words."""
    training: str = ""
    """The folder it was trained on, to be shown in the report."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    margins: dict[str, float] = {}
    """By metric, the largest difference that still counts as equal, in its unit; an arm is called equivalent only where one is stated."""

    @field_validator("sampler")
    @classmethod
    def _known(cls, value: str) -> str:
        return named(value)

    @model_validator(mode="after")
    def _sensible(self) -> Trial:
        for complaint in (*_naming(self), *_asking(self), *_comparing(self)):
            raise ValueError(complaint)
        return self

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """(arm, the arm it is compared with), each once, in the order of the file."""
        asked = self.comparisons or ((EVERY, self.arms[0].name),)
        names = [arm.name for arm in self.arms]
        pairs = ((one, two) for first, two in asked for one in (names if first == EVERY else [first]) if one != two)
        return tuple(dict.fromkeys(pairs))

    def request(self, arm: Arm, prompt: str, seed: int) -> Request:
        """What one picture is asked to be, its tags, presets and runs resolved. Raises AdapterError and PromptError."""

        def own(name: str) -> object:
            value = getattr(arm, name)
            return getattr(self, name) if value is None else value

        refiner = self.refiner if arm.refiner is None else None if arm.refiner == "none" else arm.refiner
        settings = {name: own(name) for name in ("guidance", "guidance_rescale", "steps", "sampler", "clip_skip")}
        shared = {name: getattr(self, name) for name in ("language", "width", "height", "batch")}
        return resolve(Request(
            prompt=f"{arm.prefix}{prompt}{arm.suffix}", negative=arm.negative, seed=self.noise(prompt, seed), base=arm.base or self.base,
            adapters=arm.adapters, embeddings=arm.embeddings, refiner=refiner, **settings, **shared,
        ))  # fmt: skip

    def noise(self, prompt: str, seed: int) -> int:
        """The seed of the noise of one picture, the same in all arms. It depends on nothing else, so that more prompts or seeds change no picture."""
        return seed if self.seeds_shared else seed_for(seed, "trial", prompt) % (1 << 32)  # ten digits, which every program takes as a seed

    @property
    def eye(self) -> str:
        """Where the scorer lies."""
        if self.scorer:
            return self.scorer
        return str(pocket.folder("scorer")) if self.base == "pocket" else "openai/clip-vit-large-patch14"


def _naming(trial: Trial) -> Iterator[str]:
    """What is wrong with the names of the arms."""
    names = [arm.name for arm in trial.arms]
    if len(set(names)) < len(names):
        yield f"arms need names of their own: {', '.join(names)}"
    slugs = {slug(name): name for name in names}
    if len(slugs) < len(set(names)):
        yield f"names of arms make folders, and two of these would share one: {', '.join(names)}. Let them differ in letters or digits"
    if EVERY in names:
        yield f'no arm can be called "{EVERY}": in comparisons it stands for every arm'
    arms = [arm.model_copy(update={"differs": None, "name": ""}) for arm in trial.arms]
    same = [(names[i], names[j]) for j in range(len(arms)) for i in range(j) if arms[i] == arms[j]]
    if same:
        yield f'the arms "{same[0][0]}" and "{same[0][1]}" are the same: give them a difference'
    if trial.arms[0].differs:
        yield f'arm "{names[0]}" is the first, from which the others differ: leave its differs out'


def _asking(trial: Trial) -> Iterator[str]:
    """What is wrong with prompts, seeds and metrics."""
    for title, values in (("a prompt", trial.prompts), ("a seed", trial.seeds), ("a metric", trial.metrics)):
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            yield f"{title} stands twice: {twice}. Name each once" + (", and add seeds instead" if title == "a prompt" else "")
    if trial.clip_prompts and len(trial.clip_prompts) != len(trial.prompts):
        yield f"clip_prompts: {len(trial.clip_prompts)} for {len(trial.prompts)} prompts"
    if len(trial.prompts) < 2:
        yield "one prompt only: how much the difference varies from prompt to prompt cannot be known; give at least two"
    if not all(0 <= seed < 1 << 63 for seed in trial.seeds):
        yield f"seeds: {min(trial.seeds)} to {max(trial.seeds)}: a seed is 0 or more"
    for name, margin in trial.margins.items():
        if name not in trial.metrics:
            yield f'margins: "{name}" is not among the metrics: {", ".join(trial.metrics)}'
        if not (margin > 0 and math.isfinite(margin)):
            yield f"margins: {name} = {margin:g}: a margin is above 0, in the metric's unit"


def _comparing(trial: Trial) -> Iterator[str]:
    """What is wrong with the comparisons."""
    names = [arm.name for arm in trial.arms]
    for one, two in trial.comparisons:
        for name, known in ((one, {*names, EVERY}), (two, set(names))):
            if name not in known:
                yield f'comparisons: there is no arm "{name}".{did_you_mean(name, names)} There are {", ".join(names)}'
        if one == two:
            yield f'comparisons: "{one}" cannot be compared with itself'
    mirrored = [pair for pair in trial.contrasts if pair[::-1] in trial.contrasts]
    if mirrored:
        yield f'comparisons: "{mirrored[0][0]}" and "{mirrored[0][1]}" are compared both ways, which asks the same twice: leave one out'


def slug(name: str) -> str:
    """An arm's name as a folder's."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
