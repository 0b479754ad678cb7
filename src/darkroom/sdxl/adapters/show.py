"""What an adapter file is, before anything is done with it: method, rank, coverage, words, strength, and which program loads it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkroom.sdxl.adapters import alphas, programs
from darkroom.sdxl.adapters.changes import Change, LowRank, Oft
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.keys import Sorted
from darkroom.sdxl.adapters.layouts import changes_of, understood
from darkroom.sdxl.adapters.level import uneven
from darkroom.sdxl.adapters.metadata import read_sidecar
from darkroom.sdxl.adapters.places import Catalogue, Key

TRAINING = (
    "ss_sd_model_name", "ss_resolution", "ss_num_train_images", "ss_steps", "ss_epoch", "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer",
    "ss_lr_scheduler", "ss_seed", "ss_clip_skip", "ss_min_snr_gamma", "ss_noise_offset", "ss_mixed_precision", "ss_network_module",
    "ss_training_started_at", "ss_training_comment", "modelspec.title", "modelspec.author", "modelspec.date", "modelspec.license",
    "modelspec.prediction_type", "modelspec.merged_from",
)  # fmt: skip


def facts(path: Path, catalogue: Catalogue | None = None, norms: bool = True) -> dict[str, Any]:
    """Everything that can be said of the file, as JSON has it. `catalogue` None: SDXL 1.0.

    With `norms` False only the header and the alphas are read: a file of 2 GB takes no longer than a small one. Raises AdapterError as reading does.
    """
    header, known = Header.read(path), catalogue or Catalogue.of_sdxl()
    found = understood(header, known)
    small = [key for slots in found.slots.values() for suffix, key in slots.items() if suffix in ("alpha", "on_input")]
    tensors = {name: header.meta(name) for name in header.entries} | dict(header.tensors(small))
    changes = changes_of(header, found, known, tensors if not norms else dict(header.tensors()))
    return {
        "path": str(path), "size": header.size, "sha256": header.sha256 if norms else None, "family": _family(known), "layout": found.layout,
        "methods": _counted(change.method for change in changes.values()), "ranks": _counted(change.rank for change in changes.values() if change.rank),
        "alphas": _counted(change.alpha for change in changes.values() if change.alpha is not None),
        "dtypes": _counted(header.entries[key].dtype for key in header.entries), "coverage": _coverage(changes, known),
        "trigger_words": _words(header.metadata, path), "bundled": sorted(found.bundled), "negative": _negative(header.metadata),
        "training": {key: header.metadata[key] for key in TRAINING if header.metadata.get(key) not in (None, "", "None")},
        "norms": _norms(changes) if norms else None,
        "programs": {name: asdict(verdict) for name, verdict in programs.verdicts(_deciding(header, found, changes)).items()},
    }  # fmt: skip


def _family(catalogue: Catalogue) -> str:
    return catalogue.source if catalogue.source == "SDXL 1.0" else f"SDXL ({catalogue.source})"


def _counted(values: Iterable[Any]) -> dict[str, int]:
    return {f"{value:g}" if isinstance(value, float) else str(value): count for value, count in Counter(values).most_common()}


def _coverage(changes: Mapping[Key, Change], catalogue: Catalogue) -> dict[str, Any]:
    whole = catalogue.coverage()
    here = {part: sum(owner == part and catalogue.places[owner, path].covered for owner, path in changes) for part in whole}
    return {
        "modules": here, "of": whole, "beyond": sum(not catalogue.places[key].covered for key in changes),
        "text": f"{sum(here.values())} of {' + '.join(map(str, whole.values()))}",
    }  # fmt: skip


def _negative(metadata: Mapping[str, str]) -> bool:
    return metadata.get("modelspec.is_negative_embedding", "").lower() == "true"


def _words(metadata: Mapping[str, str], path: Path) -> list[str]:
    """Words that call the adapter: its own word on that first, then what most captions of its training held."""
    beside = read_sidecar(path)
    said = [metadata.get("modelspec.trigger_phrase", ""), *(str(beside.get(key) or "") for key in ("activation text", "negative text"))]
    words = [word.strip() for text in said for word in text.split(",") if word.strip()]
    try:
        tags: Counter[str] = Counter()
        for counts in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            tags.update({str(tag).strip(): int(count) for tag, count in counts.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        tags = Counter()
    return list(dict.fromkeys(words or [tag for tag, _ in tags.most_common(10)]))


def _norms(changes: Mapping[Key, Change]) -> dict[str, dict[str, Any]]:
    """By block, the Frobenius norm of all its deltas together; `unknown` counts those that depend on the base's weights."""
    blocks: dict[str, list[float | None]] = {}
    for (part, path), change in sorted(changes.items()):
        blocks.setdefault(_block(part, path), []).append(change.norm())
    return {
        block: {"norm": math.sqrt(sum(norm * norm for norm in found if norm is not None)), "modules": len(found), "unknown": found.count(None)}
        for block, found in blocks.items()
    }


def _block(part: str, path: str) -> str:
    if part != "unet":
        return part
    first, _, rest = path.partition(".")
    return f"unet.{first}.{rest.split('.')[0]}" if first in ("down_blocks", "up_blocks") else f"unet.{first}"


def _deciding(header: Header, found: Sorted, changes: Mapping[Key, Change]) -> programs.Facts:
    return programs.Facts(
        layout=found.layout,
        methods=frozenset(change.method for change in changes.values()),
        tucker=any(isinstance(change, LowRank) and change.mid is not None for change in changes.values()),
        bundled=bool(found.bundled),
        short_text=found.short_text,
        uneven=bool(uneven(changes)),
        scaled_in_json=alphas.NAME in header.metadata
        and any(
            change.alpha != change.rank for key, change in changes.items() if not isinstance(change, Oft) and change.rank and "alpha" not in found.slots[key]
        ),
    )


def lines(known: Mapping[str, Any]) -> list[str]:
    """The facts for a terminal, one matter a line."""

    def several(counts: Mapping[str, int]) -> str:
        return ", ".join(counts) if len(counts) == 1 else ", ".join(f"{value} ({count})" for value, count in counts.items())

    cover = known["coverage"]
    told = [
        f"{known['path']}: {several(known['methods'])} for {known['family']}, {known['size'] / 1e6:.1f} MB, layout {known['layout']}",
        f"rank {several(known['ranks']) or '-'}   alpha {several(known['alphas']) or '-'}   {several(known['dtypes'])}",
        f"covers {cover['text']} modules" + (f", and {cover['beyond']} others" if cover["beyond"] else ""),
    ]
    if known["trigger_words"]:
        told.append(f"{'goes into the negative prompt, ' if known['negative'] else ''}words: {', '.join(known['trigger_words'])}")
    if known["bundled"]:
        told.append(f"bundles the embeddings {', '.join(known['bundled'])}")
    told += [f"{key.removeprefix('ss_').removeprefix('modelspec.')}: {value}" for key, value in known["training"].items()]
    for block, fact in (known["norms"] or {}).items():
        told.append(f"{block:24} {fact['norm']:10.4f}" + (f"   {fact['unknown']} of {fact['modules']} depend on the base" if fact["unknown"] else ""))
    for program, verdict in known["programs"].items():
        told.append(f"{program:12} {verdict['loads']:7} {verdict['why']}".rstrip())
    return told
