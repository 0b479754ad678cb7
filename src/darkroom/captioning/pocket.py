"""Captions without any download: the pocket's CLIP ranks the words it was trained with, and says those it is sure of.

"a flat red apple on a blue background", in the grammar of the pocket model's own training captions. Another CLIP may rank other words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from darkroom.captioning.exhibit import Exhibit
from darkroom.captioning.words import COLOURS, NOUNS, STYLES
from darkroom.data.manifest import Row
from darkroom.device import pick_device
from darkroom.spec import Spec

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from darkroom.metrics.eye import Eye

HOTTEST = 100.0  # CLIP's own limit of the temperature (Radford et al. 2021, section 2.5)


class Pocket(Spec):
    """Noun, style and background, each the likeliest of its words where the chance is high enough (CLIP's zero-shot, Radford et al. 2021).

    It knows the pocket's drawings and hardly anything else: of 35 photographs of things it has a word for it named 3 rightly (docs/log.md).
    """

    kind: Literal["pocket"] = "pocket"
    model: str = Field("pocket", description='"pocket", a CLIP folder or a hub id.')
    subject: str = Field("", description='What they all show, trigger word first: "TOK cat". Empty: the noun is ranked too.')
    nouns: tuple[str, ...] = Field((), description="Nouns to rank; empty: the 198 that the pocket model knows.")
    styles: tuple[str, ...] = Field(STYLES, description="Styles to rank.")
    colours: tuple[str, ...] = Field(COLOURS, description="Colours of the background to rank.")
    sure: float = Field(0.5, ge=0, le=1, description="A word is written where its chance is at least this: measured in docs/log.md.")
    batch: int = Field(32, ge=1, description="Pictures at once.")

    def open(self, device: str, rows: Sequence[Row]) -> PocketWriter:
        """Raises ModelError."""
        from darkroom.metrics.eye import Eye

        return PocketWriter(self, Eye.load(self.model, pick_device(device)))


class PocketWriter:
    """The eye, and the vectors of the words that were asked for so far."""

    looks = True

    def __init__(self, spec: Pocket, eye: Eye) -> None:
        self.spec, self.eye, self.batch = spec, eye, spec.batch
        self.scale = min(HOTTEST, float(eye.model.logit_scale.exp()))
        self._texts: dict[tuple[str, ...], torch.Tensor] = {}

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """A phrase each; "" where nothing at all is sure."""
        return [self._phrase(seen) for seen in self.eye.see([exhibit.seen for exhibit in exhibits], self.batch)]

    def rank(self, picture: Image.Image) -> list[tuple[str, float]]:
        """All nouns with their chances, the likeliest first."""
        nouns = self.spec.nouns or NOUNS
        chances = self._chances(self.eye.see([picture])[0], [f"a {noun}" for noun in nouns]).tolist()
        return sorted(zip(nouns, chances, strict=True), key=lambda pair: -pair[1])

    def _phrase(self, seen: torch.Tensor) -> str:
        """`seen` is (D,). Style and background are asked for with the likeliest noun, sure or not, as the training's captions said them: measured, it helps."""
        subject = self.spec.subject.strip()
        if subject:
            noun, kind = subject, subject.split(maxsplit=1)[-1]  # its trigger word says nothing to the scorer
        else:
            kind, chance = self._likeliest(seen, self.spec.nouns or NOUNS, lambda word: f"a {word}")  # "a" before a vowel too: so it was asked in training
            noun = kind if chance >= self.spec.sure else ""
        style = self._sure(seen, self.spec.styles, lambda word: f"{article(word)} {word} {kind}")
        colour = self._sure(seen, self.spec.colours, lambda word: f"{article(kind)} {kind} on a {word} background")
        if not (noun or style or colour):
            return ""
        thing = " ".join(word for word in (style, noun or "picture") if word)
        return f"{article(thing)} {thing}" + (f" on a {colour} background" if colour else "")

    def _sure(self, seen: torch.Tensor, words: Sequence[str], said: Callable[[str], str]) -> str:
        """The likeliest word, or "" where its chance is too low."""
        word, chance = self._likeliest(seen, words, said) if words else ("", 0.0)
        return word if chance >= self.spec.sure else ""

    def _likeliest(self, seen: torch.Tensor, words: Sequence[str], said: Callable[[str], str]) -> tuple[str, float]:
        chance, best = self._chances(seen, [said(word) for word in words]).max(0)
        return words[int(best)], float(chance)

    def _chances(self, seen: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """(len(texts),), which come to 1."""
        key = tuple(texts)
        if key not in self._texts:
            self._texts[key] = self.eye.read(texts)
        return (self.scale * self._texts[key] @ seen).softmax(0)


def article(thing: str) -> str:
    """ "a" or "an"."""
    return "an" if thing[0].lower() in "aeiou" else "a"
