"""Fifty random kills -9 over one training, and the same bytes in the end. `make kills`; about ten minutes on two cores.

Everything that could depend on what came before is on: EMA-like averages of the optimizer, accumulation, caption dropout, flips, shuffling over an odd
batch, held-out loss, prior preservation, pruned checkpoints.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from darkroom import pocket
from darkroom.jobs.train import run_training
from darkroom.train.recipe import load_recipe
from support.training_kills import digest, killed

SETTINGS = (
    "train.length=400 steps", "train.save_every=5 steps", "train.keep=3", "train.accumulate=2", "preview.every=50 steps", "preview.steps=2", "device=cpu",
    "data.batch_size=4", "data.resolution=32", "data.flip=true", "data.wording.dropout=0.3", "optimizer.schedule=cosine", "validation.every=20 steps",
    "data.prior.prompt=a photo of a cat", "data.prior.count=8", "data.prior.steps=4",
)  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="another method, for example method.kind=lycoris")
    options = asked.parse_args()
    pictures = {"images": str(pocket.CATS / "train"), "subject": "TOK cat"}
    recipe = load_recipe("demo", (*SETTINGS, *options.set), data=pictures, validation={"pictures": str(pocket.CATS / "held_out")})
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = killed(recipe, Path(folder), options.kills)
        whole = run_training(recipe, Path(folder) / "whole")
        same = digest(Path(folder) / "killed") == digest(whole.folder)
    print(json.dumps(told | {"equal": same, "seconds": round(time.monotonic() - begun)}))
    sys.exit(0 if same and told["kills"] == options.kills else 1)


if __name__ == "__main__":
    main()
