"""The true size, stage by stage, each in a process of its own so that its peak memory is its own. `test_true_size.py` runs it; so may a person:

python tests/slow/true_size.py write|read|train FOLDER [SCALE]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

CPU, HALF = torch.device("cpu"), torch.bfloat16


def peak() -> float:
    """GiB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def own() -> float:
    """GiB of this process now that belong to no file."""
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(words["RssAnon"].split()[0]) / (1 << 20)


def write(folder: Path, scale: int) -> dict[str, float]:
    """Build SDXL 1.0 with random weights in bfloat16 and write it as one file."""
    from darkroom.sdxl.checkpoint import write_single_file
    from darkroom.sdxl.configs import build
    from darkroom.sdxl.folder import write_folder

    began = time.perf_counter()
    model = build("base", scale, dtype=HALF)
    built, before = time.perf_counter(), peak()
    write_single_file(model, folder / "sdxl.safetensors", HALF)
    done = time.perf_counter()
    if scale > 1:  # no published configuration fits: the file goes with a folder
        write_folder(model, folder / "config", HALF)
    size = (folder / "sdxl.safetensors").stat().st_size / (1 << 30)
    return {"gib": size, "build_s": built - began, "write_s": done - built, "peak_before_gib": before, "peak_gib": peak()}


def opened(folder: Path, scale: int):
    from darkroom.sdxl.checkpoint import read_single_file

    return read_single_file(folder / "sdxl.safetensors", CPU, HALF, config=folder / "config" if scale > 1 else None)


def read(folder: Path, scale: int) -> dict[str, float]:
    """Read it back, and compare every 97th tensor with the one that was drawn."""
    from darkroom.sdxl.configs import _random

    began = time.perf_counter()
    model = opened(folder, scale)
    done, after, mine = time.perf_counter(), peak(), own()
    checked = wrong = count = 0
    for part, module in {**model.parts, "vae": model.vae}.items():
        for name, tensor in module.state_dict().items():
            count += 1
            if count % 97 == 0:
                checked += 1
                wrong += not torch.equal(tensor, _random(0, part, name, tensor.shape).to(HALF))
    return {"read_s": done - began, "peak_gib": after, "own_gib": mine, "tensors": count, "checked": checked, "wrong": wrong, "peak_after_check_gib": peak()}


def train(folder: Path, scale: int) -> dict[str, float]:
    """LoRA at full coverage, one true training step at 512 px with gradient checkpointing, and its file."""
    from darkroom import pocket
    from darkroom.data.dataset import read_folder
    from darkroom.sdxl.formats import write_adapter
    from darkroom.train.loop import Trainer, checkpointing
    from darkroom.train.preflight import plan
    from darkroom.train.recipe import load_recipe

    settings = (
        "device=cpu", "method.rank=16", "method.attention=true", "method.feed_forward=true", "method.text_encoders=true", "data.batch_size=1",
        "data.resolution=512", "data.enlarge=true", "train.gradient_checkpointing=true", "train.precision=bf16", "train.length=1 steps",
    )  # fmt: skip
    images = pocket.CATS / "train"
    recipe = load_recipe("dreambooth", settings, data={"images": str(images), "subject": "TOK cat"})
    model = opened(folder, scale)
    attached = recipe.method.attach(model, 0)
    before = {name: tensor.clone() for name, tensor in attached.state().items()}
    trainer = Trainer(recipe, plan(recipe, read_folder(images, recipe.template), model), model, attached)
    began = time.perf_counter()
    batch = trainer.feed.batch(0)  # the autoencoder and the file's hash are paid once, not at every step
    encoded = time.perf_counter()
    with checkpointing(recipe, model):
        figures = trainer.step(0)
    stepped = time.perf_counter()
    moved = sum(not torch.equal(before[name], tensor) for name, tensor in attached.state().items())
    tensors = attached.tensors(torch.float16)
    write_adapter(folder / "adapter.safetensors", tensors, attached.metadata())
    return {
        "modules": len(attached.chosen), "tensors": len(tensors), "adapter_mib": (folder / "adapter.safetensors").stat().st_size / (1 << 20),
        "parameters": sum(p.numel() for p in trainer.parameters), "moved": moved, "loss": figures["loss"], "grad_norm": figures["grad_norm"],
        "latent": batch.latents.shape[-1], "encode_s": encoded - began, "step_s": stepped - encoded, "peak_gib": peak(), "own_gib": own(),
    }  # fmt: skip


if __name__ == "__main__":
    stage, place = sys.argv[1], Path(sys.argv[2])
    print(json.dumps({"write": write, "read": read, "train": train}[stage](place, int(sys.argv[3]) if len(sys.argv) > 3 else 1)))
