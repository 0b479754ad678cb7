"""What an adapter's header says to other programs: modelspec 1.0.1, kohya's ss_ keys, the hashes of sd-scripts, and A1111's side-car file.

Sources: Stability-AI/ModelSpec; sd-scripts library/sai_model_spec.py (fields, architecture) and library/train_util.py (hashes); A1111
extensions-builtin/Lora/network.py (which keys are read) and ui_edit_user_metadata.py (the side-car).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.files import sha256_bytes, write_json
from darkroom.sdxl.adapters import alphas
from darkroom.sdxl.adapters.changes import Change, LowRank, Oft

if TYPE_CHECKING:
    from darkroom.sdxl.adapters.layouts import Adapter

STALE = frozenset({alphas.NAME, "modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash"})
"""What describes tensors or one layout, and is made anew whenever a file is written."""
Kind = Literal["lora", "textual-inversion", "controlnet"]
CARD = ("description", "author", "date", "license", "usage_hint", "thumbnail", "tags", "merged_from", "prediction_type", "timestep_range")
ALGORITHMS = {"LoRA": "lora", "LoCon": "locon", "DoRA": "lora", "LoHa": "loha", "LoKr": "lokr", "GLoRA": "glora", "(IA)^3": "ia3", "diag-OFT": "diag-oft",
              "BOFT": "boft", "full": "full", "norm": "full"}  # fmt: skip


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The three hashes of a file's header.

    sshs_model_hash is over everything after the header; sshs_legacy_hash over 64 KiB at 1 MiB of the file as it is with the ss_ keys alone (of a
    smaller file it is the hash of nothing, as in sd-scripts); modelspec.hash_sha256 is the first again, with "0x" before it.
    """
    data = safetensors_bytes(dict(tensors), {key: value for key, value in metadata.items() if key.startswith("ss_")})
    body = hashlib.sha256(memoryview(data)[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    legacy = sha256_bytes(data[0x100000:0x110000])[:8]
    return {"sshs_model_hash": body, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{body}"}


def modelspec(
    title: str,
    kind: Kind = "lora",
    resolution: str = "1024x1024",
    trigger: Iterable[str] = (),
    negative: bool = False,
    card: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The modelspec fields of an adapter: every MUST, and what is known of the others. hash_sha256 is added when the file is written.

    `trigger` are the words that call it; `negative` marks what belongs into the negative prompt; `card` are further fields (author, license, ...).
    Raises AdapterError for an unknown field of the card.
    """
    if odd := next((name for name in card or {} if name not in CARD), None):
        raise AdapterError(f'card: modelspec has no field "{odd}". The fields are {", ".join(CARD)}.')
    said = {
        "sai_model_spec": "1.0.1", "architecture": f"stable-diffusion-xl-v1-base/{kind}", "title": title, "resolution": resolution,
        "implementation": "https://github.com/Stability-AI/generative-models", **(card or {}),
    }  # fmt: skip
    if words := ", ".join(trigger):
        said["trigger_phrase"] = words
    if negative:
        said["is_negative_embedding"] = "true"
    return {f"modelspec.{key}": value for key, value in said.items()}


def describe(
    adapter: Adapter,
    title: str,
    resolution: str = "1024x1024",
    trigger: Iterable[str] = (),
    negative: bool = False,
    card: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The metadata for `layouts.write`: modelspec's fields, and kohya's.

    `training` are facts of the run without "ss_" (seed, steps, learning_rate, tag_frequency, ...); the rest is as in `modelspec`.
    """
    facts = {"output_name": title, **network(adapter.changes.values()), **(training or {})}
    return modelspec(title, "lora", resolution, trigger, negative, card) | kohya_facts(facts)


def kohya_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts of a training under kohya's names: "ss_" before each, and what all of SDXL's adapters say."""
    return {f"ss_{key}": _text(value) for key, value in {"base_model_version": "sdxl_base_v1-0", "v2": "False", **facts}.items()}


def _text(value: Any) -> str:
    """Header values are strings: nested ones JSON, the rest as Python prints them (A1111 tests "True")."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else str(value)


def network(changes: Iterable[Change]) -> dict[str, Any]:
    """ss_network_*: the module that trains such a file in sd-scripts, the commonest rank and alpha, "Dynamic" where there are several."""
    found = list(changes)
    methods = Counter(change.method for change in found)
    ranks = {change.rank for change in found if change.rank}
    own = {change.alpha for change in found if change.alpha is not None and not isinstance(change, Oft)}
    plain = all(isinstance(change, LowRank) and change.mid is None and change.dora_scale is None for change in found)
    arguments: dict[str, Any] = {} if plain else {"algo": ALGORITHMS[methods.most_common(1)[0][0]]} | ({"dora_wd": "True"} if methods["DoRA"] else {})
    if plain and methods["LoCon"]:
        conv = {(change.rank, change.alpha) for change in found if change.method == "LoCon"}
        arguments = {"conv_dim": str(next(iter(conv))[0]), "conv_alpha": str(next(iter(conv))[1])} if len(conv) == 1 else {}
    return {
        "network_module": "networks.lora" if plain else "lycoris.kohya",
        "network_dim": str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic",
        "network_alpha": str(next(iter(own))) if len(own) == 1 else "Dynamic",
        "network_args": arguments,
    }


def trigger_words(metadata: Mapping[str, str], path: Path) -> list[str]:
    """The words that the header of an adapter or the side-car beside it gives to call it. Raises AdapterError as `read_sidecar` does."""
    beside = read_sidecar(path)
    said = [metadata.get("modelspec.trigger_phrase", ""), *(str(beside.get(key) or "") for key in ("activation text", "negative text"))]
    return list(dict.fromkeys(word.strip() for text in said for word in text.split(",") if word.strip()))


def is_negative(metadata: Mapping[str, str]) -> bool:
    """Whether the header says that it belongs into the negative prompt."""
    return metadata.get("modelspec.is_negative_embedding", "").lower() == "true"


def sidecar(path: Path, trigger: Iterable[str] = (), weight: float = 0.0, negative: bool = False, description: str = "", notes: str = "") -> Path:
    """Write A1111's user metadata beside the adapter: FILE.json, what it held before kept. Returns its path.

    `weight` 0 means no preference. A negative adapter's words go where A1111 adds them to the negative prompt. Raises AdapterError, OutputError.
    """
    beside = path.with_suffix(".json")
    words = ", ".join(trigger)
    new = {
        "description": description, "sd version": "SDXL", "activation text": "" if negative else words, "preferred weight": weight,
        "negative text": words if negative else "", "notes": notes,
    }  # fmt: skip
    write_json(beside, read_sidecar(path) | {key: value for key, value in new.items() if value or key in ("sd version", "preferred weight")})
    return beside


def read_sidecar(path: Path) -> dict[str, Any]:
    """A1111's user metadata of an adapter, {} where there is none. Raises AdapterError where it is no JSON object."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AdapterError(f"{beside}: is no JSON object, and A1111's notes on {path.name} would be. Move it away or mend it.")
    return found
