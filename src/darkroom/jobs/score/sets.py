"""KID and CMMD of a whole folder against the reference set: one number each, with its standard error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from darkroom.jobs.score.ask import Asking
from darkroom.jobs.score.items import Item
from darkroom.jobs.score.panel import FAULTS, Panel, first_line
from darkroom.jobs.score.setup import Ready

if TYPE_CHECKING:
    from darkroom.metrics.features import Features

FEW = 50  # pictures, below which a distance between sets says little


def set_scores(ready: Ready, items: Sequence[Item], asking: Asking, panel: Panel) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By metric: value, error, pictures, references, network; and what went wrong or should be known, in words."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for name in ready.sets:
        if name in panel.troubles:
            notes.append(f"{name} could not be computed: {panel.troubles[name]}")
            continue
        try:
            found[name] = _one(name, ready, items, asking, panel.networks[name])
        except FAULTS as error:
            notes.append(f"{name} could not be computed: {first_line(error)}")
    if found and min(len(items), len(ready.given.references)) < FEW:
        notes.append(
            f"{' and '.join(found)}: of {len(items)} and {len(ready.given.references)} pictures. Below some {FEW} of each look at the error, not at the value."
        )
    return found, notes


def _one(name: str, ready: Ready, items: Sequence[Item], asking: Asking, network: Features) -> dict[str, Any]:
    from darkroom.metrics.given import pictures_key
    from darkroom.metrics.memory import stamp

    store = asking.store
    labels = _labels(items)
    key = stamp("set", name, network.key, pictures_key(ready.given.references), *(item.sha256 for item in items), "labels", *labels)
    if (known := store.get(key)) is not None:
        return dict(json.loads(known))
    distance = network.distance(asking.features(name, items), network.see(ready.given.references).numpy(), labels)
    value = {**asdict(distance), "network": network.name, "by_prompt": bool(labels)}
    store.put({key: json.dumps(value).encode()})
    return value


def _labels(items: Sequence[Item]) -> list[str]:
    """Prompts as groups where there are several pictures of each and enough of them; else none, and every picture counts for itself."""
    prompts = [item.prompt for item in items]
    return prompts if 3 <= len(set(prompts)) < len(prompts) and all(prompts) else []
