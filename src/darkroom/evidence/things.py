"""In how many things do two arms differ, and in which? Told from the requests that are drawn, not from what the arms say of themselves.

An effect can be put down to a thing only where the arms differ in nothing else: that a word stands in the negative prompt, and that the negative is encoded at
all rather than zeroed, are two things, and an essay that changed both, and the adapter, could not tell which of the three had helped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.prompt import read
from darkroom.sampling.request import Refine, Request, Worn

THINGS = (
    "base", "adapters", "weight", "branch", "embeddings", "prompt", "negative", "encoding", "guidance", "guidance_rescale", "steps", "sampler", "clip_skip",
    "refiner",
)  # fmt: skip
"""What arms can differ in. adapters: which files are worn; weight and branch: how. negative: its words; encoding: encoded or zeroed."""
PLAIN = ("guidance", "guidance_rescale", "steps", "sampler", "clip_skip")


@dataclass(frozen=True)
class Thing:
    """One thing in which an arm differs from another."""

    name: str
    """One of THINGS."""
    words: str
    """How, in words."""


def things(arm: Request, other: Request) -> tuple[Thing, ...]:
    """All in which two resolved requests for the same prompt and seed differ; files that were hashed are told apart by their content, not by their place."""
    return tuple(sorted((*_models(arm, other), *_worn(arm.adapters, other.adapters), *_said(arm, other), *_plain(arm, other)), key=_place))


def sentence(arm: str, other: str, found: tuple[Thing, ...]) -> str:
    """In how many things the arm differs from the other, each with its words, and what follows from that."""
    told = [f"{_title(thing.name)} ({thing.words})" for thing in found]
    match len(told):
        case 0:
            return f'"{arm}" and "{other}" differ in nothing.'
        case 1:
            return f'"{arm}" differs from "{other}" in one thing: {told[0]}.'
    listed = f"{', '.join(told[:-1])} and {told[-1]}"
    return f'"{arm}" differs from "{other}" in {len(told)} things: {listed}; the effect cannot be put down to one of them.'


def _place(thing: Thing) -> int:
    return THINGS.index(thing.name)


def _title(name: str) -> str:
    return {"negative": "words of the negative prompt", "encoding": "encoding of the negative prompt"}.get(name, name.replace("_", " "))


def _models(arm: Request, other: Request) -> Iterator[Thing]:
    if arm.base != other.base and (not arm.base_sha256 or arm.base_sha256 != other.base_sha256):
        yield Thing("base", f"{arm.base} instead of {other.base}")
    words = [{word.sha256 or word.file: word for word in request.embeddings} for request in (arm, other)]
    if words[0].keys() != words[1].keys():
        mine, theirs = (", ".join(word.name or Path(word.file).name for word in known.values()) or "none" for known in words)
        yield Thing("embeddings", f"{mine} instead of {theirs}")
    if _refining(arm.refiner) != _refining(other.refiner):
        yield Thing("refiner", f"{_refined(arm.refiner)} instead of {_refined(other.refiner)}")


def _refining(refiner: Refine | None) -> Refine | None:
    """What of a refiner changes the picture."""
    return refiner and refiner.model_copy(update={"model": refiner.sha256 or refiner.model})


def _refined(refiner: Refine | None) -> str:
    if refiner is None:
        return "none"
    how = f"from {refiner.fraction:g}" if refiner.mode == "ensemble" else f"over it by {refiner.strength:g}"
    return f"{Path(refiner.model).name} {how}"


def _worn(mine: tuple[Worn, ...], theirs: tuple[Worn, ...]) -> Iterator[Thing]:
    """Which files, and how those in both are worn; a file that takes another's place is asked how it is worn too."""
    ours, others = ([(worn.sha256 or worn.file, worn) for worn in several] for several in (mine, theirs))
    added = [worn for key, worn in ours if key not in dict(others)]
    gone = [worn for key, worn in others if key not in dict(ours)]
    if added or gone:
        alone = f"with {_names(added)}" if added else f"without {_names(gone)}"
        yield Thing("adapters", f"{_names(added)} instead of {_names(gone)}" if added and gone else alone)
    pairs = [(worn, dict(others)[key]) for key, worn in ours if key in dict(others)]
    pairs += list(zip(added, gone, strict=True)) if len(added) == len(gone) else []
    heavier = [(one, two) for one, two in pairs if _weights(one) != _weights(two)]
    if heavier:
        yield Thing("weight", "; ".join(f"{Path(one.file).name} at {_weighed(one)} instead of {_weighed(two)}" for one, two in heavier))
    moved = [(one, two) for one, two in pairs if one.branch != two.branch]
    if moved:
        yield Thing("branch", "; ".join(f"{Path(one.file).name} in {_branch(one)} instead of {_branch(two)}" for one, two in moved))


def _names(several: list[Worn]) -> str:
    return " and ".join(f"{Path(worn.file).name} at {_weighed(worn)}{'' if worn.branch == 'both' else f' in {_branch(worn)}'}" for worn in several)


def _weights(worn: Worn) -> tuple[float, float]:
    return worn.weight, worn.weight if worn.text_weight is None else worn.text_weight


def _weighed(worn: Worn) -> str:
    unet, text = _weights(worn)
    return f"{unet:g}" if unet == text else f"{unet:g} (text encoders {text:g})"


def _branch(worn: Worn) -> str:
    return "both branches" if worn.branch == "both" else f"the {worn.branch} branch alone"


def _said(arm: Request, other: Request) -> Iterator[Thing]:
    """What the prompts say. A zeroed negative has no words: against an encoded word it differs in two things."""
    if arm.prompt != other.prompt:
        yield Thing("prompt", f'"{_short(arm.prompt)}" instead of "{_short(other.prompt)}"')
    mine, theirs = ((request.negative or "").strip() for request in (arm, other))
    if mine != theirs:
        yield Thing("negative", f"{_quoted(mine)} instead of {_quoted(theirs)}")
    if (arm.negative is None) != (other.negative is None):
        yield Thing("encoding", "zeroed instead of encoded" if arm.negative is None else "encoded instead of zeroed")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _quoted(text: str) -> str:
    return f'"{_short(read(text).source)}"' if text else "none"


def _plain(arm: Request, other: Request) -> Iterator[Thing]:
    for name in PLAIN:
        mine, theirs = getattr(arm, name), getattr(other, name)
        if mine != theirs:
            yield Thing(name, " instead of ".join(value if isinstance(value, str) else f"{value:g}" for value in (mine, theirs)))
