"""What is in a picture, by option: text, faces, or what looks like a picture that nobody wants."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from darkroom.data.checks.finding import Finding, Rule
from darkroom.data.look import Look


class Text(Rule):
    """No writing or watermark covers much of it."""

    kind: Literal["text"] = "text"
    wanted: ClassVar[bool] = False
    measure: ClassVar[str] = "text"
    most: float = Field(
        0.005,
        ge=0,
        le=1,
        description="The part of the picture that lines of text may cover. Opaque text is found in 98 of 100 photos, a faint watermark in 43; "
        "drawings with rows of like shapes are taken for text too.",
    )

    def figures(self, look: Look) -> dict[str, float]:
        return {"text": round(look.measured["text"], 4)} if "text" in look.measured else {}

    def judge(self, look: Look) -> Finding | None:
        if "text" not in look.measured:
            return Finding("unknown", "it was not searched for text.")
        if look.measured["text"] <= self.most:
            return None
        way = "The search errs now and then: look at it, and keep it with --keep FILE."
        return Finding("reject", f"lines of text seem to cover {look.measured['text']:.1%} of it, the limit is {self.most:.1%}. {way}")


class Faces(Rule):
    """As many faces are in it as were wanted."""

    kind: Literal["faces"] = "faces"
    wanted: ClassVar[bool] = False
    measure: ClassVar[str] = "faces"
    least: int = Field(0, ge=0, description="Fewer faces are rejected: 1 for a dataset of one person.")
    most: int = Field(1, ge=0, description="More faces are rejected: 0 for pictures without people.")

    def figures(self, look: Look) -> dict[str, float]:
        return {"faces": look.measured["faces"]} if "faces" in look.measured else {}

    def judge(self, look: Look) -> Finding | None:
        if "faces" not in look.measured:
            return Finding("unknown", "it was not searched for faces.")
        found = int(look.measured["faces"])
        if self.least <= found <= self.most:
            return None
        rule = f"{self.least} to {self.most} are wanted" if self.least else f"at most {self.most} wanted"
        way = "Faces turned away or very small are missed: look at it, and keep it with --keep FILE."
        return Finding("reject", f"{found} face{'' if found == 1 else 's'} found, {rule}. {way}")


class Unwanted(Rule):
    """It does not look like one of the pictures given with --like: a "not found" sign, a shop's banner."""

    kind: Literal["unwanted"] = "unwanted"
    wanted: ClassVar[bool] = False
    measure: ClassVar[str] = "unwanted"
    files: tuple[str, ...] = Field((), description="Pictures that nobody wants.")

    def figures(self, look: Look) -> dict[str, float]:
        return {}

    def judge(self, look: Look) -> Finding | None:
        if "unwanted" not in look.measured:
            return None
        return Finding("reject", f"it looks like {self.files[int(look.measured['unwanted'])]}, which you do not want. If it is another, --keep FILE.")
