"""Captions of many pictures changed in one way: a text set, put in front, put behind or replaced, a tag added or taken away."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from darkroom.data.captions import one_line
from darkroom.data.manifest import Row
from darkroom.data.wording import framed
from darkroom.spec import Spec


class Rewrite(Spec):
    """One way to change captions."""

    how: Literal["set", "prepend", "append", "replace", "add_tag", "remove_tag"] = Field(description="What is done.")
    text: str = Field("", description="What is set, put in front or behind, looked for, added or taken away.")
    other: str = Field("", description="replace: what stands there then; empty: nothing.")
    whole_words: bool = Field(False, description="replace: only where it stands by itself: cat, not cattle.")
    match_case: bool = Field(True, description="replace: Cat is not cat.")
    first: bool = Field(False, description="add_tag: in front of the others, not behind them.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.text.strip() and self.how != "set":
            raise ValueError(f"{self.how}: a text is missing")
        return self

    def of(self, caption: str) -> str:
        """The caption as it becomes."""
        match self.how:
            case "set":
                return one_line(self.text)
            case "prepend":
                return one_line(framed(caption, self.text, ""))
            case "append":
                return one_line(framed(caption, "", self.text))
            case "replace":
                return one_line(self._pattern.sub(lambda _: self.other, caption))
            case "add_tag":
                rest = [tag for tag in tags(caption) if not same_tag(tag, self.text)]
                there = len(rest) < len(tags(caption))
                return caption if there else ", ".join([self.text.strip(), *rest] if self.first else [*rest, self.text.strip()])
            case "remove_tag":
                left = [tag for tag in tags(caption) if not same_tag(tag, self.text)]
                return caption if len(left) == len(tags(caption)) else ", ".join(left)

    @property
    def _pattern(self) -> re.Pattern[str]:
        literal = re.escape(self.text)
        return re.compile(rf"(?<!\w){literal}(?!\w)" if self.whole_words else literal, 0 if self.match_case else re.IGNORECASE)


def rewritten(rows: Iterable[Row], rewrite: Rewrite) -> dict[str, tuple[str, str]]:
    """What each caption that changes was and becomes, by file. One that would become empty is left alone: nothing is learned from no words."""
    found = {row.file: (row.caption, rewrite.of(row.caption)) for row in rows}
    return {file: (before, after) for file, (before, after) in found.items() if after != before and (after or rewrite.how == "set")}


def tags(caption: str) -> list[str]:
    """The parts between commas."""
    return [part.strip() for part in caption.split(",") if part.strip()]


def same_tag(one: str, other: str) -> bool:
    """Whether two tags are one, whatever their case."""
    return one.strip().casefold() == other.strip().casefold()
