"""What lies in a workspace that a form can offer: folders of pictures, base models, adapters. By names and headers alone; nothing is loaded."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.data.picture import ENDINGS

MOST = 50_000
"""Folders that are looked into; a workspace with more is listed in part."""
LONGEST = 1 << 24
"""Bytes of a header that is read for a list."""
PARTS = frozenset({"unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"})
"""Folders of a model in diffusers' layout."""
EXPORT = frozenset({"facts.json", "recipe.toml", "README.md"})
"""Files that tell an export."""
EMBEDDED = frozenset({"clip_l", "clip_g", "emb_params"})
"""How vectors of a textual inversion are called."""
WHOLE = "model.diffusion_model."
"""How tensors of a whole checkpoint are called."""


@dataclass(frozen=True)
class Inventory:
    """What was found; paths in the order of their names."""

    pictures: tuple[tuple[Path, int], ...]
    """Folders that hold pictures, with how many."""
    models: tuple[Path, ...]
    """Folders in diffusers' layout and whole checkpoints."""
    adapters: tuple[Adapter, ...]
    trials: tuple[Path, ...]
    """Folders of trials that came to an end."""
    exports: tuple[Path, ...]
    """Folders that `darkroom export` made."""
    whole: bool
    """False where there were more folders than are looked into."""


@dataclass(frozen=True)
class Adapter:
    """One adapter file, by what its header says."""

    path: Path
    size: int
    changed: float
    title: str = ""
    words: str = ""
    """The words that call it."""
    method: str = ""
    base: str = ""
    rank: str = ""
    negative: bool = False
    word: bool = False
    """A textual inversion: it brings a word, and is no change of the model."""
    made_of: tuple[str, ...] = ()
    """Of a merged, resized or extracted one: what it was made of."""
    sha256: tuple[str, ...] = ()
    """Hashes of those, as far as they are said."""
    damaged: str = ""


def take_stock(folder: Path) -> Inventory:
    """Everything below the folder; hidden folders, checkpoints and previews of runs, pictures of trials, and links that lead out of it are passed over."""
    pictures, models, adapters = list[tuple[Path, int]](), list[Path](), list[Adapter]()
    trials, exports = list[Path](), list[Path]()
    looked = 0
    for here, inner, files in os.walk(folder):
        looked += 1
        files = [name for name in files if not (name.endswith((".safetensors", ".json")) and _leads_out(Path(here, name), folder))]
        place, held = Path(here), set(files)
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in _passed(held))
        if "trial.json" in held:
            trials.append(place)
            inner.clear()
        elif "model_index.json" in held:
            models.append(place)
        else:
            exports += [place] if held >= EXPORT else []
            count = sum(1 for name in files if Path(name).suffix.lower() in ENDINGS)
            pictures += [(place, count)] if count and not held >= EXPORT else []
            for path in sorted(place / name for name in files if name.endswith(".safetensors")):
                found = read_adapter(path)
                if found is None:
                    models.append(path)
                else:
                    adapters.append(found)
        if looked >= MOST:
            break
    return Inventory(tuple(pictures), tuple(models), tuple(adapters), tuple(trials), tuple(exports), looked < MOST)


def _leads_out(path: Path, folder: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())


def _passed(files: set[str]) -> frozenset[str]:
    """Folders beside such files that are not looked into."""
    if "model_index.json" in files:
        return PARTS
    if files >= EXPORT:
        return frozenset({"images"})
    return frozenset({"steps", "previews", "shown", "pick"} if {"facts.json", "recipe.toml"} <= files else ())


def read_adapter(path: Path) -> Adapter | None:
    """What the header of a .safetensors says; None of a whole checkpoint, or of a file that went away."""
    try:
        stat = path.stat()
        names, said = _header(path, stat.st_size)
    except OSError:
        return None
    except ValueError as error:
        return Adapter(path, stat.st_size, stat.st_mtime, damaged=str(error))
    if any(name.startswith(WHOLE) for name in names):
        return None
    return Adapter(path, stat.st_size, stat.st_mtime, word=not EMBEDDED.isdisjoint(names), **_facts(said))


def _header(path: Path, size: int) -> tuple[list[str], dict[str, str]]:
    """Names of the tensors, and the metadata. Raises ValueError for what is no whole safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(LONGEST, size - 8):
            raise ValueError("is no whole safetensors file")
        tree = json.loads(file.read(length))
    said = tree.pop("__metadata__", {}) if isinstance(tree, dict) else None
    ends = [fact["data_offsets"][1] for fact in tree.values() if isinstance(fact, dict) and "data_offsets" in fact] if isinstance(tree, dict) else []
    if not isinstance(said, dict) or max(ends, default=0) != size - 8 - length:
        raise ValueError("is no whole safetensors file")
    return list(tree), {str(key): str(value) for key, value in said.items()}


def _facts(said: dict[str, str]) -> dict[str, Any]:
    parents = _parents(said)
    network = said.get("ss_network_module", "").rpartition(".")[2]
    arguments = _json(said.get("ss_network_args", ""))
    method = str(arguments.get("algo") or network or said.get("modelspec.architecture", "").rpartition("/")[2])
    return {
        "title": said.get("modelspec.title", ""), "words": said.get("modelspec.trigger_phrase", ""), "method": method,
        "base": said.get("ss_sd_model_name", ""), "rank": said.get("ss_network_dim", ""),
        "negative": said.get("modelspec.is_negative_embedding", "").lower() == "true",
        "made_of": tuple(name for name, _ in parents), "sha256": tuple(sha for _, sha in parents),
    }  # fmt: skip


def _parents(said: dict[str, str]) -> list[tuple[str, str]]:
    """(name, sha256) of what a file says that it was made of."""
    made = [*_json(said.get("darkroom.merge", "")).get("adapters", []), _json(said.get("darkroom.resize", ""))]
    return [(str(one["file"]), str(one.get("sha256", ""))) for one in made if isinstance(one, dict) and "file" in one]


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
