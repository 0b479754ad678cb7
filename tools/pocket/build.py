"""Build the pocket model from nothing: `python tools/pocket/build.py --work .pocket-build --out src/darkroom/pocket/weights`.

Fetches the packages, trains each stage (resumable: run it again after a kill), and writes a diffusers folder, a refiner, a scorer and
the model card. One seed; the sizes of the stages stand in STAGES. `--until NAME` stops after a stage, `--threads` sets the cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import album
import autoencoder
import scorer
import sources
import stage
import text
import torch
import unet

SEED = 1
PICTURES = 40_000
STAGES = {
    "autoencoder": (stage.Box(steps=1300, rate=1e-3), 16),
    "text": (stage.Box(steps=1100, rate=1.2e-3), 192),
    "decoder": (stage.Box(steps=700, rate=1e-3, warmup=20), 16),
    "scorer": (stage.Box(steps=800, rate=8e-4), 160),
    "unet": (stage.Box(steps=3000, rate=1e-3, warmup=200), 64),
    "refiner": (stage.Box(steps=300, rate=8e-4, warmup=50), 64),
}
WIDTHS = {"unet": (64, 128, 160), "refiner": (32, 64, 96)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".pocket-build"))
    parser.add_argument("--out", type=Path, default=Path("src/darkroom/pocket/weights"))
    parser.add_argument("--until", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-scorer", action="store_true", help="leave the scorer's stage to another process")
    parser.add_argument("--skip-decoder", action="store_true", help="leave the decoder's stage to another process")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so many minutes with everything saved; 0: no limit")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.minutes:
        stage.DEADLINE = time.time() + 60 * options.minutes
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    facts = {}

    packages = sources.fetch(work)
    pictures = album.make(work, packages, SEED, PICTURES)
    merges = sources.fetch_merges(work)
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        sources.write_tokenizer(work / name, merges, pad)
    from transformers import CLIPTokenizer

    tokenizers = tuple(CLIPTokenizer.from_pretrained(work / name) for name in ("tokenizer", "tokenizer_2"))

    def done(name: str, found: dict) -> bool:
        facts[name] = found
        (work / f"{name}.json").write_text(json.dumps(found, indent=1, default=float))
        return options.until == name

    vae, found = autoencoder.train(pictures, work, SEED, *STAGES["autoencoder"])
    if done("autoencoder", found):
        return
    latents = autoencoder.encode_album(vae, pictures, work / "latents.pt")
    towers, heads, found = text.train(pictures, tokenizers[0], work, SEED, *STAGES["text"])
    if done("text", found):
        return
    if not options.skip_decoder and done("decoder", autoencoder.train_decoder(vae, pictures, latents, work, SEED, *STAGES["decoder"])):
        return
    if not options.skip_scorer and done("scorer", scorer.train(pictures, tokenizers[1], towers, heads, work, SEED, *STAGES["scorer"])):
        return
    common = (pictures, latents, tokenizers, towers, work, SEED)
    base, found = unet.train("unet", *common, *STAGES["unet"], WIDTHS["unet"])
    if done("unet", found):
        return
    refiner, found = unet.train("refiner", *common, *STAGES["refiner"], WIDTHS["refiner"])
    if done("refiner", found):
        return
    import publish

    publish.write(options.out, work, packages, pictures, vae, towers, heads, base, refiner, facts)


if __name__ == "__main__":
    main()
