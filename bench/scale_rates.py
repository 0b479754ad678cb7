"""The rates that tools/scale_plan.py reckons with and no other bench gives: rows of a manifest, pictures of a megapixel, and what SDXL's parts compute.

    nice python bench/scale_rates.py            writes tools/scale_rates.json, in about a minute on one core; then: make scale

Times are CPU seconds of this process and those it starts, so that other work on the machine hides little of them. The pictures are noise of several
octaves, 1024 x 1024, as JPEG of quality 90. Floating-point operations are counted on SDXL's true shapes without weights (torch.utils.flop_counter; a
multiplication and an addition are two).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PLACE = Path(__file__).parents[1] / "tools" / "scale_rates.json"
ROWS = 20_000
PICTURES = 40
SIDE = 1024


def main() -> None:
    found = {
        "date": datetime.date.today().isoformat(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        **rows(), **pictures(), **operations(),
    }  # fmt: skip
    PLACE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def rows() -> dict[str, float]:
    """Memory, disk and time of a row: a collected, screened picture with two captions."""
    from darkroom.data.manifest import MANIFEST, Manifest, Row

    def row(number: int) -> Row:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        name = f"pictures/{digest[:2]}/{digest[:24]}.jpg"
        said = {"original": f"photo number {number} of a street with many people and cars in it", "blip": f"a street with people and cars, {number % 977}"}
        measured = {name: int(digest[place : place + 12], 16) / 2**40 for place, name in enumerate(("sharpness", "contrast", "ratio", "noise", "plain"))}
        return Row(
            file=name, sha256=digest, width=1024, height=1024, size=200_000 + int(digest[:5], 16) % 200_000, changed=10**18 + int(digest[:12], 16),
            format="JPEG", source=f"https://host{number % 997}.example/{digest[20:40]}.jpg", status="200", fetched="2026-11-21T12:00:00Z",
            captions=said, chosen="blip", verdict="keep", figures=measured,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        Manifest(Path(folder), ()).but(row(number) for number in range(10)).save()  # imports
        (Path(folder) / MANIFEST).unlink()
        manifest = Manifest(Path(folder), ()).but(row(number) for number in range(ROWS))
        saving = spent(manifest.save)
        size = (Path(folder) / MANIFEST).stat().st_size
        opening = spent(lambda: Manifest.open(Path(folder)))
        tracemalloc.start()
        held = Manifest.open(Path(folder))
        memory, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(held.rows) == ROWS
    per = {"row_bytes": memory, "row_peak_bytes": peak, "row_parquet_bytes": size, "row_save_us": saving * 1e6, "row_open_us": opening * 1e6}
    return {name: round(value / ROWS, 1) for name, value in per.items()}


def pictures() -> dict[str, float]:
    """CPU of collecting and screening a picture of a megapixel, from a folder of this machine."""
    from darkroom.data.screening import Screening
    from darkroom.jobs.collect import Collect, collect
    from darkroom.jobs.screen import screen

    with tempfile.TemporaryDirectory() as folder:
        os.environ["DARKROOM_CACHE"] = f"{folder}/cache"  # what was measured of a picture before is not measured again
        few, many = Path(folder) / "few", Path(folder) / "many"
        sizes = [drawn(few, number + 1000) for number in range(4)] and [drawn(many, number) for number in range(PICTURES)]
        collect(Collect(few, Path(folder) / "first"))  # imports
        screen(Path(folder) / "first", Screening())
        collecting = spent(lambda: collect(Collect(many, Path(folder) / "second")))
        screening = spent(lambda: screen(Path(folder) / "second", Screening()))
    per = {"picture_bytes": sum(sizes), "collect_cpu_ms": collecting * 1e3, "screen_cpu_ms": screening * 1e3}
    return {name: round(value / PICTURES, 2) for name, value in per.items()}


def drawn(folder: Path, number: int) -> int:
    """A JPEG of noise whose octaves have equal strength, and its bytes."""
    folder.mkdir(exist_ok=True)
    dice, picture = np.random.default_rng(number), np.zeros((SIDE, SIDE, 3), np.float32)
    for octave in range(2, 9):
        small = dice.standard_normal((2**octave, 2**octave, 3), np.float32)
        layers = [np.asarray(Image.fromarray(small[..., channel], "F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in range(3)]
        picture += np.stack(layers, -1) * 14
    path = folder / f"{number:04d}.jpg"
    Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path.stat().st_size


def operations() -> dict[str, float]:
    """TFLOP of one picture of 1024 x 1024 and its caption, forwards."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from darkroom.sdxl.configs import empty

    parts, meta = empty("base"), torch.device("meta")
    said = {"text_embeds": torch.empty(1, 1280, device=meta), "time_ids": torch.empty(1, 6, device=meta)}
    noisy, t, states = torch.empty(1, 4, 128, 128, device=meta), torch.empty(1, device=meta), torch.empty(1, 77, 2048, device=meta)
    words, picture = torch.zeros(1, 77, dtype=torch.long, device=meta), torch.empty(1, 3, SIDE, SIDE, device=meta)
    work: dict[str, Callable[[], Any]] = {
        "unet_tflop": lambda: parts["unet"](noisy, t, states, added_cond_kwargs=said),
        "vae_tflop": lambda: parts["vae"].encode(picture),
        "text_tflop": lambda: [parts[name](words) for name in ("text_encoder", "text_encoder_2")],
    }
    found: dict[str, float] = {"unet_parameters": sum(parameter.numel() for parameter in parts["unet"].parameters())}
    for name, run in work.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        found[name] = round(counter.get_total_flops() / 1e12, 3)
    return found


def spent(work: Callable[[], object]) -> float:
    """CPU seconds."""
    before = cpu()
    work()
    return cpu() - before


def cpu() -> float:
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


if __name__ == "__main__":
    main()
