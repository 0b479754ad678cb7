"""Our training step and our whole run beside a plain loop written the way diffusers' public script does it.

The plain loop is what train_dreambooth_lora_sdxl.py does with one instance prompt: the text is encoded once, the autoencoder runs in every
step, batches come from a DataLoader, the loss is a mean squared error. Same U-Net, pictures, batch, rank, optimizer; both alternate in one
process, because times alone are noise on a shared machine: what counts is the ratio and its spread.

    python bench/train_step.py [--rounds 8] [--steps 10] [--whole 60] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from darkroom import pocket
from darkroom.data.picture import read_picture
from darkroom.device import quiet_libraries
from darkroom.jobs.base import open_base
from darkroom.jobs.train import prepare, run_training
from darkroom.sdxl.latents import to_pixels
from darkroom.sdxl.model import SDXL, load
from darkroom.sdxl.text import encode
from darkroom.train.loop import Trainer
from darkroom.train.recipe import Recipe, load_recipe

BATCH, RANK = 4, 8
PROMPT = "a photo of TOK cat"


class Plain:
    """The public script's loop, step by step."""

    def __init__(self, images: Path) -> None:
        from diffusers import DDPMScheduler
        from peft import LoraConfig
        from torch.utils.data import DataLoader

        self.model: SDXL = load(pocket.folder(), torch.device("cpu"), torch.float32)
        unet = self.model.unet
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
        self.parameters = [p for p in unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-8)
        self.scheduler = DDPMScheduler.from_config(self.model.scheduler_config)
        pictures = [read_picture(path).resize((64, 64)) for path in sorted(images.glob("*.png"))]
        self.loader = DataLoader([to_pixels([picture])[0] for picture in pictures], batch_size=BATCH, shuffle=True, num_workers=0)
        with torch.no_grad():
            self.text = encode(self.model, [PROMPT])
        self.queue = iter(self.loader)

    def step(self, number: int) -> None:
        """Encode the pixels, add noise, predict, step."""
        try:
            pixels = next(self.queue)
        except StopIteration:
            self.queue = iter(self.loader)
            pixels = next(self.queue)
        with torch.no_grad():
            latents = self.model.vae.encode(pixels).latent_dist.sample() * self.model.vae.config.scaling_factor
        noise, count = torch.randn_like(latents), len(latents)
        t = torch.randint(0, 1000, (count,))
        noisy = self.scheduler.add_noise(latents, noise, t)
        extra = {"time_ids": torch.tensor([[256.0, 256, 0, 0, 64, 64]] * count), "text_embeds": self.text.pooled.repeat(count, 1)}
        out = self.model.unet(noisy, t, self.text.states.repeat(count, 1, 1), added_cond_kwargs=extra, return_dict=False)[0]
        torch.nn.functional.mse_loss(out.float(), noise.float(), reduction="mean").backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        """The script's last act."""
        from diffusers import StableDiffusionXLPipeline
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.model.unet))
        StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def our_recipe(images: Path, steps: int, preview_steps: int = 1) -> Recipe:
    """The same training in our words. A first and a last preview are always drawn: of `preview_steps` denoising steps (the recipe's own: 25)."""
    settings = (
        f"train.length={steps} steps", f"train.save_every={steps} steps", f"preview.every={steps} steps", f"preview.steps={preview_steps}", "device=cpu",
        f"data.batch_size={BATCH}", f"method.rank={RANK}", f"method.alpha={RANK}.0",
    )  # fmt: skip
    return load_recipe("dreambooth", settings, data={"images": str(images), "subject": "TOK cat", "caption": "a photo of {subject}"})


def seconds(work: Callable[[], Any]) -> float:
    """How long it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def empty_place() -> Iterator[Path]:
    """A folder that goes away again, with Darkroom's cache inside it: nothing is read from or left in the user's own."""
    before = os.environ.get("DARKROOM_CACHE")
    with tempfile.TemporaryDirectory() as place:
        os.environ["DARKROOM_CACHE"] = str(Path(place) / "cache")
        try:
            yield Path(place)
        finally:
            os.environ.pop("DARKROOM_CACHE")
            os.environ.update({"DARKROOM_CACHE": before} if before is not None else {})


def cpu_model() -> str:
    """What /proc calls the processor, else what Python does."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


def step_times(images: Path, rounds: int, steps: int) -> list[tuple[float, float]]:
    """(ours, plain) seconds a step, by round, the order swapped each time."""
    recipe = our_recipe(images, 500)
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer, plain = Trainer(recipe, plan, model, attached), Plain(images)
        assert sum(p.numel() for p in trainer.parameters) == sum(p.numel() for p in plain.parameters), "the sides do not train the same layers"
        trainer.feed.encode_all(0, plan.steps, lambda done, total: None)
        sides: list[Callable[[int], Any]] = [trainer.step, plain.step]
        turn([lambda side=side: [side(n) for n in range(4)] for side in sides], 0)
        rows = []
        for number in range(rounds):
            first = 4 + number * steps
            took = turn([lambda side=side, first=first: [side(first + n) for n in range(steps)] for side in sides], number)
            rows.append((took[0] / steps, took[1] / steps))
        return rows
    finally:
        attached.detach()


def turn(works: list[Callable[[], Any]], number: int) -> list[float]:
    """Seconds of each work, in the order given, taken in the reverse order on every second turn."""
    took = {index: seconds(works[index]) for index in (range(len(works)) if number % 2 == 0 else reversed(range(len(works))))}
    return [took[index] for index in range(len(works))]


def whole_times(images: Path, rounds: int, steps: int) -> list[tuple[float, float, float]]:
    """(ours with one-step previews, ours with the recipe's own, plain) seconds from loaded libraries to the adapter file; caches empty."""

    def ours(steps: int, preview_steps: int) -> None:
        with empty_place() as place:
            open_base.cache_clear()
            run_training(our_recipe(images, steps, preview_steps), place / "run")

    def plain(steps: int) -> None:
        with empty_place() as place:
            loop = Plain(images)
            for number in range(steps):
                loop.step(number)
            loop.save(place)

    def works(steps: int) -> list[Callable[[], Any]]:
        return [lambda: ours(steps, 1), lambda: ours(steps, 25), lambda: plain(steps)]

    turn(works(2), 0)  # diffusers imports its pipelines at the first save and preview: not a part of the training
    found = []
    for number in range(rounds):
        slim, full, other = turn(works(steps), number)
        found.append((slim, full, other))
    return found


def summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Ratios ours / plain and the medians they come from."""
    ratios = sorted(a / b for a, b in pairs)
    return {
        "min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1], "ours_seconds": statistics.median(a for a, _ in pairs),
        "plain_seconds": statistics.median(b for _, b in pairs),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="rounds of steps (whole runs: at most 3)")
    parser.add_argument("--steps", type=int, default=10, help="steps a side and round; made even, because an epoch is a batch of 4 and one of 2")
    parser.add_argument("--whole", type=int, default=60, help="steps of a whole run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    images, steps = pocket.CATS / "train", options.steps + options.steps % 2
    with tempfile.TemporaryDirectory() as bare, quiet_libraries():
        folder = Path(bare)  # without the captions beside the pictures: one prompt on both sides
        for path in images.glob("*.png"):
            (folder / path.name).write_bytes(path.read_bytes())
        with empty_place():
            alone = step_times(folder, options.rounds, steps)
        whole = whole_times(folder, min(3, options.rounds), options.whole)
    result = {
        "a step": summary(alone),
        f"a run of {options.whole} steps, two previews of 1 step": summary([(slim, plain) for slim, _, plain in whole]),
        f"a run of {options.whole} steps, two previews of 25 steps": summary([(full, plain) for _, full, plain in whole]),
    }
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpu": cpu_model(), "batch": BATCH, "rank": RANK}
    if options.json:
        print(json.dumps(facts | {"ratios": result}))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    for name, row in result.items():
        print(
            f"{name:<45} ours / plain: min {row['min']:.2f}  median {row['median']:.2f}  max {row['max']:.2f}"
            f"   [{row['ours_seconds']:.3f} s against {row['plain_seconds']:.3f} s]"
        )


if __name__ == "__main__":
    main()
