"""Sixteen pictures of one prompt, from launch to files: `darkroom generate` beside stock diffusers, in turn, as a ratio with its spread.

Stock is the script a user would write, in both ways: one call with num_images_per_prompt=16, and sixteen calls. All start from the same noise,
and the pictures are compared: the largest difference in 255 is printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a 3d cat on a red background"
STOCK = """
import sys, torch
from pathlib import Path
from diffusers import StableDiffusionXLPipeline
folder, out, way = sys.argv[1:]
pipe = StableDiffusionXLPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
latents = torch.load(Path(out).parent / "noise.pt")
if way == "one call":
    pictures = pipe({prompt!r}, num_images_per_prompt=16, latents=latents, num_inference_steps=25, guidance_scale=5.0, width=64, height=64).images
else:
    pictures = [pipe({prompt!r}, latents=x[None], num_inference_steps=25, guidance_scale=5.0, width=64, height=64).images[0] for x in latents]
Path(out).mkdir()
for number, picture in enumerate(pictures):
    picture.save(Path(out) / f"{{number:04d}}.png")
"""


def timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def difference(one: Path, other: Path) -> int:
    import numpy as np
    from PIL import Image

    pairs = zip(sorted(one.glob("*.png")), sorted(other.glob("*.png")), strict=True)
    return max(int(np.abs(np.asarray(Image.open(a), int) - np.asarray(Image.open(b), int)).max()) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    import torch

    from darkroom import pocket
    from darkroom.sampling.start import noise

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        torch.save(torch.cat([noise(seed, 64, 64, 4) for seed in range(16)]), root / "noise.pt")
        (root / "stock.py").write_text(STOCK.format(prompt=PROMPT))
        times: dict[str, list[float]] = {"darkroom": [], "one call": [], "sixteen calls": []}
        for turn in range(rounds + 1):
            for way, spent in times.items():
                out = root / f"{way} {turn}"
                if way == "darkroom":
                    found = timed([sys.executable, "-m", "darkroom", "generate", PROMPT, "--count", "16", "--device", "cpu", "--out", str(out)])
                else:
                    found = timed([sys.executable, str(root / "stock.py"), str(pocket.folder()), str(out), way])
                if turn:  # the first round warms the file cache
                    spent.append(found)
            print(f"round {turn} of {rounds}", file=sys.stderr)
        for way in ("one call", "sixteen calls"):
            ratios = sorted(a / b for a, b in zip(times["darkroom"], times[way], strict=True))
            worst = difference(root / "darkroom 0", root / f"{way} 0")
            medians = f"medians {statistics.median(times['darkroom']):.1f} s and {statistics.median(times[way]):.1f} s"
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"darkroom / diffusers ({way}): {spread}; {medians}; pictures differ by at most {worst} of 255")


if __name__ == "__main__":
    main()
