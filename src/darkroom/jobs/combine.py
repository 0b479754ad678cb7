"""Adapters brought together: into a base, several into one, a checkpoint's difference as a LoRA, fewer ranks, and two compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darkroom import pocket
from darkroom.errors import AdapterError, OutputError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.adapter import catalogue_for
from darkroom.jobs.watch import Silent, Watcher

if TYPE_CHECKING:
    import torch

    from darkroom.sdxl.adapters.layouts import Adapter
    from darkroom.sdxl.adapters.places import Catalogue
    from darkroom.sdxl.adapters.share import Share
    from darkroom.sdxl.unread import Unread

Number = Literal["", "fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Rank:
    """How many ranks are kept: see `matrices.Cut`."""

    rank: int = 0
    energy: float = 0.0
    cumulative: float = 0.0
    ratio: float = 0.0


@dataclass(frozen=True)
class Merge:
    """Adapters (FILE or FILE:WEIGHT) into the base `into`, or into one adapter by `how`. `blocks` are "PLACE=W" for all of them, "2:PLACE=W" for the second."""

    files: tuple[str, ...]
    out: Path
    into: str = ""
    how: Literal["sum", "concat", "svd"] = "concat"
    rank: Rank = field(default_factory=Rank)
    blocks: tuple[str, ...] = ()
    dtype: Number = ""
    base: str = ""
    config: Path | None = None


def merge(asked: Merge, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the merged checkpoint or adapter, and say how far it lies from the exact one. Raises a DarkroomError."""
    free(asked.out)
    if asked.into and asked.base:
        raise RecipeError(f"--base {asked.base}: is for adapters that are merged into one another. --into names the base that they are merged into.")
    if asked.into and (asked.how != "concat" or asked.rank != Rank()):
        raise RecipeError("--how and ranks are for several adapters in one. A base takes their exact sum: leave them out, or leave --into out.")
    if not asked.into:
        _check_file(asked.out)
    base = open_unread(asked.into or asked.base, asked.config) if asked.into or asked.base else None
    shares = read_shares(asked.files, asked.blocks, base.catalogue if base else None)
    if asked.into and base is not None:
        return _into(asked, base, shares, watcher or Silent())
    return _together(asked, base, shares, watcher or Silent())


def open_unread(base: str, config: Path | None = None) -> Unread:
    """A base whose weights stay in their files: pocket, a folder, a single file or a hub id. Raises ModelError."""
    from darkroom.sdxl.unread import Unread

    return Unread.open(pocket.resolve(base), config, base)


def read_shares(files: Sequence[str], blocks: Sequence[str] = (), catalogue: Catalogue | None = None) -> list[Share]:
    """FILE[:WEIGHT] texts as adapters with their weights. Raises AdapterError and RecipeError."""
    from darkroom.jobs.generate import parse_adapter
    from darkroom.sdxl.adapters.layouts import read
    from darkroom.sdxl.adapters.share import Share

    by_place = parse_blocks(blocks, len(files))
    found = []
    for text, factors in zip(files, by_place, strict=True):
        try:
            worn = parse_adapter(text)
        except AdapterError as error:  # it speaks of the option that other commands have
            raise AdapterError(str(error).removeprefix("--adapter ")) from None
        if worn.branch != "both":
            raise AdapterError(f"{text}: one branch of guidance alone cannot be merged: weights are the same for both. Leave @{worn.branch} out.")
        catalogue = catalogue or catalogue_for(Path(worn.file))
        found.append(Share(read(Path(worn.file), catalogue), worn.weight, worn.text_weight, factors))
    return found


def parse_blocks(texts: Sequence[str], count: int) -> list[dict[str, float]]:
    """ "middle_block=0.5" is for every adapter, "2:middle_block=0.5" for the second alone. Raises RecipeError."""
    found: list[dict[str, float]] = [{} for _ in range(count)]
    for text in texts:
        left, equals, weight = text.rpartition("=")
        number, colon, place = left.rpartition(":")
        try:
            chosen = [int(number) - 1] if colon else list(range(count))
            for index in chosen:
                if not 0 <= index < count:
                    raise RecipeError(f"--block {text}: there are {count} adapters, and none has the number {number}.")
                found[index][place] = float(weight)
        except ValueError:
            equals = ""
        if not equals or not place:
            raise RecipeError(f"--block {text}: write PLACE=WEIGHT, for example middle_block=0.5, or 2:middle_block=0.5 for the second adapter alone.")
    return found


def dtype_of(name: Number, otherwise: torch.dtype) -> torch.dtype:
    """fp32, fp16 or bf16 by name; empty: `otherwise`, where that is one of them."""
    import torch

    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return known[name] if name else otherwise if otherwise in known.values() else torch.float16


def _check_file(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise RecipeError(f"--out {out}: an adapter is a file that ends in .safetensors, by which programs find it. Name it so.")


def free(out: Path) -> None:
    """Refuse what is there before any work; an empty folder may be filled."""
    if out.exists() and not (out.suffix != ".safetensors" and out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out}: is there already. Name another place with --out.")


def _into(asked: Merge, base: Unread, shares: list[Share], watcher: Watcher) -> dict[str, Any]:
    from darkroom.sdxl.adapters.into import Dressed
    from darkroom.sdxl.unread import counted, write_model

    dtype = dtype_of(asked.dtype, base.dtype)
    dressed = Dressed(base.tensor, base.catalogue, shares, dtype)
    said = {"base": base.name, "base_sha256": base.model.hash, "adapters": [share.facts() for share in shares]}
    names = ", ".join([base.name.removesuffix(".safetensors"), *(share.adapter.path.stem for share in shares)])
    metadata = {"modelspec.merged_from": names, "darkroom.merge": _json(said)} | {
        key: value for key, value in base.metadata.items() if key in ("modelspec.license", "modelspec.resolution")
    }
    write_model(base.model, counted(dressed.tensor, base, watcher.move), asked.out, dtype, metadata)
    return {
        "out": str(asked.out), "into": asked.into, "dtype": _name(dtype), "modules": dressed.modules, "adapters": said["adapters"],
        "change": {"all": dressed.change.error, **_errors(dressed.change.blocks())},
        "rounding": {"all": dressed.rounding.error, **_errors(dressed.rounding.blocks())},
        "left_out": sorted(word for share in shares for word in share.adapter.embeddings),
        **_hashed(asked.out),
    }  # fmt: skip


def _errors(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {block: found["error"] for block, found in blocks.items()}


def _together(asked: Merge, base: Unread | None, shares: list[Share], watcher: Watcher) -> dict[str, Any]:
    from darkroom.sdxl.adapters import heritage
    from darkroom.sdxl.adapters.combine import bundled, combine, widest

    rank = _cut(asked.rank)
    if asked.how != "svd" and asked.rank != Rank():
        raise RecipeError(f"--how {asked.how}: is exact and has no rank to choose. Use --how svd with a rank, or leave the rank out.")
    dtype = dtype_of(asked.dtype, widest([share.adapter for share in shares]))
    made = combine(shares, asked.how, rank, dtype, base.weight if base else None, lambda done, total: watcher.move("merging", done, total))
    adapter = _adapter(asked.out, made.changes, shares[0].adapter.catalogue)
    adapter.embeddings = bundled(shares)
    facts = made.facts()
    record = {"how": asked.how, "error": facts["error"], **({"rank": vars(asked.rank)} if asked.how == "svd" else {}), **_on(base)}
    _write(adapter, heritage.merged(adapter, shares, asked.out.stem, record))
    return {
        "out": str(asked.out), "how": asked.how, "dtype": _name(dtype), "adapters": [share.facts() for share in shares], **facts, **_on(base),
        **_hashed(asked.out),
    }  # fmt: skip


def _on(base: Unread | None) -> dict[str, str]:
    return {"base": base.name, "base_sha256": base.model.hash} if base else {}


def _cut(rank: Rank) -> Any:
    from darkroom.sdxl.adapters.matrices import Cut

    return Cut(**vars(rank))


def _adapter(path: Path, changes: Mapping[Any, Any], catalogue: Catalogue) -> Adapter:
    from darkroom.sdxl.adapters.layouts import Adapter

    return Adapter(path, "", dict(changes), {}, catalogue=catalogue)


def _write(adapter: Adapter, metadata: Mapping[str, str]) -> None:
    from darkroom.sdxl.adapters.layouts import write

    write(adapter.path, adapter, "kohya", metadata)


def _hashed(out: Path) -> dict[str, Any]:
    return {"size": out.stat().st_size, "sha256": sha256_file(out)} if out.is_file() else {}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, sort_keys=True)


@dataclass(frozen=True)
class Extract:
    """A tuned checkpoint, its base, and the ranks of the LoRA; `conv_rank` None: as `rank`, 0: no convolutions."""

    tuned: str
    base: str
    out: Path
    rank: Rank
    conv_rank: int | None = None
    text_encoders: bool = True
    dtype: Number = "fp16"
    config: Path | None = None


def extract(asked: Extract, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the LoRA, and say what it misses and what no LoRA could hold. Raises a DarkroomError."""
    from darkroom.sdxl.adapters import heritage
    from darkroom.sdxl.adapters.extract import Extraction
    from darkroom.sdxl.adapters.extract import extract as taken

    free(asked.out)
    _check_file(asked.out)
    base = open_unread(asked.base, asked.config)
    tuned = open_unread(asked.tuned, asked.config or (base.place if base.place.is_dir() else None))
    dtype = dtype_of(asked.dtype, tuned.dtype)
    wanted = Extraction(_cut(asked.rank), asked.conv_rank, asked.text_encoders)
    listener = watcher or Silent()
    found = taken(tuned, base, wanted, dtype, lambda done, total: listener.move("extracting", done, total))
    adapter = _adapter(asked.out, found.made.changes, base.catalogue)
    facts = found.made.facts() | {"left_out": found.left_out, "error_of_all": found.error_of_all}
    record = {
        "tuned": tuned.name, "tuned_sha256": tuned.model.hash, "base_sha256": base.model.hash, "rank": vars(asked.rank), "error": facts["error"],
        "error_of_all": found.error_of_all,
    }  # fmt: skip
    _write(adapter, heritage.extracted(adapter, asked.out.stem, base.name, base.model.resolution, record))
    return {"out": str(asked.out), "tuned": asked.tuned, "base": asked.base, "dtype": _name(dtype), "of": found.dtypes, **facts, **_hashed(asked.out)}


def resize(file: Path, rank: Rank, out: Path, dtype: Number = "", base: str = "", config: Path | None = None, watcher: Watcher | None = None) -> dict[str, Any]:
    """Write the nearest LoRA of fewer ranks, and say how near it is. Raises a DarkroomError."""
    from darkroom.sdxl.adapters import combine, heritage
    from darkroom.sdxl.adapters.layouts import read

    free(out)
    _check_file(out)
    opened = open_unread(base, config) if base else None
    adapter = read(file, opened.catalogue if opened else catalogue_for(file))
    number, listener = dtype_of(dtype, combine.widest([adapter])), watcher or Silent()
    made = combine.resize(adapter, _cut(rank), number, opened.weight if opened else None, lambda done, total: listener.move("resizing", done, total))
    written = _adapter(out, made.changes, adapter.catalogue)
    written.embeddings = adapter.embeddings
    facts = made.facts()
    _write(written, heritage.resized(written, adapter, {"rank": vars(rank), "error": facts["error"], **_on(opened)}))
    before = sorted({change.rank for change in adapter.changes.values() if change.rank})
    return {"out": str(out), "from": str(file), "ranks_before": before, "dtype": _name(number), **facts, **_on(opened), **_hashed(out)}


def diff(a: Path, b: Path, base: str = "", config: Path | None = None, watcher: Watcher | None = None) -> dict[str, Any]:
    """What two adapters do to the weights, compared. Raises AdapterError."""
    from darkroom.sdxl.adapters.difference import compare
    from darkroom.sdxl.adapters.layouts import read

    opened = open_unread(base, config) if base else None
    catalogue = opened.catalogue if opened else catalogue_for(a)
    one, two = read(a, catalogue), read(b, catalogue)
    listener = watcher or Silent()
    found = compare(one, two, opened.weight if opened else None, lambda done, total: listener.move("comparing", done, total))
    return {"a": str(a), "b": str(b), "same_file": one.sha256 == two.sha256, **found.facts()}
