"""What tools/scale_plan.py reckons with: what was measured, what the code says, and what is assumed, each with where it comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MEASURED: dict[str, Any] = json.loads((Path(__file__).parent / "scale_rates.json").read_text(encoding="utf-8"))

LOGGED = {
    "collect_rate": (336, "rows a second of one `darkroom collect`, 10,000 rows from a server on the same two cores (Data)"),
    "screen_row_bytes": (1.17 * 2**30 / 100_000, "bytes of main memory a row while screening, 1.17 GiB at 100,000 rows (Screening)"),
    "compare_us": (24.2 / 100_000 * 1e6, "microseconds a picture of comparing for duplicates, one process, 24.2 s at 100,000 (Screening)"),
}
"""What docs/log.md says, 2026-11-21, by its heading."""

CODE = {
    "prints": (20, "hashes of a picture (`data/prints.py`, PRINTS)"), "buckets": (1 << 21, "buckets for a piece of a hash (`data/duplicates.py`, PIECES)"),
    "crowd": (64, "hashes of one bucket that are looked at (`data/duplicates.py`, CROWD)"),
    "per_host": (6, "downloads at a time from one host (`darkroom collect --per-host`)"),
    "encoding_cards": (8, "cards that share encoding (`train/feed.py`, encode_all)"),
    "latent_bytes": (2 * 4 * 128 * 128 * 4, "mean and deviation of a picture's latents in float32 (`train/cache.py`)"),
    "text_bytes": ((77 * 2048 + 1280) * 2, "states and pooled text of a caption in bf16 (`train/cache.py`)"),
}  # fmt: skip
"""What the code says."""


@dataclass(frozen=True)
class Assumption:
    """A value nobody measured here."""

    values: tuple[float, float, float]
    unit: str
    source: str


ASSUMED = {
    "cores": Assumption((128, 64, 32), "cores of the one machine for data", "rented machines of 2024 to 2026; ours has 2"),
    "memory_gb": Assumption((1000, 256, 64), "GB of its main memory", "the same"),
    "disk_gb": Assumption((60_000, 15_000, 4_000), "GB of its disk", "the same: two to eight NVMe disks"),
    "disk_rate_gb": Assumption((3, 1, 0.3), "GB/s that one process writes to it", "data sheets of NVMe disks say 3 to 7; network disks 0.3"),
    "link_gb": Assumption((1.25, 0.5, 0.1), "GB/s from the internet", "a link of 10 Gbit/s and parts of it"),
    "picture_bytes": Assumption((150_000, 300_000, 1_000_000), "bytes of a picture", f"a JPEG of a megapixel made here has {MEASURED['picture_bytes']:,.0f}; PNGs more"),
    "alive": Assumption((0.95, 0.8, 0.6), "of the table's addresses that still give a picture", "a guess: tables of addresses decay by some per cent a year"),
    "hosts": Assumption((100_000, 1_000, 10), "hosts that the pictures lie on", "a crawl of the web; a community; a shop or a stock site"),
    "download_s": Assumption((0.3, 1, 3), "seconds of a download", "a guess"),
    "crowded": Assumption((0, 0.5, 1), "of comparing that grows with how full the buckets are", "not measured above 100,000: 0 is linear, 1 quadratic"),
    "captions": Assumption((60, 25, 6), "captions a second and card", "a guess: BLIP above, language models of 7 thousand million parameters below; not run here"),
    "peak_tflops": Assumption((989, 989, 989), "TFLOP/s of a card in bf16", "NVIDIA's data sheet of the H100 SXM, without sparsity"),
    "used_encoding": Assumption((0.3, 0.15, 0.07), "of them that encoding reaches", "a guess: convolutions on wide pictures, and the disk beside"),
    "used_training": Assumption((0.45, 0.3, 0.15), "of them that training reaches", "a guess; `make bench-gpu` measures it where there is a card"),
    "card_gb": Assumption((80, 80, 80), "GB of a card", "the same data sheet"),
    "batch": Assumption((8, 8, 8), "pictures a card and step", "fits 80 GB beside replicated states (below)"),
    "activation_gb": Assumption((2, 3, 4), "GB of activations a picture, checkpointed", "docs/log.md foretells 13.7 GiB for one picture with bf16 weights, of which about 4 are no weights or gradients"),
    "inside_gbs": Assumption((300, 200, 100), "GB/s of a ring of 8 cards in one machine", "two thirds to a quarter of NVLink 4's 450 GB/s each way"),
    "between_gbs": Assumption((45, 30, 10), "GB/s of a card to another machine", "of a 400 Gbit/s adapter for each card (50 GB/s); 10 is 100 Gbit/s"),
    "core_price": Assumption((0.02, 0.04, 0.06), "dollars a core and hour", "list prices of large clouds, roughly"),
    "card_price": Assumption((2, 3, 6), "dollars a card and hour", "offers for H100s, roughly"),
    "store_price": Assumption((0.01, 0.023, 0.08), "dollars a GB and month", "object storage to network disks, roughly"),
    "patience_h": Assumption((24, 24, 24), "hours that a stage of one process may last", "taste"),
    "waiting_min": Assumption((10, 10, 10), "minutes that a command may read and write its manifest", "taste"),
}  # fmt: skip


def world(which: int) -> SimpleNamespace:
    """All that is reckoned with: 0 favourable, 1 usual, 2 unfavourable."""
    fixed = MEASURED | {name: value for name, (value, _) in (LOGGED | CODE).items()}
    return SimpleNamespace(**(fixed | {name: given.values[which] for name, given in ASSUMED.items()}))


WORLDS = tuple(world(which) for which in range(3))
World = SimpleNamespace
