"""How a caption is worded each time it is shown: who wrote it, which of its tags, in which order, or none at all. Pure functions, no state.

Every draw depends on (seed, epoch, sample) alone, so that cached text, another batch order or a resumed run word a picture the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field, model_validator

from darkroom.errors import DatasetError, did_you_mean
from darkroom.spec import Spec
from darkroom.values import seed_for

LARGEST = 1 << 63  # seed_for's numbers lie below it


class Wording(Spec):
    """What happens to captions while they are learned from. The defaults change nothing."""

    mix: dict[str, float] = Field(
        {},
        description="How often whose caption is learned from, as {blip = 0.95, original = 0.05}: the mix of DALL-E 3 (Betker et al. 2023, section 3). "
        "Shares come to 1; those whom a picture has no caption of leave theirs to the others. Empty: the caption that was chosen.",
    )
    shuffle: bool = Field(False, description="Tags in another order each epoch (sd-scripts: shuffle_caption).")
    keep_tags: int = Field(0, ge=0, description="So many tags at the front are never moved nor dropped (sd-scripts: keep_tokens).")
    keep_separator: str = Field(
        "", description='What parts the kept front from the rest, and a kept end from both, as "|||"; wins over keep_tags (sd-scripts: keep_tokens_separator).'
    )
    separator: str = Field(",", min_length=1, description="What parts tags (sd-scripts: caption_separator).")
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="How often a tag is left out, never a kept one or the trigger's (sd-scripts: caption_tag_dropout_rate)."
    )
    dropout: float = Field(
        0.0, ge=0, le=1, description="How often the whole caption is left out, for guidance (Ho and Salimans 2022: 0.1; sd-scripts: caption_dropout_rate)."
    )
    prefix: str = Field("", description="Put in front of every caption but the empty one (sd-scripts: caption_prefix, which it also shuffles; here it stays).")
    suffix: str = Field("", description="Put behind every caption but the empty one (sd-scripts: caption_suffix).")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.mix.values()) or (self.mix and abs(sum(self.mix.values()) - 1) > 1e-3):
            told = ", ".join(f"{by} = {share:g}" for by, share in self.mix.items())
            raise ValueError(f"mix = {{{told}}} comes to {sum(self.mix.values()):g}: shares lie between 0 and 1 and come to 1 together")
        return self

    @property
    def works_on_tags(self) -> bool:
        """Whether captions are taken apart at their separators."""
        return self.shuffle or self.tag_dropout > 0 or bool(self.keep_separator)


def worded(captions: Mapping[str, str], caption: str, wording: Wording, seed: int, epoch: int, sample: str, trigger: str = "") -> str:
    """The caption of one sample in one epoch.

    `captions` are all that the picture has, by who wrote them; `caption` is the chosen one or the recipe's template, which holds without a mix, and where
    the mix names nobody who wrote one. `sample` names the picture in every draw (`Photo.sample`). `trigger` is a word whose tag is never dropped.
    """
    if _die(seed, "caption dropout", epoch, sample) < wording.dropout:
        return ""
    text = _pick(shares(captions, caption, wording), _die(seed, "caption mix", epoch, sample))
    if wording.works_on_tags:
        text = _reworded(text, wording, seed, epoch, sample, trigger)
    return framed(text, wording.prefix, wording.suffix)


def shares(captions: Mapping[str, str], caption: str, wording: Wording) -> list[tuple[str, float]]:
    """The captions that one is picked from, with their shares, which come to 1; ordered by who wrote them, whatever order the recipe has."""
    there = [(captions[by], share) for by, share in sorted(wording.mix.items()) if captions.get(by) and share > 0]
    whole = sum(share for _, share in there)
    return [(text, share / whole) for text, share in there] or [(caption, 1.0)]


def count_mix(wording: Wording, pictures: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """How many pictures have a caption by each that the mix names. Raises DatasetError for a name that no picture has: its share would go elsewhere unsaid."""
    counts, known = dict.fromkeys(wording.mix, 0), set[str]()
    for captions in pictures:
        known |= captions.keys()
        for by in counts:
            counts[by] += bool(captions.get(by))
    for by, count in counts.items():
        if not count and wording.mix[by] > 0:
            way_out = f"Captions are by: {', '.join(sorted(known))}." if known else "No picture has a caption: `darkroom caption` writes them."
            raise DatasetError(f'the mix of captions names "{by}", and no picture has one by it.{did_you_mean(by, known)} {way_out}')
    return counts


def framed(text: str, prefix: str, suffix: str) -> str:
    """Prefix, text and suffix with a blank between, as sd-scripts joins them; none doubled at the edge of an empty one."""
    return " ".join(part for part in (prefix.strip(), text.strip(), suffix.strip()) if part)


def has_word(text: str, word: str) -> bool:
    """Whether the word stands in the text by itself: TOK is no part of TOKYO."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def split(text: str, wording: Wording) -> tuple[list[str], list[str], list[str]]:
    """The tags that stay in front, those that may move and go, and those that stay at the end."""
    mark = wording.keep_separator
    if mark and mark in text:
        front, _, rest = text.partition(mark)
        middle, _, end = rest.partition(mark)
        return _tags(front, wording), _tags(middle, wording), _tags(end, wording)
    tags = _tags(text, wording)
    return tags[: wording.keep_tags], tags[wording.keep_tags :], []


def _tags(text: str, wording: Wording) -> list[str]:
    return [tag.strip() for tag in text.split(wording.separator) if tag.strip()]


def _reworded(text: str, wording: Wording, seed: int, epoch: int, sample: str, trigger: str) -> str:
    front, middle, end = split(text, wording)
    dice = [_die(seed, "tag dropout", epoch, sample, place) for place in range(len(middle))]
    left = [tag for tag, die in zip(middle, dice, strict=True) if die >= wording.tag_dropout or (trigger and has_word(tag, trigger))]
    if wording.shuffle:
        random.Random(seed_for(seed, "tag shuffle", epoch, sample)).shuffle(left)
    between = wording.separator.strip() + " "
    return between.join([*front, *left, *end])


def _pick(choices: list[tuple[str, float]], die: float) -> str:
    for text, share in choices:
        if die < share:
            return text
        die -= share
    return choices[-1][0]


def _die(seed: int, purpose: str, *ids: int | str) -> float:
    """A draw from 0 up to 1 (exclusive)."""
    return (seed_for(seed, purpose, *ids) >> 10) / (LARGEST >> 10)  # 53 bits: more would round up to 1
