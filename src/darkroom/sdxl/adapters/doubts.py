"""What is odd about an adapter that is whole: changes that are zero or not finite, and a header that says other things than the tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from darkroom.sdxl.adapters.changes import Change, Hada, Ia3, LowRank, Oft
from darkroom.sdxl.adapters.metadata import ALGORITHMS, network
from darkroom.sdxl.adapters.places import Key

OTHERS = ("sd_v1", "sd_v2", "sd1", "sd2", "sd3", "flux", "v1", "v2")
SAME = {"locon": "lora", "dylora": "lora"}
"""Algorithms of LyCORIS whose files hold what another's do."""


def block(part: str, path: str) -> str:
    """The block of a module: unet.down_blocks.1, unet.mid_block, text_encoder."""
    if part != "unet":
        return part
    first, _, rest = path.partition(".")
    return f"unet.{first}.{rest.split('.')[0]}" if first in ("down_blocks", "up_blocks") else f"unet.{first}"


def of_strength(norms: Mapping[Key, float | None], idle: Collection[Key]) -> list[str]:
    """Sentences on changes that are zero (`idle`), all of them or a whole block's, and on those that are not finite."""
    if idle and len(idle) == len(norms):
        return ["This adapter changes nothing: every change in it is zero. It was saved before its first step, or its training failed."]
    blocks: dict[str, list[Key]] = {}
    for key in norms:
        blocks.setdefault(block(*key), []).append(key)
    still = {name: len(keys) for name, keys in blocks.items() if set(keys) <= set(idle)}
    found = [f"{name} is not changed: its {count} modules are in the file, and their changes are zero." for name, count in still.items()]
    broken = [".".join(key) for key, norm in norms.items() if norm is not None and not math.isfinite(norm)]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        found.append(f"{broken[0]}{more}: the change is not finite when it is computed, and pictures would be black. Use an earlier checkpoint.")
    return found


def idle(change: Change, norm: float | None) -> bool:
    """Whether a change of this norm changes nothing, whatever the base is."""
    match change:
        case Ia3():
            return not change.weight.any()
        case Oft():
            return not change.oft_blocks.any() and (change.rescale is None or bool((change.rescale == 1).all()))
        case _:
            return norm == 0 and (change.bias is None or not change.bias.any())


def of_text(changes: Mapping[Key, Change], layout: str, short: bool) -> list[str]:
    """Sentences on text encoders that other programs read in part or not at all.

    `short`: kohya's names lack text_model. diffusers 0.42 finds out how an encoder is spelled by its attention (utils/state_dict_utils.py,
    convert_state_dict_to_diffusers): kohya's layout by out_proj, peft's by any of q, k, v and out.
    """
    found = [
        "The names of the text encoders lack text_model., as a map made by hand from current transformers does: Darkroom knows what they mean, and no other "
        "program finds them. `darkroom adapter convert --to kohya` mends them."
    ] * short
    for part in ("text_encoder", "text_encoder_2"):
        paths = [path for owner, path in changes if owner == part]
        attention = [path for path in paths if ".self_attn." in path]
        goes_by = attention if layout == "peft" else [path for path in attention if path.endswith("out_proj")]
        plain = layout != "peft" and not attention and any(".mlp." in path for path in paths)
        if paths and not goes_by and not plain and (layout == "peft" or layout.startswith("kohya")):
            what = "its attention" if layout == "peft" else "out_proj"
            found.append(f"diffusers 0.42 goes by {what} to read {part} in this layout, which is not changed: it drops the rest of it, or refuses the file. "
                         f"Convert it --to diffusers.")  # fmt: skip
    return found


def of_header(changes: Mapping[Key, Change], metadata: Mapping[str, str]) -> list[str]:
    """Sentences on what the header says and the tensors do not."""
    return [*_of_base(metadata), *_of_numbers(changes.values(), metadata), *_of_method(changes.values(), metadata)]


def _of_base(metadata: Mapping[str, str]) -> Iterator[str]:
    for key, foreign in (
        ("ss_base_model_version", lambda value: value.lower().startswith(OTHERS)),
        ("modelspec.architecture", lambda value: bool(value) and not value.startswith("stable-diffusion-xl")),
        ("ss_v2", lambda value: value == "True"),
    ):
        if foreign(metadata.get(key, "")):
            yield f'The header says {key} = "{metadata[key]}", and the tensors are SDXL\'s. Programs that go by the header hide this file or load it wrongly.'


def _of_numbers(changes: Iterable[Change], metadata: Mapping[str, str]) -> Iterator[str]:
    """ss_network_dim and ss_network_alpha, where some change has a rank that they could mean."""
    scaled = [change for change in changes if isinstance(change, LowRank | Hada)]
    for key, found in (("ss_network_dim", {float(change.rank) for change in scaled}), ("ss_network_alpha", {change.alpha for change in scaled})):
        said = _number(metadata.get(key, ""))
        if said and found and not any(math.isclose(said, value, rel_tol=1e-3) for value in found):
            has = ", ".join(f"{value:g}" for value in sorted(found))
            yield f"The header says {key} = {metadata[key]}, and the tensors have {has}. The tensors count; the file was resized, merged or mislabelled."


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _of_method(changes: Iterable[Change], metadata: Mapping[str, str]) -> Iterator[str]:
    found = list(changes)
    methods = sorted({change.method for change in found})
    if metadata.get("ss_network_module") == "networks.lora" and network(found)["network_module"] != "networks.lora":
        yield f"The header says ss_network_module = networks.lora, which has LoRA alone, and the tensors are {', '.join(methods)}."
    said = str(_arguments(metadata).get("algo", "")).lower()
    algorithms = {SAME.get(name, name) for name in (ALGORITHMS[method] for method in methods)}
    if SAME.get(said, said) in set(ALGORITHMS.values()) - algorithms - {"locon"}:
        yield f'The header says that LyCORIS\' algorithm is "{said}", and the tensors are {", ".join(methods)}.'


def _arguments(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get("ss_network_args", "{}"))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def of_hash(metadata: Mapping[str, str], body: str) -> list[str]:
    """`body` is the SHA-256 of all that follows the header, as sd-scripts' sshs_model_hash has it."""
    said = metadata.get("sshs_model_hash", "")
    if not said or said == body:
        return []
    return ["sshs_model_hash is not the hash of these tensors: they were changed after the header was written, and its training facts may be another file's."]
