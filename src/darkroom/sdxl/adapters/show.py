"""What an adapter file is, before anything is done with it: method, rank, coverage, words, strength, what is odd, and which program loads it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from darkroom.sdxl.adapters import alphas, doubts, programs
from darkroom.sdxl.adapters.changes import Change, LowRank, Oft
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.inversion_files import Word, read_words
from darkroom.sdxl.adapters.keys import Sorted
from darkroom.sdxl.adapters.layouts import changes_of, understood
from darkroom.sdxl.adapters.level import uneven
from darkroom.sdxl.adapters.metadata import is_negative, trigger_words
from darkroom.sdxl.adapters.places import Catalogue, Key

HANDFUL = 16 << 20
"""Bytes of tensors that are held at a time while norms are computed."""
TRAINING = (
    "ss_sd_model_name", "ss_resolution", "ss_num_train_images", "ss_steps", "ss_epoch", "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer",
    "ss_lr_scheduler", "ss_seed", "ss_clip_skip", "ss_min_snr_gamma", "ss_noise_offset", "ss_mixed_precision", "ss_network_module",
    "ss_training_started_at", "ss_training_comment", "modelspec.title", "modelspec.author", "modelspec.date", "modelspec.license",
    "modelspec.prediction_type", "modelspec.merged_from",
)  # fmt: skip


def facts(path: Path, catalogue: Catalogue | None = None, norms: bool = True) -> dict[str, Any]:
    """Everything that can be said of the file, as JSON has it. `catalogue` None: SDXL 1.0.

    With `norms` False only the header and the alphas are read: a file of 2 GB takes no longer than a small one. With it all is read, a few modules at a
    time. Raises AdapterError as reading does.
    """
    header, known = Header.read(path), catalogue or Catalogue.of_sdxl()
    found = understood(header, known)
    small = [key for slots in found.slots.values() for suffix, key in slots.items() if suffix in ("alpha", "on_input")]
    changes = changes_of(header, found, known, {name: header.meta(name) for name in header.entries} | dict(header.tensors(small)))
    strengths, odd = _weighed(header, found, known) if norms else ({}, [])
    return {
        "path": str(path), "size": header.size, "sha256": header.sha256 if norms else None, "family": _family(known), "layout": found.layout,
        "methods": _counted(change.method for change in changes.values()), "ranks": _counted(change.rank for change in changes.values() if change.rank),
        "alphas": _counted(change.alpha for change in changes.values() if change.alpha is not None),
        "dtypes": _counted(header.entries[key].dtype for key in header.entries), "coverage": _coverage(changes, known),
        "trigger_words": _words(header.metadata, path), "bundled": sorted(found.bundled), "negative": is_negative(header.metadata),
        "training": _training(header.metadata), "norms": _norms(strengths) if norms else None, 
        "warnings": [*odd, *doubts.of_text(changes, found.layout, found.short_text), *doubts.of_header(changes, header.metadata)],
        "programs": {name: asdict(verdict) for name, verdict in programs.verdicts(_deciding(header, found, changes)).items()},
    }  # fmt: skip


def _weighed(header: Header, found: Sorted, catalogue: Catalogue) -> tuple[dict[Key, float | None], list[str]]:
    """The norm of every change, and what is odd about them all."""
    norms: dict[Key, float | None] = {}
    idle: set[Key] = set()
    for keys in _handfuls(header, found):
        names = [name for key in keys for name in found.slots[key].values()]
        held = changes_of(header, Sorted(slots={key: found.slots[key] for key in keys}), catalogue, dict(header.tensors(names)))
        norms |= {key: change.norm() for key, change in held.items()}
        idle |= {key for key, change in held.items() if doubts.idle(change, norms[key])}
    for name in (name for keys in found.bundled.values() for name in keys.values()):
        header.tensor(name)  # proves it finite
    return norms, [*doubts.of_strength(norms, idle), *doubts.of_hash(header.metadata, _body_hash(header))]


def _handfuls(header: Header, found: Sorted) -> Iterator[list[Key]]:
    """The places in order, as many at a time as have tensors of HANDFUL bytes together."""
    keys: list[Key] = []
    size = 0
    for key in sorted(found.slots):
        keys.append(key)
        size += sum(header.entries[name].end - header.entries[name].begin for name in found.slots[key].values())
        if size >= HANDFUL:
            yield keys
            keys, size = [], 0
    if keys:
        yield keys


def _body_hash(header: Header) -> str:
    with header.path.open("rb") as file:
        file.seek(header.start)
        digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest()


def _training(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: metadata[key] for key in TRAINING if metadata.get(key) not in (None, "", "None")}


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


def _words(metadata: Mapping[str, str], path: Path) -> list[str]:
    """Words that call the adapter: its own word on that first, then what most captions of its training held."""
    try:
        tags: Counter[str] = Counter()
        for counts in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            tags.update({str(tag).strip(): int(count) for tag, count in counts.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        tags = Counter()
    return trigger_words(metadata, path) or [tag for tag, _ in tags.most_common(10)]


def _norms(strengths: Mapping[Key, float | None]) -> dict[str, dict[str, Any]]:
    """By block, the Frobenius norm of all its deltas together; `unknown` counts those that depend on the base's weights."""
    blocks: dict[str, list[float | None]] = {}
    for key, norm in strengths.items():
        blocks.setdefault(doubts.block(*key), []).append(norm)
    return {
        block: {"norm": math.sqrt(sum(norm * norm for norm in found if norm is not None)), "modules": len(found), "unknown": found.count(None)}
        for block, found in blocks.items()
    }


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
    if "words" in known:
        return _word_lines(known)

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
    if known["norms"] is None:
        told.append("How large the change is was not computed: with --norms the whole file is read for it.")
    for block, fact in (known["norms"] or {}).items():
        told.append(f"{block:24} {fact['norm']:10.4f}" + (f"   {fact['unknown']} of {fact['modules']} depend on the base" if fact["unknown"] else ""))
    return [*told, *_endings(known)]


def _endings(known: Mapping[str, Any]) -> list[str]:
    warned = [f"warning: {text}" for text in known["warnings"]]
    return warned + [f"{program:12} {verdict['loads']:7} {verdict['why']}".rstrip() for program, verdict in known["programs"].items()]


# ---- textual inversions ---------------------------------------------------------------------------------------------------------------------------------


def word_facts(path: Path, widths: Mapping[str, int] | None = None, vocabulary: Mapping[str, float] | None = None, source: str = "SDXL 1.0") -> dict[str, Any]:
    """The same of a textual inversion, a file or the folder of diffusers' two. Raises AdapterError as reading does.

    `vocabulary` is the mean norm of the words that the encoders have ("clip_l", "clip_g"): vectors far longer than those drown the rest of a prompt.
    """
    found = read_words(path, widths)
    files = list(dict.fromkeys(file for word in found for file in word.files))
    layout = found[0].layout
    return {
        "path": str(path), "files": [str(file) for file in files], "size": sum(file.stat().st_size for file in files), "sha256": found[0].sha256,
        "family": source if source == "SDXL 1.0" else f"SDXL ({source})", "layout": layout, "methods": {"textual inversion": len(found)},
        "words": {word.name: _word(word, vocabulary or {}) for word in found}, "negative": is_negative(found[0].metadata),
        "training": _training(found[0].metadata), "vocabulary": dict(vocabulary or {}) or None,
        "warnings": [text for word in found for text in _idle_vectors(word)],
        "programs": {name: asdict(verdict) for name, verdict in _word_verdicts(layout).items()},
    }  # fmt: skip


def _word_verdicts(layout: str) -> dict[str, programs.Verdict]:
    """From diffusers' loaders/textual_inversion.py, A1111's modules/textual_inversion, ComfyUI's comfy/sd1_clip.py, sd-scripts' sdxl_gen_img.py."""
    both = "it wants clip_l and clip_g in one file of the word's name: convert it --to kohya"
    if layout == "bundled":
        return {name: programs.Verdict("no", "it reads no bundle: convert it --to kohya or diffusers") for name in programs.PROGRAMS}
    if layout == "kohya":
        apart = programs.Verdict("no", "load_textual_inversion wants a file for each encoder: convert it --to diffusers")
        return {name: apart if name == "diffusers" else programs.Verdict("yes", "") for name in programs.PROGRAMS}
    known = {"diffusers": programs.Verdict("yes", ""), "ComfyUI": programs.Verdict("partly", f"it reads each file for one encoder alone; {both}")}
    return {name: known.get(name, programs.Verdict("no", both)) for name in programs.PROGRAMS}


def _word(word: Word, vocabulary: Mapping[str, float]) -> dict[str, Any]:
    norms = {clip: [float(norm) for norm in tensor.float().norm(dim=-1)] for clip, tensor in word.vectors.items()}
    means = {clip: sum(found) / len(found) for clip, found in norms.items()}
    return {
        "vectors": word.count, "widths": {clip: int(tensor.shape[1]) for clip, tensor in word.vectors.items()},
        "dtype": str(next(iter(word.vectors.values())).dtype).removeprefix("torch."), "norms": norms,
        "against_vocabulary": {clip: means[clip] / mean for clip, mean in vocabulary.items() if mean} or None,
    }  # fmt: skip


def _idle_vectors(word: Word) -> Iterable[str]:
    for clip, tensor in word.vectors.items():
        if zero := int((tensor == 0).all(dim=-1).sum()):
            yield f'"{word.name}" has {zero} of {word.count} vectors of {clip} all zero: that encoder reads nothing there.'


def _word_lines(known: Mapping[str, Any]) -> list[str]:
    told = [f"{known['path']}: textual inversion for {known['family']}, {known['size'] / 1e3:.1f} kB, layout {known['layout']}"]
    for name, fact in known["words"].items():
        widths = ", ".join(f"{clip} {width} wide" for clip, width in fact["widths"].items())
        told.append(f'"{name}": {fact["vectors"]} vector{"" if fact["vectors"] == 1 else "s"}, {widths}, {fact["dtype"]}')
        for clip, norms in fact["norms"].items():
            against = f"   {fact['against_vocabulary'][clip]:.2f} times the vocabulary's mean" if fact["against_vocabulary"] else ""
            told.append(f"  {clip}: norms {', '.join(f'{norm:.4g}' for norm in norms[:8])}{' ...' if len(norms) > 8 else ''}{against}")
    if known["vocabulary"] is None:
        told.append("Name its base with --base to see these norms against those of its own words.")
    told += ["goes into the negative prompt"] * known["negative"]
    told += [f"{key.removeprefix('ss_').removeprefix('modelspec.')}: {value}" for key, value in known["training"].items()]
    return [*told, *_endings(known)]
