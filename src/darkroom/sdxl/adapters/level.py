"""One alpha for each part of a LoRA: diffusers 0.42 gives kohya's attention layers the commonest alpha of their part where there are several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from darkroom.sdxl.adapters.changes import Change, LowRank
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.places import Key


def uneven(changes: Mapping[Key, Change]) -> list[str]:
    """The parts in which LoRA layers have several alphas."""
    found: dict[str, set[float]] = {}
    for (part, _), change in changes.items():
        if isinstance(change, LowRank):
            found.setdefault(part, set()).add(change.alpha)
    return sorted(part for part, alphas in found.items() if len(alphas) > 1)


def levelled(adapter: Adapter) -> Adapter:
    """The same adapter with the commonest alpha of each part everywhere, the rest of the strength moved into `up`.

    Deltas stay equal but for rounding in the tensors' own dtype, and exactly where the factor is a power of two.
    """
    changes = dict(adapter.changes)
    for part in uneven(changes):
        here = {key: change for key, change in changes.items() if key[0] == part and isinstance(change, LowRank)}
        common = Counter(change.alpha for change in here.values()).most_common(1)[0][0]
        for key, change in here.items():
            up = change.up if change.alpha == common else (change.up.float() * (change.alpha / common)).to(change.up.dtype)
            changes[key] = replace(change, up=up, alpha=common)
    return replace(adapter, changes=changes)
