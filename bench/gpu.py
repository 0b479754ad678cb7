"""Memory and speed of a training step of the real SDXL U-Net on a GPU: random weights at true size, 1024 px, bf16, through Darkroom's own loop.

    python bench/gpu.py [--steps 8] [--only fp8] > docs/benchmarks.md
    python bench/gpu.py --pocket        the same code on the pocket model and the CPU: that it works, no figures to compare

Beside the time stands the part of the machine's measured matrix rate (the best of large bf16 products) that a step reaches, with the floating-point
operations that it really does (torch.utils.flop_counter; what checkpointing computes again included). Without a GPU it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from darkroom.device import generator, hardware, quiet_libraries
from darkroom.methods.full import FullTuning
from darkroom.methods.lora import LoRA
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text
from darkroom.train.forecast import Peak, forecast, lean, quantise, swap_blocks
from darkroom.train.loop import Trainer, checkpointing
from darkroom.train.objective import Batch
from darkroom.train.optimizers import Adafactor, AdamW8bit
from darkroom.train.recipe import Recipe
from darkroom.train.swap import blocks, lodged, placed, swapped

GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    method: Any = field(default_factory=lambda: LoRA(rank=16))
    train: dict[str, Any] = field(default_factory=dict)
    optimizer: Any = None
    most_gib: float = 0.0
    """What issue 3 allows it."""
    beside: str = ""
    """The case whose speed it is compared with."""

    def recipe(self, pocket: bool) -> Recipe:
        """It as a recipe."""
        plain = Recipe(device="cpu" if pocket else "cuda")
        tables = {"data": {"batch_size": 1}, "train": {"precision": "fp32" if pocket else "bf16", **self.train}}
        changed: dict[str, Any] = {name: getattr(plain, name).model_copy(update=values) for name, values in tables.items()}
        return plain.model_copy(update={**changed, "method": self.method, **({"optimizer": self.optimizer} if self.optimizer else {})})


def cases(pocket: bool, every: int) -> list[Case]:
    """What is measured; `every` is the number of blocks of the U-Net."""
    again, half = {"gradient_checkpointing": True}, "fp32" if pocket else "bf16"
    full = FullTuning(weights=half)
    return [
        Case("LoRA 16"),
        Case("LoRA 16, checkpointing", train=again, most_gib=10),
        Case("the same, fp8", train=again | {"quantise": "fp8"}, beside="LoRA 16, checkpointing"),
        Case("the same, int8", train=again | {"quantise": "int8"}, beside="LoRA 16, checkpointing"),
        Case("the same, nf4", train=again | {"quantise": "nf4"}, most_gib=6, beside="LoRA 16, checkpointing"),
        Case("the same, fp8, a third swapped", train=again | {"quantise": "fp8", "swap_blocks": every // 3}, most_gib=6, beside="LoRA 16, checkpointing"),
        Case("the same, nf4, all swapped", train=again | {"quantise": "nf4", "swap_blocks": every}, most_gib=6, beside="LoRA 16, checkpointing"),
        Case("the same, all swapped", train=again | {"swap_blocks": every}, beside="LoRA 16, checkpointing"),
        Case(f"full, {half}, Adafactor, checkpointing", full, again, Adafactor(), most_gib=24),
        Case(f"full, {half}, AdamW 8-bit, checkpointing", full, again, AdamW8bit(), most_gib=24),
        Case(f"full, {half}, Adafactor, checkpointing, fused", full, again | {"fused": True}, Adafactor(), most_gib=24),
    ]


class Fed:
    """The loop's feed with one picture of noise: nothing is read or encoded."""

    def __init__(self, model: SDXL, side: int) -> None:
        draw = generator(0, "bench")
        states = torch.randn(1, 77, int(model.unet.config.cross_attention_dim), generator=draw)
        pooled = torch.randn(1, int(model.text_encoder_2.config.projection_dim), generator=draw)
        text = Text(states, pooled).to(model.device, model.dtype)
        latents, pixels = torch.randn(1, 4, side, side, generator=draw).to(model.device), float(side * model.pixel_factor)
        ids = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], device=model.device)
        self.one = Batch(latents, text, ids, torch.ones(1, device=model.device))

    def shown(self, number: int) -> list[Any]:
        return [SimpleNamespace(prior=False, photo=SimpleNamespace(sample="noise"))]

    def assembled(self, *asked: Any) -> Batch:
        return self.one


@dataclass(frozen=True)
class Row:
    """What came out."""

    case: Case
    seconds: float
    peak: int
    foretold: int
    flops: int


def measure(case: Case, model: SDXL, side: int, steps: int, pocket: bool) -> Row:
    """The median step of `steps`, after three, and the most memory that the training of a step took."""
    recipe, size = case.recipe(pocket), side * model.pixel_factor
    foretold = forecast(recipe, model, (size, size)).moments["training"]
    held = sum(p.nbytes for part in (*model.parts.values(), model.vae) for p in part.parameters())
    _clear(model.device)
    peak = Peak(model.device)
    with ExitStack() as stack:
        if not lean(recipe, model):
            stack.enter_context(lodged(model, "vae", "text_encoder", "text_encoder_2"))
        stack.enter_context(placed(model, quantise(recipe), swap_blocks(recipe)))
        attached = recipe.method.attach(model, 0)
        stack.callback(attached.detach)
        stack.enter_context(swapped(model, swap_blocks(recipe)))
        plan: Any = SimpleNamespace(steps=1000, photos=[], classes=(), held_out=[])
        trainer: Any = Trainer(recipe, plan, model, attached)
        trainer.feed = Fed(model, side)
        stack.enter_context(checkpointing(recipe, model))
        took = sorted([_seconds(partial(trainer.step, number), model.device) for number in range(3 + steps)][3:])
        measured = peak.measured(held)
        counter = FlopCounterMode(display=False)
        with counter:
            trainer.step(3 + steps)
        del trainer
    _clear(model.device)
    return Row(case, took[len(took) // 2], measured, foretold, int(counter.get_total_flops()))


def _clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of ten."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(lambda: a @ b, device) for _ in range(10))
    return 2 * side**3 / best


def opened(pocket: bool) -> tuple[SDXL, int]:
    """The model in host memory, and the side of its latents."""
    if pocket:
        from darkroom.jobs.base import open_base

        return open_base("pocket", "cpu", "fp32"), 16
    from darkroom.sdxl.configs import build

    model = build("base", dtype=torch.bfloat16)
    model.device = torch.device("cuda")
    return model, 128


def table(rows: list[Row], rate: float) -> list[str]:
    """Markdown."""
    alone = {row.case.name: row.seconds for row in rows}
    lines = [
        "| training | s a step | slower by | peak, GiB | forecast, GiB | allowed, GiB | TFLOP a step | of the matrix rate |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        case, other = row.case, alone.get(row.case.beside)
        slower = f"{row.seconds / other - 1:+.1%}" if other else ""
        allowed = f"{case.most_gib:g}" + (" (over)" if row.peak > case.most_gib * GIB else "") if case.most_gib else ""
        lines.append(
            f"| {case.name} | {row.seconds:.3f} | {slower} | {row.peak / GIB:.2f} | {row.foretold / GIB:.2f} | {allowed} | {row.flops / 1e12:.3g} "
            f"| {row.flops / row.seconds / rate:.2f} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed, after three that are not")
    parser.add_argument("--only", default="", help="only cases whose name holds this word")
    parser.add_argument("--pocket", action="store_true", help="the pocket model on the CPU: tests this script")
    options = parser.parse_args()
    if not options.pocket and not torch.cuda.is_available():
        print("No GPU is here (torch.cuda.is_available() is False), and this measures one. --pocket runs the same code on the CPU.", file=sys.stderr)
        return 2
    with quiet_libraries():
        model, side = opened(options.pocket)
        rate = matrix_rate(model.device, model.dtype, 512 if options.pocket else 8192)
        rows = []
        for case in cases(options.pocket, len(blocks(model.unet))):
            if options.only in case.name:
                try:
                    rows.append(measure(case, model, side, options.steps, options.pocket))
                except torch.OutOfMemoryError as error:
                    print(f"{case.name}: {str(error).splitlines()[0]}", file=sys.stderr)
    facts = ", ".join(f"{key} {value}" for key, value in hardware().items() if key != "system")
    what = "the pocket model, fp32 (a test of the script)" if options.pocket else "SDXL 1.0's U-Net, random weights, 1024 px, bf16, batch 1"
    print(f"{datetime.date.today()}: {what}. {facts}. torch {torch.__version__}. Matrix rate measured: {rate / 1e12:.3g} TFLOP/s.\n")
    print("\n".join(table(rows, rate)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
