"""Whether the file gives one picture at all."""

from __future__ import annotations

from typing import ClassVar, Literal

from darkroom.data.checks.finding import Finding, Rule
from darkroom.data.look import Look


class Readable(Rule):
    """It can be decoded to its end."""

    kind: Literal["readable"] = "readable"
    needs_picture: ClassVar[bool] = False

    def figures(self, look: Look) -> dict[str, float]:
        return {}

    def judge(self, look: Look) -> Finding | None:
        if look.fault in ("", "bomb"):
            return None
        return Finding("reject", look.told.replace("cannot be read whole", "it is truncated or damaged"))


class Bomb(Rule):
    """It is not a small file that unpacks to a huge picture."""

    kind: Literal["bomb"] = "bomb"
    needs_picture: ClassVar[bool] = False

    def figures(self, look: Look) -> dict[str, float]:
        return {"megapixels": round(look.width * look.height / 1e6, 3)} if look.width else {}

    def judge(self, look: Look) -> Finding | None:
        if look.fault != "bomb":
            return None
        return Finding("reject", f"{look.told.partition('. ')[0]}: it may be a decompression bomb and was not unpacked. Save a smaller copy of it.")


class Still(Rule):
    """It is one picture and no animation."""

    kind: Literal["still"] = "still"

    def figures(self, look: Look) -> dict[str, float]:
        return {"frames": float(look.frames)} if look.frames > 1 else {}

    def judge(self, look: Look) -> Finding | None:
        if look.frames < 2:
            return None
        what = "pages" if look.format == "TIFF" else "frames of an animation"
        return Finding("reject", f"{look.frames} {what}; only the first would be learned from. Save the one you mean as a picture of its own.")
