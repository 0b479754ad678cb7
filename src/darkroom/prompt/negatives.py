"""Negative prompts by name. The lists are those of the poster guide that Darkroom answers to, word for word."""

from __future__ import annotations

from darkroom.errors import PromptError, did_you_mean

FIGURES = (
    "bad anatomy, bad hands, three hands, three legs, bad arms, missing legs, missing arms, poorly drawn face, bad face, fused face, cloned face, "
    "worst face, three crus, extra crus, fused crus, worst feet, three feet, fused feet, fused thigh, three thigh, fused thigh, extra thigh, worst thigh, "
    "missing fingers, extra fingers, ugly fingers, long fingers, horn"
)

NEGATIVES: dict[str, str] = {
    "basic": (
        "worst quality, normal quality, low quality, low res, blurry, text, watermark, logo, banner, extra digits, cropped, jpeg artifacts, signature, "
        "username, error, sketch, duplicate, ugly, monochrome, horror, geometry, mutation, disgusting"
    ),
    "anime": f"{FIGURES}, realistic photo, extra eyes, huge eyes, 2girl, amplifier, disconnected limbs",
    "photo": f"{FIGURES}, extra eyes, huge eyes, 2girl, amplifier, disconnected limbs, cartoon, cg, 3d, unreal, animate",
    "safe": "nsfw, nude, censored",
}
"""For any picture, for animated characters, for realistic characters, and against adult content."""


def negative_preset(text: str) -> str:
    """ "@basic" to its list, "@basic, purple" or "@basic, @safe" to the lists joined. Text without a leading "@" comes back as it is.

    Raises PromptError for a name that is none of NEGATIVES.
    """
    if not text.lstrip().startswith("@"):
        return text
    pieces = (piece.strip() for piece in text.split(","))
    return ", ".join(_listed(piece[1:].strip()) if piece.startswith("@") else piece for piece in pieces if piece)


def _listed(name: str) -> str:
    if name not in NEGATIVES:
        known = ", ".join(f"@{preset}" for preset in NEGATIVES)
        raise PromptError(f'"@{name}" names no list of negative words.{did_you_mean(name, NEGATIVES)} There are {known}; other words go without the "@".')
    return NEGATIVES[name]
