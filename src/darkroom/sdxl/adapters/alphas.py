"""The JSON in which diffusers keeps ranks and alphas, `lora_adapter_metadata`: read and written as diffusers 0.42 does (loaders/lora_base.py).

It is peft's LoraConfig of each part, every key prefixed: {"unet.r": 16, "unet.lora_alpha": 8, "unet.alpha_pattern": {path: alpha}, ...}.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.places import Key

NAME = "lora_adapter_metadata"


class Unclear(Exception):
    """Why the JSON is not understood."""


def single(number: float) -> float:
    """The nearest float32: files keep alphas in that precision at most, so that every layout says the same."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def alphas_of(metadata: Mapping[str, str], ranks: Mapping[Key, int]) -> dict[Key, float]:
    """The alpha that the JSON gives each place, where it gives one. Raises Unclear."""
    if NAME not in metadata:
        return {}
    try:
        facts = json.loads(metadata[NAME])
        parts = {part for part, _ in ranks}
        given = {part: {key.removeprefix(f"{part}."): value for key, value in facts.items() if key.startswith(f"{part}.")} for part in parts}
    except (ValueError, RecursionError, AttributeError):
        raise Unclear(f"its metadata {NAME} is not JSON by name") from None
    found = {}
    for (part, path), rank in ranks.items():
        alpha = _pattern(given[part].get("alpha_pattern") or {}, path, given[part].get("lora_alpha"))
        if alpha is not None:
            found[part, path] = single(alpha * math.sqrt(rank) if given[part].get("use_rslora") else alpha)
    return found


def _pattern(pattern: Any, path: str, default: Any) -> float | None:
    """The value of the first key that names the path or an end of it. peft takes keys for regular expressions; only plain paths are understood."""
    if not isinstance(pattern, dict):
        raise Unclear(f"its metadata {NAME} has an alpha_pattern that is no object")
    for key, value in pattern.items():
        plain = key.removeprefix("^").removesuffix("$").replace("\\.", ".").removeprefix("text_model.")
        if not all(letter.isalnum() or letter in "._" for letter in plain):
            raise Unclear(f"its metadata {NAME} has the pattern {key!r}, which is no plain path")
        if path == plain or path.endswith(f".{plain}"):
            default = value
            break
    if default is None or (isinstance(default, int | float) and not isinstance(default, bool) and abs(default) < 1e9):
        return None if default is None else float(default)
    raise Unclear(f"its metadata {NAME} has the alpha {default!r} for {path}")


def described(changes: Mapping[Key, LowRank]) -> str:
    """The JSON for these changes: the commonest rank and alpha of each part, and patterns for the others."""
    facts: dict[str, Any] = {}
    for part in sorted({part for part, _ in changes}):
        here = {path.removeprefix("text_model."): change for (owner, path), change in sorted(changes.items()) if owner == part}
        ranks, alphas = {path: change.rank for path, change in here.items()}, {path: _short(change.alpha) for path, change in here.items()}
        rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
        config = {
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": sorted(here), "bias": "none", "init_lora_weights": True,
            "rank_pattern": {path: value for path, value in ranks.items() if value != rank}, "use_rslora": False,
            "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha}, "use_dora": _is_dora(here),
        }  # fmt: skip
        facts |= {f"{part}.{key}": value for key, value in config.items()}
    return json.dumps(facts, indent=2, sort_keys=True)


def _short(alpha: float) -> float:
    return int(alpha) if alpha == int(alpha) else alpha


def _is_dora(here: Mapping[str, LowRank]) -> bool:
    return any(change.dora_scale is not None for change in here.values())
