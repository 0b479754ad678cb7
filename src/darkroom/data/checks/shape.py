"""Whether a picture is large enough, and of a shape that the buckets have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from darkroom.data.checks.finding import Finding, Rule
from darkroom.data.look import Look


class Side(Rule):
    """Its sides are what training wants."""

    kind: Literal["side"] = "side"
    smallest: int = Field(512, ge=0, description="Pixels: a picture whose shorter side is below is rejected (the poster guide's limit); 0 for none.")
    largest: int = Field(1024, ge=0, description="Pixels: what happens to a picture whose longer side is above says `larger`; 0 for none.")
    larger: Literal["reduce", "reject"] = Field(
        "reduce",
        description="reduce: a note, since training reduces it to its bucket and nothing is lost. reject: the poster guide's way; it costs every phone photo.",
    )

    def figures(self, look: Look) -> dict[str, float]:
        return {"shorter_side": float(min(look.width, look.height)), "longer_side": float(max(look.width, look.height))}

    def judge(self, look: Look) -> Finding | None:
        shorter, longer = sorted((look.width, look.height))
        if shorter < self.smallest:
            way = f"Find a larger copy, or allow it: --smallest {shorter}."
            return Finding("reject", f"its shorter side has {shorter} px, the limit is {self.smallest}: a bucket of this size would have to enlarge it. {way}")
        if not self.largest or longer <= self.largest:
            return None
        if self.larger == "reject":
            way = "Reduce it, or let training do so: --set side.larger=reduce."
            return Finding("reject", f"its longer side has {longer} px, the limit is {self.largest}. {way}")
        return Finding("note", f"its longer side has {longer} px: training reduces it.")


class Aspect(Rule):
    """Its aspect lies within the buckets', so that the crop takes little."""

    kind: Literal["aspect"] = "aspect"
    most: float = Field(2.0, ge=1, description="Longer side over shorter side; the buckets of `darkroom train` end at 2.")

    def figures(self, look: Look) -> dict[str, float]:
        return {"aspect": round(max(look.width, look.height) / min(look.width, look.height), 4)}

    def judge(self, look: Look) -> Finding | None:
        shorter, longer = sorted((look.width, look.height))
        aspect = longer / shorter
        if longer <= self.most * shorter + 1:  # 667 x 333 is 2 : 1 as nearly as pixels can
            return None
        way = f"Cut it yourself, or allow it: --set aspect.most={aspect + 0.005:.2f}."
        return Finding("reject", f"it is {aspect:.2f} : 1, the buckets end at {self.most:g} : 1: the crop would take {1 - self.most / aspect:.0%} of it. {way}")
