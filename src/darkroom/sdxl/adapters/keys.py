"""Take the keys of a file apart: which tensor of which method at which place, and in whose spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from darkroom.sdxl.adapters.changes import METHODS
from darkroom.sdxl.adapters.places import Catalogue, Key

BUNDLED = re.compile(r"bundle_emb\.(.+)\.(clip_[lg])")
MAGNITUDE = "lora_magnitude_vector"
SUFFIXES: dict[str, tuple[str, str]] = {f".{suffix}": (suffix, "kohya") for method in METHODS for suffix in method.suffixes.values()}
SUFFIXES[".alpha"] = ("alpha", "")
for _side, _kohya, _peft in (("down", "lora_down.weight", "lora_A"), ("up", "lora_up.weight", "lora_B")):
    for _end in (f".lora.{_side}.weight", f"_lora.{_side}.weight", f".lora_linear_layer.{_side}.weight"):
        SUFFIXES[_end] = (_kohya, "diffusers")
    for _end in (f".{_peft}.weight", f".{_peft}.default.weight", f".{_peft}"):
        SUFFIXES[_end] = (_kohya, "peft")
for _end in (f".{MAGNITUDE}", f".{MAGNITUDE}.weight", f".{MAGNITUDE}.default.weight", f".{MAGNITUDE}.default"):
    SUFFIXES[_end] = (MAGNITUDE, "")
"""Ends of keys -> kohya's suffix of the same tensor, and who spells it so."""
LONGEST_FIRST = sorted(SUFFIXES, key=len, reverse=True)


@dataclass
class Sorted:
    """The keys of a file by place: `slots[place][suffix]` is the key that holds it; `strange` are those that name nothing."""

    slots: dict[Key, dict[str, str]] = field(default_factory=dict)
    bundled: dict[str, dict[str, str]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    twice: list[tuple[str, str]] = field(default_factory=list)
    styles: set[tuple[str, str]] = field(default_factory=set)

    @property
    def layout(self) -> str:
        """kohya, kohya-diffusers, lycoris, diffusers, peft, dotted or comfy; "mixed" names several."""
        found = {_layout(style, end) for style, end in self.styles}
        if len(found) > 1:
            found -= {"kohya-text", ""}
        names = sorted("kohya" if name == "kohya-text" else name or "none" for name in found)
        return names[0] if len(names) == 1 else f"mixed ({', '.join(names)})" if names else "none"

    @property
    def short_text(self) -> bool:
        """Whether kohya's names of the text encoders lack `text_model`, which no other program finds."""
        return any(style == "kohya-short-text" for style, _ in self.styles)


def _layout(style: str, end: str) -> str:
    match style:
        case "dotted" | "bare":
            return "dotted" if end == "kohya" else end
        case "kohya-short-text":
            return "kohya-text"
        case _:
            return style


def sort_keys(keys: Iterable[str], catalogue: Catalogue) -> Sorted:
    """Look up every key in the catalogue's names."""
    found = Sorted()
    for key in sorted(keys):
        if bundle := BUNDLED.fullmatch(key):
            found.bundled.setdefault(bundle[1], {})[bundle[2]] = key
        elif (taken := _apart(key, catalogue)) is None:
            found.strange.append(key)
        else:
            place, suffix, style = taken
            other = found.slots.setdefault(place, {}).setdefault(suffix, key)
            if other != key:
                found.twice.append((other, key))
            found.styles.add(style)
    return found


def _apart(key: str, catalogue: Catalogue) -> tuple[Key, str, tuple[str, str]] | None:
    for end in LONGEST_FIRST:
        if key.endswith(end) and (known := catalogue.names.get(key.removesuffix(end))):
            suffix, speller = SUFFIXES[end]
            return known[0].key, suffix, (known[1], speller)
    return None
