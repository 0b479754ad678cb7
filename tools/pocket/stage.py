"""A training stage that is boxed in time or steps, saves its state often, and goes on where it stopped."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


DEADLINE = math.inf  # seconds since the epoch: a stage that reaches it saves its state and stops; build.py --minutes sets it


@dataclass
class Box:
    """How long a stage is: the learning rate falls to zero over `steps`."""

    steps: int
    rate: float
    warmup: int = 100
    every: int = 50  # steps between two lines of the log
    save: int = 200


def groups(modules: list[torch.nn.Module], decay: float) -> list[dict]:
    """Weight decay on matrices only: an embedding row or a norm that is not used must stay as it was made."""
    named = [(n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or "embedding" in n]
    return [{"params": [p for n, p in named if not (p.ndim < 2 or "embedding" in n)], "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def run(name: str, work: Path, modules: dict[str, torch.nn.Module], loss_of: Callable[[int], dict[str, torch.Tensor]], box: Box,
        decay: float = 0.01, average: dict[str, torch.nn.Module] | None = None, betas: tuple[float, float] = (0.9, 0.98)) -> dict:  # fmt: skip
    """Minimise loss_of(step)["loss"]. `average` holds copies that follow as an exponential moving average. Returns the facts of the stage."""
    state_file = work / f"{name}.pt"
    optimizer = torch.optim.AdamW(groups(list(modules.values()), decay), lr=box.rate, betas=betas)
    average, start, seconds, history = average or {}, 0, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        for key, module in (modules | {f"ema_{k}": m for k, m in average.items()}).items():
            module.load_state_dict(state["modules"][key])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds, history = state["step"], state["seconds"], json.loads(state["history"])

    def save(step: int) -> None:
        held = {k: m.state_dict() for k, m in modules.items()} | {f"ema_{k}": m.state_dict() for k, m in average.items()}
        payload = {"modules": held, "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds, "history": json.dumps(history)}
        torch.save(payload, str(state_file) + ".new")
        os.replace(str(state_file) + ".new", state_file)

    sums, counted, began = {}, 0, time.time()
    for step in range(start, box.steps):
        warm = min(1.0, (step + 1) / box.warmup)
        for group in optimizer.param_groups:
            group["lr"] = box.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / box.steps)) + 1e-6
        losses = loss_of(step)
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(f"{name}: the loss is {losses['loss'].item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_([p for m in modules.values() for p in m.parameters()], 1.0)
        optimizer.step()
        keep = min(0.999, (1 + step) / (20 + step))
        with torch.no_grad():
            for key, module in average.items():
                for mine, theirs in zip(module.parameters(), modules[key].parameters(), strict=True):
                    mine.lerp_(theirs, 1 - keep)
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value)
        counted += 1
        if (step + 1) % box.every == 0 or step + 1 == box.steps:
            seconds, began = seconds + time.time() - began, time.time()
            means = {key: round(value / counted, 4) for key, value in sums.items()}
            history.append({"step": step + 1, "seconds": round(seconds), **means})
            print(f"{name} {step + 1}/{box.steps} {seconds:.0f}s {means}", flush=True)
            sums, counted = {}, 0
        if (step + 1) % box.save == 0 or step + 1 == box.steps:
            save(step + 1)
        if time.time() > DEADLINE:
            save(step + 1)
            raise SystemExit(f"{name}: out of time at step {step + 1}; everything is saved. Run it again to go on.")
    return {"steps": box.steps, "seconds": round(seconds), "last": history[-1] if history else {}, "history": history}


def indices(count: int, batch: int, seed: int, step: int) -> "torch.Tensor":
    """The pictures of a step: a pure function of (seed, step)."""
    return torch.randint(count, (batch,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
