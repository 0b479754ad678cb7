"""The figures of the model card, each measured on what was not trained on, drawn with stock diffusers."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import world
from album import Album
from PIL import Image
from text import CLIP_MEAN, CLIP_STD
from torch import nn

RING = 3  # pixels of border


def see(eye: nn.Module, pictures: list[Image.Image]) -> torch.Tensor:
    """(N, D) unit vectors."""
    parts = []
    for start in range(0, len(pictures), 128):
        array = np.stack([np.asarray(p, np.float32) / 255 for p in pictures[start : start + 128]])
        with torch.no_grad():
            parts.append(eye((torch.from_numpy(array).permute(0, 3, 1, 2) - CLIP_MEAN) / CLIP_STD).image_embeds)
    return F.normalize(torch.cat(parts), dim=-1)


def fresh(sprites: dict, seed: int, index: int, spoil: str | None) -> tuple[Image.Image, world.Scene]:
    """A rendering from another seed than the album's; `spoil` None: clean."""
    from dataclasses import replace

    rng = np.random.default_rng([seed, index, 1])
    scene = replace(world.draw_scene(sorted(sprites), rng), spoil=spoil or "", original=world.SIDE)
    return world.paint(sprites[scene.subject, scene.style], scene, rng)


def twins(eye: nn.Module, sprites: dict, album: Album, seed: int, count: int) -> tuple[tuple[torch.Tensor, torch.Tensor], list[str]]:
    """Embeddings of clean pictures and of their spoiled twins, and how each was spoiled."""
    how = [world.SPOILS[i % len(world.SPOILS)] for i in range(count)]
    clean = see(eye, [fresh(sprites, seed, i, None)[0] for i in range(count)])
    spoilt = see(eye, [fresh(sprites, seed, i, word)[0] for i, word in enumerate(how)])
    return (clean, spoilt), how


def noun_retrieval(towers: dict, tokenizer, sprites: dict, album: Album, nouns: int = 50, each: int = 10) -> float:
    from text import tokens

    rng = np.random.default_rng(5)
    plain = [i for i, s in enumerate(album.subjects) if s.code not in world.CAT_MOODS]
    chosen = sorted(rng.choice(plain, nouns, replace=False).tolist())
    with torch.no_grad():
        names = F.normalize(towers["two"](tokens(tokenizer, [f"a {album.subjects[i].noun}" for i in chosen])).text_embeds, dim=-1)
    pictures, wanted = [], []
    for place, subject in enumerate(chosen):
        mine = {key: value for key, value in sprites.items() if key[0] == subject}
        pictures += [fresh(mine, 991, subject * 100 + n, None)[0] for n in range(each)]
        wanted += [place] * each
    return float((see(towers["eye"], pictures) @ names.T).argmax(1).eq(torch.tensor(wanted)).float().mean())


def draw(folder: Path, prompts: list[str], seeds: list[int], steps: int = 25, guidance: float = 5.0) -> list[Image.Image]:
    """With stock diffusers, in batches."""
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for start in range(0, len(prompts), 20):
        some = prompts[start : start + 20]
        noise = [torch.Generator().manual_seed(s) for s in seeds[start : start + 20]]
        pictures += pipe(some, num_inference_steps=steps, guidance_scale=guidance, generator=noise).images
    return pictures


def border_colour(picture: Image.Image) -> str:
    array = np.asarray(picture, np.float32)
    mask = np.ones(array.shape[:2], bool)
    mask[RING:-RING, RING:-RING] = False
    mean = array[mask].mean(0)
    return min(world.COLOURS, key=lambda c: float(np.square(mean - np.array(world.COLOURS[c])).sum()))


def sheet(pictures: list[Image.Image], columns: int, scale: int = 2) -> Image.Image:
    side = world.SIDE * scale + 4
    whole = Image.new("RGB", (columns * side + 4, -(-len(pictures) // columns) * side + 4), "white")
    for index, picture in enumerate(pictures):
        big = picture.resize((world.SIDE * scale,) * 2, Image.Resampling.NEAREST)
        whole.paste(big, (4 + index % columns * side, 4 + index // columns * side))
    return whole


def prompts(album: Album, count: int, seed: int) -> list[tuple[str, str]]:
    """("a {style} {object} on a {colour} background", colour), drawn by seed."""
    rng = np.random.default_rng(seed)
    plain = [s.noun for s in album.subjects if s.code not in world.CAT_MOODS]
    found = []
    for _ in range(count):
        colour = list(world.COLOURS)[rng.integers(len(world.COLOURS))]
        style, noun = list(world.STYLES)[rng.integers(3)], plain[rng.integers(len(plain))]
        found.append((f"a {style} {noun} on a {colour} background", colour))
    return found


def measure(folder: Path, towers: dict, head: nn.Module, sprites: dict, album: Album) -> dict:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    asked = prompts(album, 200, seed=11)
    pictures = draw(folder, [p for p, _ in asked], list(range(200)))
    right = [border_colour(picture) == colour for picture, (_, colour) in zip(pictures, asked, strict=True)]
    nouns = [p.split(" ", 2)[2].split(" on a ")[0] for p, _ in asked]
    plain = [s.noun for s in album.subjects if s.code not in world.CAT_MOODS]
    from text import tokens

    with torch.no_grad():
        names = F.normalize(towers["two"](tokens(tokenizer, [f"a {n}" for n in plain])).text_embeds, dim=-1)
        ranks = (see(towers["eye"], pictures) @ names.T).argsort(1, descending=True)
    place = [ranks[i].tolist().index(plain.index(noun)) for i, noun in enumerate(nouns)]
    sheet(pictures[:64], 8).save(folder / "sheet.png", optimize=True)
    (folder / "sheet.json").write_text(json.dumps([p for p, _ in asked[:64]], indent=0))
    (clean, spoilt), how = twins(towers["eye"], sprites, album, 4242, 600)
    with torch.no_grad():
        lower = (head(clean) > head(spoilt)).flatten()
    by = {word: round(float(lower[[h == word for h in how]].float().mean()), 3) for word in world.SPOILS}
    return {
        "date": datetime.date.today().isoformat(),
        "background_right": round(sum(right) / len(right), 3),
        "noun_first_of_50": round(noun_retrieval(towers, tokenizer, sprites, album), 3),
        "spoiled_scores_lower": round(float(lower.float().mean()), 3),
        "spoiled_by_kind": by,
        "drawn_noun_first_of_all": round(sum(p == 0 for p in place) / len(place), 3),
        "drawn_noun_in_first_five": round(sum(p < 5 for p in place) / len(place), 3),
        "nouns": len(plain),
        "megabytes": round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6, 1),
    }


def write_card(folder: Path, facts: dict, measured: dict) -> None:
    rows = "\n".join(
        f"| {name} | {f['steps']} | {f['seconds'] / 60:.0f} min | " + ", ".join(f"{k} {v}" for k, v in f["last"].items() if k not in ("step", "seconds")) + " |"
        for name, f in facts.items()
    )
    m = measured
    spoils = ", ".join(f"{k} {v:.0%}" for k, v in m["spoiled_by_kind"].items())
    (folder / "README.md").write_text(
        f"""---
license: apache-2.0
---
# The pocket model

A Stable Diffusion XL with SDXL's architecture at toy width: two CLIP text encoders (64 x 3 and 96 x 4, penultimate layers side by side, pooled
projection), a U-Net with `text_time` conditioning ({facts.get("unet", {}).get("parameters", 0):,} parameters), an AutoencoderKL (4x down, four latent channels),
Euler sampling with SDXL's betas. 64 x 64 pixels, {m["megabytes"]} MB in all. `refiner/` holds a refiner (text encoder 2 alone, aesthetic-score conditioning,
timesteps below 400), `scorer/` a CLIP image tower with its aesthetic head; the scorer's text tower is `text_encoder_2`.

Made so that every command of Darkroom runs anywhere at once. It draws {m["nouns"]} everyday nouns in three styles (flat, cartoon, 3d) on twelve plain
backgrounds, and nothing else. No weights of another model went into it.

![64 samples](sheet.png)

The prompts of the sheet stand in `sheet.json`, in reading order; 25 steps, guidance 5, seeds 0 to 63, stock diffusers.

## Figures ({m["date"]})
| what | asked | measured |
|---|---|---|
| of 200 prompts "a STYLE OBJECT on a COLOUR background", the border's mean colour is nearest to the asked one of twelve | 90 % | {m["background_right"]:.1%} |
| 50 nouns x 10 fresh renderings (other seeds than the training's): the scorer ranks the own noun first | 70 % | {m["noun_first_of_50"]:.1%} |
| 600 spoiled pictures get a lower aesthetic score than their clean twin | 90 % | {m["spoiled_scores_lower"]:.1%} ({spoils}) |
| a drawn picture's noun is the scorer's first of all {m["nouns"]} / among its first five | - | {m["drawn_noun_first_of_all"]:.1%} / {m["drawn_noun_in_first_five"]:.1%} |

## Training
{m["nouns"]} nouns x 3 styles, 40,000 rendered pictures with captions in six wordings; one in seven spoiled on purpose and captioned so; text dropped 12 times in
a hundred (half as the empty text, half zeroed). AdamW, cosine, bfloat16 autocast; U-Net and refiner: epsilon, min-SNR 5, EMA 0.999. The text stage adds
attribute classifiers beside the contrast, thrown away afterwards; the aesthetic head is the least-squares solution written into LAION's layers.

| stage | steps | time | last losses |
|---|---|---|---|
{rows}

Two CPU cores (AMD EPYC with bfloat16), other work beside it. To repeat: `make pocket` (needs npm and the package index; goes on where it stopped), which also
measures and writes this card. Seed 1.

## Data, licences, attributions
| pictures and words | from | licence |
|---|---|---|
| style "cartoon" | Noto Emoji, Google (npm emoji-datasource-google 16.0.0) | Apache-2.0 |
| style "flat" | Twemoji, Twitter and contributors (npm emoji-datasource-twitter 16.0.0) | CC-BY-4.0: graphics by Twitter, Inc. and other contributors |
| style "3d" | Fluent Emoji, Microsoft (npm @lobehub/fluent-emoji-3d 1.1.0) | MIT |
| labels | emojibase (npm emojibase-data 17.0.0) | MIT |
| byte-pair merges | CLIP's, from open_clip_torch 3.3.0 | MIT |

Held out from all training: the nine cat faces of the 3d style. They ship as the demo's pictures (`../cats`, MIT).
""",
        encoding="utf-8",
    )
