"""The embedded model: a real SDXL small enough to ship, its refiner, its scorer and the demo's nine cats."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from darkroom.errors import ModelError
from darkroom.fence import hand_over
from darkroom.files import cache_folder, sha256_bytes

WEIGHTS = Path(__file__).parent / "weights"
CATS = Path(__file__).parent / "cats"


SHARED = ("text_encoder_2", "tokenizer_2", "vae")  # the refiner's, which are the base's own and are shipped once


def folder(part: str = "") -> Path:
    """The pocket model's diffusers folder, or its part "refiner" or "scorer". Raises ModelError where the weights are not there."""
    found = WEIGHTS / part
    if not (found / "model_index.json").is_file() and not (found / "scorer.json").is_file():
        raise ModelError(f"{found}: the pocket model's weights are missing from this installation. Install Darkroom again, or build them: make pocket.")
    return _whole_refiner(found) if part == "refiner" else found


def _whole_refiner(found: Path) -> Path:
    """A folder in the cache that stock diffusers loads: the refiner's own files and the parts it shares with the base."""
    sources = [found, *(WEIGHTS / name for name in SHARED)]
    files = sorted(file for source in sources for file in source.rglob("*") if file.is_file())
    name = sha256_bytes("".join(f"{file}{file.stat().st_size}{file.stat().st_mtime_ns}" for file in files).encode())[:16]
    whole = cache_folder() / "pocket-refiner" / name
    if not whole.is_dir():
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=whole.parent, prefix=".part-"))
        shutil.copytree(found, part, dirs_exist_ok=True)
        for shared in SHARED:
            shutil.copytree(WEIGHTS / shared, part / shared, dirs_exist_ok=True)
        try:
            part.rename(whole)
        except OSError:  # another process was faster
            shutil.rmtree(part, ignore_errors=True)
    return whole


def resolve(base: str) -> str:
    """ "pocket" and "pocket-refiner" to their folders, a run that learned a whole model to that, "RUN@500" to the one of step 500; any other base as it is.

    Raises ModelError for a run that has no such model, and Outside where a page may not read all of it (`darkroom.fence`).
    """
    match base:
        case "pocket":
            return str(folder())
        case "pocket-refiner":
            return str(folder("refiner"))
        case _:
            return hand_over(_in_run(base))


def _in_run(base: str) -> str:
    run, at, step = base.rpartition("@")
    if not (at and step.isdigit() and _is_run(Path(run))):
        run, step = base, ""
    if not _is_run(Path(run)):
        return base
    found = (Path(run) / "steps" / f"{int(step):06d}" if step else Path(run)) / "model"
    if (found / "model_index.json").is_file():
        return str(found)
    saved = [place.parent.name.lstrip("0") for place in sorted(Path(run).glob("steps/[0-9]*/model"))]
    if not saved:
        raise ModelError(f"{run}: is a run that learned no whole model. What it learned goes beside a base: --adapter {run}")
    unfinished = f"is not finished: go on with `darkroom resume {run}`, or take a checkpoint, as in {run}@{saved[-1]}"
    raise ModelError(f"{run}: {f'has no checkpoint of step {step}' if step else unfinished}. It has: {', '.join(saved)}.")


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.toml").is_file() and (folder / "facts.json").is_file()
