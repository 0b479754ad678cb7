"""Prompts: "(hat:1.2) on a [cat:dog:0.5] <lora:thor:0.8>" to weighted spans, stages and adapters. No torch in here.

Four languages: "plain" takes every character as it is, "a1111" and "compel" are those of the programs of these names, "auto" looks for marks.
"""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.errors import PromptError, did_you_mean
from darkroom.prompt import a1111
from darkroom.prompt.languages import compel_words, detect
from darkroom.prompt.negatives import NEGATIVES, negative_preset
from darkroom.prompt.parts import Part, Span, Stage, Sub, Tag
from darkroom.prompt.tags import take_tags

__all__ = ["LANGUAGES", "NEGATIVES", "Part", "Prompt", "Span", "Stage", "Sub", "Tag", "negative_preset", "read"]

LANGUAGES = ("auto", "plain", "compel", "a1111")
SOME_STEPS = 1000
"""What `Prompt.words` takes for the number of steps: enough for the first stage of any [from:to:when] to be seen."""


@dataclass(frozen=True)
class Prompt:
    """A text whose language is known, with its <lora:...> tags taken out."""

    source: str
    language: str
    tags: tuple[Tag, ...] = ()

    @property
    def words(self) -> str:
        """The bare words of the first stage, all marks gone: what a picture is scored against. Texts joined by AND are joined by commas."""
        match self.language:
            case "plain":
                return self.source
            case "compel":
                return compel_words(self.source)
        _, subs = self.timeline(SOME_STEPS)[0]
        texts = ("".join(span.text for span in part).strip(" ,") for sub in subs for part in sub.parts)
        return ", ".join(" ".join(text.split()) for text in texts if text)

    def timeline(self, steps: int) -> tuple[Stage, ...]:
        """(first step, what holds from there), beginning with step 0. For compel one raw span: its weights are read by compel itself.

        Raises PromptError for weights beyond use.
        """
        if steps < 1:
            raise PromptError(f"steps = {steps}: a picture takes at least one step.")
        if self.language == "a1111":
            return a1111.timeline(self.source, steps)
        return ((0, (Sub(1.0, ((Span(self.source, 1.0),),)),)),)


def read(text: str, language: str = "auto") -> Prompt:
    """Take the tags out and settle the language. Raises PromptError for a malformed tag, an unknown language, and marks of two languages."""
    if language not in LANGUAGES:
        raise PromptError(f'"{language}" is no language of prompts.{did_you_mean(language, LANGUAGES)} There are {", ".join(LANGUAGES)}.')
    source, tags = take_tags(text)
    return Prompt(source, detect(source) if language == "auto" else language, tags)
