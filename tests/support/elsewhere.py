"""A small world of every kind of file that a command takes, and one command line run on paths and on addresses."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.cli.main import run
from support import s3

BUCKET = "machines"
SHARED = ("base", "tuned.safetensors", "scorer")
"""Large, and never written: they lie once in the store."""
FEW = ("train.length=4 steps", "train.save_every=2 steps", "preview.every=4 steps", "preview.steps=2", "device=cpu", "data.batch_size=2", "method.rank=2")
SMALL = """prompts = ["a cat", "a dog", "a red cat", "a blue dog"]
metrics = ["aesthetic"]
seeds = [1]
steps = 1
width = 128
height = 128
[tune]
budget = 4
points = 2
"""
TRIAL = """title = "small"
metrics = ["clip"]
prompts = ["a cat", "a dog"]
seeds = [1]
steps = 2
[[arms]]
name = "base"
[[arms]]
name = "worn"
adapters = [{ file = "FILE", weight = 1.0 }]
"""
GRID = '[request]\nprompt = "a cat"\nsteps = 2\n[[axes]]\nname = "seed"\nstops = [{ label = "1", settings = ["seed=1"] }]\n'
KOHYA = {"pretrained_model_name_or_path": "x", "train_data_dir": "cats", "LoRA_type": "Standard", "output_name": "y"}


def build(world: Path) -> None:
    """Everything, with Darkroom's own commands where they make it."""
    from darkroom import pocket

    _pictures(world)
    _scorer(world / "scorer", pocket.WEIGHTS)
    _words(world)
    settings = [word for setting in FEW for word in ("--set", setting)]
    _do("train", "demo", "--images", world / "cats", "--subject", "TOK cat", "--out", world / "run", *settings)
    shutil.copy(world / "run" / "adapter.safetensors", world / "worn.safetensors")
    shutil.copy(world / "run" / "steps" / "000002" / "adapter.safetensors", world / "other.safetensors")
    (world / "own.toml").write_text(TRIAL.replace("FILE", (world / "worn.safetensors").as_posix()))
    _do("trial", world / "own.toml", "--out", world / "trial", "--device", "cpu")
    _do("adapter", "merge", world / "run", "--into", "pocket", "--dtype", "fp16", "--out", world / "tuned.safetensors")
    shutil.copytree(pocket.WEIGHTS, world / "base", ignore=shutil.ignore_patterns("scorer", "refiner", "sheet.*"))
    _do("generate", "a cat", "--out", world / "drawn", "--steps", "2", "--device", "cpu")
    _do("dataset", "shards", world / "cats", "--to", world / "shards", "--per-shard", "3")
    shutil.rmtree(world / "cats")  # a manifest was laid into it
    _pictures(world)


def _pictures(world: Path) -> None:
    """Three to learn from, two held out, a mask, a table beside a picture."""
    from darkroom import pocket

    for place, found in (("cats", sorted((pocket.CATS / "train").iterdir())[-6:]), ("held", sorted((pocket.CATS / "held_out").iterdir())[:2])):
        (world / place).mkdir(exist_ok=True)
        for file in found:
            shutil.copy(file, world / place)
    for place in ("masks", "table"):
        (world / place).mkdir(exist_ok=True)
    mask = Image.new("L", (256, 256), 255)
    mask.paste(0, (0, 0, 256, 128))
    mask.save(world / "masks" / "weary-cat.png")
    shutil.copy(world / "cats" / "weary-cat.png", world / "table")
    (world / "table" / "own.csv").write_text("file,text\nweary-cat.png,a cat\n")


def _scorer(folder: Path, weights: Path) -> None:
    """pocket's, with what it borrows."""
    shutil.copytree(weights / "scorer", folder)
    shutil.copytree(weights / "tokenizer_2", folder / "tokenizer")
    shutil.copy(weights / "text_encoder_2" / "model.safetensors", folder / "text.safetensors")
    (folder / "scorer.json").write_text(json.dumps({"text_model": "text.safetensors", "tokenizer": "tokenizer"}))


def _words(world: Path) -> None:
    import torch

    from darkroom import pocket
    from darkroom.sdxl.adapters.inversion_files import Word, write_word
    from darkroom.train.recipe import load_recipe

    widths = [json.loads((pocket.WEIGHTS / name / "config.json").read_text())["hidden_size"] for name in ("text_encoder", "text_encoder_2")]
    write_word(world / "toy.safetensors", Word("toy", {clip: torch.ones(1, width) for clip, width in zip(("clip_l", "clip_g"), widths, strict=True)}), "kohya")
    texts = {"prompts.txt": "a cat\n", "scenes.txt": "a cat\na dog\n", "words.txt": "blurry\n", "small.toml": SMALL, "trial.toml": TRIAL, "grid.toml": GRID}
    for name, text in (texts | {"kohya.json": json.dumps(KOHYA)}).items():
        (world / name).write_text(text)
    recipe = load_recipe("demo", FEW, data={"subject": "TOK cat"})
    (world / "few.toml").write_text(recipe.to_toml())
    (world / "command.txt").write_text(
        "accelerate launch train_dreambooth_lora_sdxl.py --pretrained_model_name_or_path=x --instance_data_dir=cats --instance_prompt=y"
    )


def lay(source: Path, target: Path, shared: str) -> None:
    """A copy; a trial's file names what it wears as it lies there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.suffix == ".toml":
        target.write_text(source.read_text().replace("FILE", f"{shared}/worn.safetensors"))
    else:
        shutil.copy(source, target)


def open_text(name: str, data: bytes) -> bytes:
    """The bytes; of a Parquet file, which is packed, what it says."""
    if not name.endswith(".parquet"):
        return data
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    return f"{table.schema.metadata} {table.to_pylist()}".encode()


def _do(*words: Any) -> None:
    assert run([str(word) for word in words]) == 0, words


def upload(place: Path, key: str) -> None:
    """A file or a folder into the bucket."""
    for file in [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]:
        inner = "" if file == place else f"/{file.relative_to(place).as_posix()}"
        s3.client().upload_file(str(file), BUCKET, f"{key}{inner}")


def lie(folder: Path) -> dict[str, bytes]:
    """Files below a folder by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stored(prefix: str) -> dict[str, bytes]:
    """Objects below a prefix by name."""
    return {key: s3.body(BUCKET, f"{prefix}{key}") for key in s3.keys(BUCKET, prefix)}


def differing(here: Mapping[str, bytes], there: Mapping[str, bytes]) -> set[str]:
    """Names whose bytes are not equal; pictures whose pixels are."""
    return {
        name for name in here.keys() & there.keys() if here[name] != there[name] and not (name.endswith(".png") and _pixels(here[name]) == _pixels(there[name]))
    }


def _pixels(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as opened:
        return hashlib.sha256(opened.tobytes()).hexdigest()
