"""Darkroom beside diffusers' own train_dreambooth_lora_sdxl.py, run as it is: whole processes, from launch to file, and the step alone.

The script is diffusers' (examples/dreambooth of the version that is installed, or near it); it is neither part of Darkroom nor changed. It imports
torchvision, which `--launcher` may stand in for (a Python file that is given the script and its arguments).

    python bench/script.py --script train_dreambooth_lora_sdxl.py [--launcher run_peer.py] [--rounds 3] [--steps 100] [--json]

Both sides: the pocket model in fp32 on the CPU, the six demo pictures at 64 pixels, one prompt, batch 4, LoRA of rank 8 on the attention layers, AdamW at a
constant rate, no previews but Darkroom's first and last (of one denoising step), the same environment. They alternate, each in a process of its own; what
counts is the ratio and its spread. A step is the difference between a long and a short run of the same process, over the steps between.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from darkroom import pocket

PROMPT = "a photo of TOK cat"


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds from launch to end, and the most memory it held, in MiB."""

    seconds: float
    peak: float


def costs(command: list[str], place: Path) -> Cost:
    """Run it in `place` and see what it takes. Raises RuntimeError with its last words where it fails."""
    told = {**os.environ, "DARKROOM_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    began = time.perf_counter()
    with (place / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=place, env=told)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:3]} ended with {process.returncode}:\n" + (place / "said.txt").read_text(errors="replace")[-2000:])
    return Cost(seconds, used.ru_maxrss / 1024)


def ours(images: Path, steps: int) -> Cost:
    """`darkroom train`, cache empty."""
    settings = (
        f"train.length={steps} steps", f"train.save_every={steps} steps", f"preview.every={steps} steps", "preview.steps=1", "device=cpu",
        "data.batch_size=4", "method.rank=8", "method.alpha=8.0", "objective.min_snr=0.0",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "darkroom", "train", "dreambooth", "--images", str(images), "--subject", "TOK cat", "--out", "run"]
        return costs([*command, *(word for setting in settings for word in ("--set", setting))], Path(place))


def theirs(script: list[str], images: Path, steps: int) -> Cost:
    """diffusers' script."""
    with tempfile.TemporaryDirectory() as place:
        options = {
            "pretrained_model_name_or_path": pocket.folder(), "instance_data_dir": images, "instance_prompt": PROMPT, "output_dir": "out", "resolution": 64,
            "train_batch_size": 4, "max_train_steps": steps, "rank": 8, "learning_rate": 1e-4, "checkpointing_steps": 10 * steps, "seed": 0,
            "dataloader_num_workers": 0, "mixed_precision": "no",
        }  # fmt: skip
        return costs([sys.executable, *script, *(f"--{key}={value}" for key, value in options.items())], Path(place))


def spread(ratios: list[float]) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": round(min(ratios), 3), "median": round(statistics.median(ratios), 3), "max": round(max(ratios), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, required=True, help="diffusers' train_dreambooth_lora_sdxl.py")
    parser.add_argument("--launcher", type=Path, help="what runs it where there is no torchvision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--short", type=int, default=20, help="steps of the short runs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    script = [str(path.resolve()) for path in (options.launcher, options.script) if path]
    rows: list[dict[str, Cost]] = []
    with tempfile.TemporaryDirectory() as bare:
        images = Path(bare)  # without the captions beside the pictures: one prompt on both sides
        for path in (pocket.CATS / "train").glob("*.png"):
            (images / path.name).write_bytes(path.read_bytes())
        for number in range(options.rounds):
            works = {
                "ours": lambda: ours(images, options.steps), "theirs": lambda: theirs(script, images, options.steps),
                "ours short": lambda: ours(images, options.short), "theirs short": lambda: theirs(script, images, options.short),
            }  # fmt: skip
            order = list(works) if number % 2 == 0 else list(reversed(works))
            row = {name: works[name]() for name in order}
            rows.append(row)
            print(f"round {number + 1}: " + ", ".join(f"{name} {row[name].seconds:.1f} s {row[name].peak:.0f} MiB" for name in works), file=sys.stderr)
    between = options.steps - options.short
    steps = [{side: (row[side].seconds - row[f"{side} short"].seconds) / between for side in ("ours", "theirs")} for row in rows]
    found = {
        "whole": spread([row["ours"].seconds / row["theirs"].seconds for row in rows]),
        "step": spread([step["ours"] / step["theirs"] for step in steps]),
        "peak": spread([row["ours"].peak / row["theirs"].peak for row in rows]),
        "seconds": {name: round(statistics.median(row[name].seconds for row in rows), 1) for name in rows[0]},
        "step_seconds": {side: round(statistics.median(step[side] for step in steps), 4) for side in ("ours", "theirs")},
        "peak_mib": {name: round(statistics.median(row[name].peak for row in rows)) for name in ("ours", "theirs")},
        "steps": options.steps, "rounds": options.rounds,
    }  # fmt: skip
    if options.json:
        print(json.dumps(found))
        return
    for what, wanted in (("whole", 0.6), ("step", 0.85), ("peak", 0.85)):
        one = found[what]
        print(f"{what:6} ours / theirs {one['median']:.3f} ({one['min']:.3f} to {one['max']:.3f}); asked for: at most {wanted}")
    print(f"seconds {found['seconds']}; a step {found['step_seconds']}; peak MiB {found['peak_mib']}")


if __name__ == "__main__":
    main()
