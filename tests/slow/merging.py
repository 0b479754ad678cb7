"""Merging, blending and extracting at SDXL's true size, one stage to a process, each printing its figures as JSON:

python tests/slow/merging.py make|into|blend|extract FOLDER [SCALE]
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HALF = torch.bfloat16
RANK = 16


class Peak(threading.Thread):
    """The most memory that belonged to no file, in GiB, looked at fifty times a second. What is mapped from files can be given back and is not counted."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own, self._done = 0.0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.02):
            words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
            self.own = max(self.own, int(words["RssAnon"].split()[0]) / (1 << 20))

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.own


def measured(work: Callable[[], dict[str, Any]], warm: Callable[[], Any]) -> dict[str, Any]:
    """The figures of the work, its seconds, and how much memory of its own it took beyond what the libraries have."""
    warm()
    before, peak = Peak(), Peak()
    before.start()
    time.sleep(0.1)
    start, began = before.stop(), time.perf_counter()
    peak.start()
    found = work()
    return found | {
        "seconds": time.perf_counter() - began,
        "own_gib": peak.stop() - start,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20),
    }


def make(folder: Path, scale: int) -> dict[str, Any]:
    """SDXL with random weights as one file, and a LoRA of full coverage beside it."""
    from darkroom.sdxl.adapters.changes import LowRank
    from darkroom.sdxl.adapters.layouts import Adapter, write
    from darkroom.sdxl.adapters.places import Catalogue
    from darkroom.sdxl.checkpoint import write_single_file
    from darkroom.sdxl.configs import build
    from darkroom.sdxl.folder import write_folder

    model = build("base", scale, dtype=HALF)
    write_single_file(model, folder / "sdxl.safetensors", HALF)
    if scale > 1:
        write_folder(model, folder / "config", HALF)
    changes = {}
    for number, place in enumerate(place for place in Catalogue.of(model).places.values() if place.covered):
        dice = torch.Generator().manual_seed(number)
        down, up = torch.randn(RANK, place.shape[1], generator=dice) * 0.02, torch.randn(place.shape[0], RANK, generator=dice) * 0.02
        changes[place.key] = LowRank(down.half(), up.half(), float(RANK))
    write(folder / "lora.safetensors", Adapter(folder, "", changes, catalogue=Catalogue.of(model)), "kohya", {})
    return {"modules": len(changes), "gib": (folder / "sdxl.safetensors").stat().st_size / (1 << 30)}


def _config(folder: Path, scale: int) -> Path | None:
    return folder / "config" if scale > 1 else None


def into(folder: Path, scale: int) -> dict[str, Any]:
    """adapter merge lora.safetensors --into sdxl.safetensors."""
    from darkroom.jobs.combine import Merge, merge, open_unread

    out = folder / "merged.safetensors"
    asked = Merge((f"{folder / 'lora.safetensors'}:0.8",), out, str(folder / "sdxl.safetensors"), config=_config(folder, scale))

    def work() -> dict[str, Any]:
        found = merge(asked)
        return {"modules": found["modules"], "change": found["change"]["all"], "rounding": found["rounding"]["all"], "gib": found["size"] / (1 << 30)}

    return measured(work, lambda: open_unread(asked.into, asked.config).catalogue)


def blend(folder: Path, scale: int) -> dict[str, Any]:
    """base merge sdxl.safetensors merged.safetensors."""
    from darkroom.jobs.checkpoint import BlendOf, merge_bases
    from darkroom.jobs.combine import open_unread

    models = tuple(str(folder / f"{name}.safetensors") for name in ("sdxl", "merged"))
    out = folder / "blend.safetensors"

    def work() -> dict[str, Any]:
        found = merge_bases(BlendOf(models, out, weight=0.5, dtype="bf16"))
        out.unlink()
        return {"distances": [one["parts"]["all"] for one in found["distances"]]}

    return measured(work, lambda: open_unread(models[0], _config(folder, scale)).catalogue)


def extract(folder: Path, scale: int) -> dict[str, Any]:
    """adapter extract merged.safetensors sdxl.safetensors."""
    from darkroom.jobs.combine import Extract, Rank, open_unread
    from darkroom.jobs.combine import extract as taken

    models = [str(folder / f"{name}.safetensors") for name in ("merged", "sdxl")]

    def work() -> dict[str, Any]:
        found = taken(Extract(*models, folder / "taken.safetensors", Rank(RANK), config=_config(folder, scale)))
        return {"modules": found["modules"], "error": found["error"], "error_of_all": found["error_of_all"]}

    return measured(work, lambda: open_unread(models[0], _config(folder, scale)).catalogue)


if __name__ == "__main__":
    stage, place = sys.argv[1], Path(sys.argv[2])
    print(json.dumps({"make": make, "into": into, "blend": blend, "extract": extract}[stage](place, int(sys.argv[3]) if len(sys.argv) > 3 else 1)))
