"""Adapter files in and out. A file that enters is understood whole or refused; one that leaves is what the layout's own programs write.

Layouts written: "kohya" (sgm spelling: A1111, ComfyUI, sd-scripts, diffusers), "diffusers" (`.lora.down.weight`, as its training scripts save) and
"peft" (`.lora_A.weight`, as diffusers' save_lora_weights gives). The last two keep alphas in JSON metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import torch
from torch import Tensor

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters import alphas, families
from darkroom.sdxl.adapters.changes import Change, LowRank, tensors_of
from darkroom.sdxl.adapters.fit import Misfit, build
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.keys import MAGNITUDE, Sorted, sort_keys
from darkroom.sdxl.adapters.metadata import STALE
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.formats import text_path, write_adapter

Layout = Literal["kohya", "diffusers", "peft"]
Words = dict[str, dict[str, Tensor]]
"""{word: {"clip_l": (n, 768), "clip_g": (n, 1280)}}."""


@dataclass
class Adapter:
    """An adapter as it lay in its file: a change for each (part, module path), and the embeddings bundled with it."""

    path: Path
    sha256: str
    changes: dict[Key, Change]
    metadata: dict[str, str] = field(default_factory=dict)
    layout: str = "kohya"
    embeddings: Words = field(default_factory=dict)
    short: str = ""
    """Twelve characters of the hash over everything after the header (A1111's short hash, the sites' AutoV3)."""
    catalogue: Catalogue = field(default_factory=Catalogue.of_sdxl)


def read(path: Path, catalogue: Catalogue) -> Adapter:
    """Read an adapter file for this base: every key understood, every shape checked, every number finite. Raises AdapterError."""
    header = Header.read(path)
    found = understood(header, catalogue)
    tensors = dict(header.tensors())
    changes = changes_of(header, found, catalogue, tensors)
    words = {word: {clip: tensors[key] for clip, key in keys.items()} for word, keys in found.bundled.items()}
    return Adapter(path, header.sha256, changes, header.metadata, found.layout, words, _body_hash(path, header.start)[:12], catalogue)


def understood(header: Header, catalogue: Catalogue) -> Sorted:
    """The keys by place. Raises AdapterError where a key names nothing, is there in two spellings, or nothing is there."""
    path, found = header.path, sort_keys(header.entries, catalogue)
    if found.strange:
        what = families.family(header, {key: header.shape(key) for key in found.strange})
        said = f"{path}: is {what}" if what else f"{path}: {len(found.strange)} of {len(header.entries)} keys name nothing in {catalogue.source}"
        raise AdapterError(f"{said} ({_few(found.strange)}). Nothing was loaded.")
    if found.twice:
        one, two = found.twice[0]
        raise AdapterError(f"{path}: {one} and {two} are the same tensor in two spellings, and programs take one or the other. Export it again in one layout.")
    if not found.slots:
        holds = "bundled embeddings alone. Give it with --embedding" if found.bundled else "no tensor at all. Train or fetch it again"
        raise AdapterError(f"{path}: holds {holds}.")
    _check_words(header, found, catalogue)
    return found


def changes_of(header: Header, found: Sorted, catalogue: Catalogue, tensors: Mapping[str, Tensor]) -> dict[Key, Change]:
    """Build the change of every place from tensors by key, which may be on the meta device but for alphas and on_input. Raises AdapterError."""
    changes, problems = {}, []
    recorded = _recorded(header, found)
    for key in sorted(found.slots):
        held = {suffix: tensors[name] for suffix, name in found.slots[key].items()}
        try:
            alpha = _alpha(held.pop("alpha")) if "alpha" in held else recorded.get(key)
            changes[key] = build(catalogue.places[key], held, alpha)
        except Misfit as misfit:
            problems.append(f"{catalogue.places[key]}: {misfit}")
    if problems:
        what = families.family(header, {name: header.shape(name) for slots in found.slots.values() for name in slots.values()})
        said = f"{header.path}: is {what} ({problems[0]})" if what else f"{header.path}: {_few(problems, '; ')}"
        raise AdapterError(f"{said}. It was made for another base or is damaged: choose its own base with --base, or fetch it again.")
    return changes


def _alpha(tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise Misfit(f"its alpha is a tensor {tuple(tensor.shape)} and not a number")
    return alphas.single(float(tensor))


def _recorded(header: Header, found: Sorted) -> dict[Key, float]:
    downs = {key: header.shape(slots["lora_down.weight"]) for key, slots in found.slots.items() if "lora_down.weight" in slots}
    ranks = {key: shape[0] for key, shape in downs.items() if shape}
    try:
        return alphas.alphas_of(header.metadata, ranks)
    except alphas.Unclear as unclear:
        raise AdapterError(f"{header.path}: {unclear}, so its strength is unknown. Export it again.") from None


def _check_words(header: Header, found: Sorted, catalogue: Catalogue) -> None:
    for word, keys in found.bundled.items():
        for clip, key in keys.items():
            shape, width = header.shape(key), catalogue.words.get(clip)
            if width is None or len(shape) not in (1, 2) or shape[-1] != width:
                raise AdapterError(f"{header.path}: the bundled word {word!r} has {clip} {shape}, and this base wants (n, {width}). It is for another base.")


def _few(names: Iterable[str], between: str = ", ") -> str:
    listed = list(names)
    return between.join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _body_hash(path: Path, start: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def write(path: Path, adapter: Adapter, layout: Layout, metadata: Mapping[str, str] | None = None) -> None:
    """Write the adapter in a layout, atomically; equal adapters and metadata give equal bytes. `metadata` None keeps what the adapter came with.

    Raises AdapterError where the layout has no equal for a method, and OutputError.
    """
    tensors = tensors_in(adapter, layout)
    kept = {name: value for name, value in (adapter.metadata if metadata is None else metadata).items() if name not in STALE}
    if layout != "kohya":
        kept[alphas.NAME] = alphas.described(_lowrank(adapter, layout))
    write_adapter(path, tensors, kept)


def tensors_in(adapter: Adapter, layout: Layout) -> dict[str, Tensor]:
    """Every tensor of the adapter under the layout's names, sorted. Raises AdapterError where the layout has no equal."""
    found: dict[str, Tensor] = {}
    places = adapter.catalogue.places
    if layout == "kohya":
        for key, change in adapter.changes.items():
            found |= {f"{places[key].kohya}.{suffix}": tensor for suffix, tensor in _with_alpha(change).items()}
        found |= {f"bundle_emb.{word}.{clip}": tensor for word, clips in adapter.embeddings.items() for clip, tensor in clips.items()}
    else:
        for (part, module), change in _lowrank(adapter, layout).items():
            found |= _dotted(part, module, change, layout)
    return dict(sorted(found.items()))


def _with_alpha(change: Change) -> dict[str, Tensor]:
    """Tensors with the alpha beside them, in the tensors' own dtype where that can say it."""
    found = tensors_of(change)
    if change.alpha is None:
        return found
    dtype = next(tensor.dtype for suffix, tensor in found.items() if suffix != "dora_scale")
    alpha = torch.tensor(change.alpha, dtype=dtype)
    return found | {"alpha": alpha if float(alpha) == change.alpha else torch.tensor(change.alpha, dtype=torch.float32)}


def _lowrank(adapter: Adapter, layout: Layout) -> dict[Key, LowRank]:
    """The changes, all of which this layout must be able to say. Raises AdapterError."""
    found: dict[Key, LowRank] = {}
    for key, change in adapter.changes.items():
        if not isinstance(change, LowRank) or change.mid is not None:
            what = change.method + (" with lora_mid" if isinstance(change, LowRank) else "")
            _no_equal(adapter, layout, f"{'.'.join(key)} is {what}, and diffusers reads LoRA and DoRA alone")
        if change.dora_scale is not None and change.dora_scale.shape[0] != change.up.shape[0]:
            _no_equal(adapter, layout, f"{'.'.join(key)} has a DoRA magnitude for each input, and peft has one for each output alone")
        found[key] = change
    for part in {part for part, _ in found}:
        if len({change.dora_scale is None for (owner, _), change in found.items() if owner == part}) > 1:
            _no_equal(adapter, layout, f"some modules of {part} are DoRA and some are not, and peft has one switch for them all")
    if adapter.embeddings:
        _no_equal(
            adapter,
            layout,
            f"it bundles the embedding {next(iter(adapter.embeddings))!r}, and diffusers refuses files with one: take it out by `adapter convert --unbundle`",
        )
    return found


def _no_equal(adapter: Adapter, layout: str, why: str) -> NoReturn:
    raise AdapterError(f'{adapter.path}: cannot be written in the layout "{layout}": {why}. The layout "kohya" keeps it.')


def _dotted(part: str, module: str, change: LowRank, layout: Layout) -> dict[str, Tensor]:
    name = f"{part}.{module if part == 'unet' else text_path(module)}"
    ends = ("lora_A", "lora_B") if layout == "peft" else ("lora.down", "lora.up") if part == "unet" else ("lora_linear_layer.down", "lora_linear_layer.up")
    found = {f"{name}.{ends[0]}.weight": change.down, f"{name}.{ends[1]}.weight": change.up}
    if change.dora_scale is not None:
        flat = change.dora_scale.flatten()
        found[f"{name}.{MAGNITUDE}.weight"] = flat if change.down.ndim == 2 else flat.view(1, -1, 1, 1)
    return found
