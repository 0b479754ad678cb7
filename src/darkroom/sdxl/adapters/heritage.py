"""What the header of a combined file says: what it was made of, by which hashes and weights; and of its parents' facts only those that are still true."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.metadata import STALE, describe, network
from darkroom.sdxl.adapters.share import Share

SHARED = ("ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_base_model_version")
"""Facts of the base: true of the whole where all parents agree."""
CARD = ("author", "license", "prediction_type")


def merged(made: Adapter, shares: Sequence[Share], title: str, record: Mapping[str, Any]) -> dict[str, str]:
    """The header of several adapters in one. Steps, rates and pictures are each parent's own and not carried over; `record` is how it was made."""
    parents = [share.adapter.metadata for share in shares]
    agreed = {key: parents[0][key] for key in parents[0] if all(parent.get(key) == parents[0][key] for parent in parents)}
    card = {key: agreed[f"modelspec.{key}"] for key in CARD if f"modelspec.{key}" in agreed}
    card["merged_from"] = ", ".join(share.adapter.path.stem for share in shares)
    base = {key.removeprefix("ss_"): agreed[key] for key in SHARED if key in agreed}
    facts = describe(made, title, agreed.get("modelspec.resolution", "1024x1024"), _words(parents), all(map(_negative, parents)), card, base)
    return facts | {"darkroom.merge": _json({**record, "adapters": [share.facts() for share in shares]})}


def resized(made: Adapter, parent: Adapter, record: Mapping[str, Any]) -> dict[str, str]:
    """The header of a resized adapter: its training's facts hold, its network's are new."""
    kept = {key: value for key, value in parent.metadata.items() if key not in STALE and not key.startswith("ss_network_")}
    facts = {f"ss_{key}": json.dumps(value) if isinstance(value, dict) else str(value) for key, value in network(made.changes.values()).items()}
    return kept | facts | {"darkroom.resize": _json({**record, "file": parent.path.name, "sha256": parent.sha256})}


def extracted(made: Adapter, title: str, base: str, resolution: int, record: Mapping[str, Any]) -> dict[str, str]:
    """The header of a LoRA that was extracted; `base` is what the checkpoint was measured from."""
    about = f"What {record['tuned']} has beyond {base}"
    facts = describe(made, title, f"{resolution}x{resolution}", card={"description": about}, training={"sd_model_name": base})
    return facts | {"darkroom.extract": _json({**record, "base": base})}


def _words(parents: Sequence[Mapping[str, str]]) -> list[str]:
    said = [word.strip() for parent in parents for word in parent.get("modelspec.trigger_phrase", "").split(",")]
    return list(dict.fromkeys(word for word in said if word))


def _negative(parent: Mapping[str, str]) -> bool:
    return parent.get("modelspec.is_negative_embedding", "").lower() == "true"


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
