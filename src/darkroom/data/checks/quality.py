"""Whether a picture is as good as its size promises: dots per inch, compression, sharpness, and anything in it at all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from darkroom.data.checks.finding import Finding, Rule
from darkroom.data.look import Look


class Dpi(Rule):
    """The dots per inch that it states are no screen's."""

    kind: Literal["dpi"] = "dpi"
    least: float = Field(96, ge=0, description="Dots per inch (the poster guide's limit). A picture that states none, or EXIF's 72, is unknown and passes.")

    def figures(self, look: Look) -> dict[str, float]:
        return {"dpi": float(round(look.dpi))} if look.dpi else {}

    def judge(self, look: Look) -> Finding | None:
        stated = round(look.dpi)  # PNG counts dots a metre: 96 dpi comes back as 95.99
        if not stated:
            return Finding("unknown", "it states no dots per inch.")
        if stated >= self.least:
            return None
        way = "That says how large it prints and nothing of its pixels: --without dpi passes such pictures."
        return Finding("reject", f"it states {stated} dots per inch, the limit is {self.least:g}. {way}")


class Compression(Rule):
    """Enough bytes stand behind its pixels, by what its format needs."""

    kind: Literal["compression"] = "compression"
    png: float = Field(
        0.5, ge=0, description="Bytes a pixel, of a PNG with three or four channels; a third of it with one. The poster guide's 0.0005 kB, set on PNGs that SD "
        "had drawn (1.1 to 1.5 bytes a pixel). PNG loses nothing, so little means little detail and no damage: drawings want 0.",
    )  # fmt: skip
    jpeg: float = Field(
        0.0625, ge=0, description="Bytes a pixel, of a JPEG below `jpeg_quality`: half a bit, under which Wallace (1992, The JPEG Still Picture Compression "
        "Standard) calls a picture moderate to good. Good photos have about 0.2.",
    )  # fmt: skip
    jpeg_quality: int = Field(70, ge=0, le=101, description="A JPEG quantized with this quality or finer passes: where it is small it is plain.")
    webp: float = Field(0.045, ge=0, description="Bytes a pixel, of a lossy WebP: JPEG's, less the 25 to 34 % of Google's WebP study at equal SSIM.")
    avif: float = Field(0.03, ge=0, description="Bytes a pixel, of an AVIF or HEIC: half of JPEG's, what both were made for.")

    def figures(self, look: Look) -> dict[str, float]:
        found = {"bytes_per_pixel": round(look.bytes / (look.width * look.height), 5)}
        return found | ({"jpeg_quality": float(look.quality)} if look.quality else {})

    def judge(self, look: Look) -> Finding | None:
        key, limit = self._limit(look)
        has = look.bytes / (look.width * look.height)
        if not key:
            return Finding("unknown", f"{look.format or 'its format'} tells nothing by its size.")
        if has >= limit or (key == "jpeg" and look.quality >= self.jpeg_quality):
            return None
        why = "PNG loses nothing: it has little detail" if key == "png" else "much was thrown away"
        quality = f" at quality {look.quality}" if look.quality else ""
        way = f"Find a better copy, or allow it: --set compression.{key}={int(has * 1000) / 1000:g}."
        return Finding("reject", f"{has:.3f} bytes a pixel{quality}, the limit for {look.format} is {limit:.3g}: {why}. {way}")

    def _limit(self, look: Look) -> tuple[str, float]:
        """The option that holds, and the limit by it; "" for a format that packs nothing, or as it pleases."""
        match look.format:
            case "JPEG" | "MPO":
                return "jpeg", self.jpeg
            case "WEBP" if not look.lossless:
                return "webp", self.webp
            case "AVIF" | "HEIF":
                return "avif", self.avif
            case "PNG":
                return "png", self.png if look.mode in ("RGB", "RGBA") else self.png / 3
            case _:
                return "", 0.0


class Sharpness(Rule):
    """Its edges are as sharp as its pixels allow."""

    kind: Literal["sharpness"] = "sharpness"
    least: float = Field(
        0.45, ge=0, description="Second over first derivative at 512 px. 59 sharp photos had 0.55 to 9.7 (half of them above 4.3), the same blurred by 2 px or "
        "enlarged four times at most 0.43 (docs/log.md).",
    )  # fmt: skip

    def figures(self, look: Look) -> dict[str, float]:
        return {"sharpness": round(look.sharpness, 3)} if look.sharpness >= 0 else {}

    def judge(self, look: Look) -> Finding | None:
        if look.sharpness < 0:
            return Finding("unknown", "nothing in it has an edge.")
        if look.sharpness >= self.least:
            return None
        way = f"Find a sharper copy, or allow it: --set sharpness.least={int(look.sharpness * 100) / 100:g}."
        return Finding(
            "reject", f"sharpness {look.sharpness:.2f}, the limit is {self.least:g}: as soft as if blurred by 2 px at 512, or enlarged four times. {way}"
        )


class Plain(Rule):
    """There is something in it."""

    kind: Literal["plain"] = "plain"
    most: float = Field(0.99, ge=0, le=1, description="The part of the pixels that may be of one colour (within 8 levels of 255).")

    def figures(self, look: Look) -> dict[str, float]:
        return {"one_colour": round(look.one_colour, 4)}

    def judge(self, look: Look) -> Finding | None:
        if look.one_colour <= self.most:
            return None
        way = "If that is what you want, --set plain.most=1 allows it."
        return Finding("reject", f"{look.one_colour:.1%} of it is one colour, the limit is {self.most:.1%}: there is next to nothing in it. {way}")
