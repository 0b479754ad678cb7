"""Writes docs/methods.md: of every method whether it trains, resumes exactly after a kill, loads in other programs, and how large its file is.

    make methods-table                          (three to five minutes on two cores)
    python tools/methods_table.py lora control  prints those rows alone

Nothing in the table is claimed: each row is a training of four steps on the pocket model and the bundled cats, killed with -9 in a process of its own after its
checkpoint at step 2, gone on with, and compared byte by byte with one that was never stopped; the file is then given to stock diffusers and to
lycoris-lora, and what they add to the weights is compared with what Darkroom says it is. Members of `darkroom.methods.Method` are found by themselves.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

STEPS, SAVED, KILLED = 4, 2, 3
CLOSE = 1e-4
"""Relative: what another program's change of a weight may differ by, in the largest number, from ours."""
PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
SMALL = {"lora": {"rank": 4, "alpha": 2.0}, "lycoris": {"rank": 4, "alpha": 2.0}}
WIDE = {"boft": 10}
"""boft cuts 320 outputs into a power of two of blocks, and wants wider ones."""


@dataclass(frozen=True)
class Row:
    """What was found of one method."""

    name: str
    recipe: str
    trains: str
    resumes: str = ""
    diffusers: str = ""
    lycoris: str = ""
    size: str = ""


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every member of the union by name, LoRA also as DoRA, LyCORIS with each algorithm."""
    from darkroom.methods import Method
    from darkroom.methods.lycoris import Algorithm

    for member in get_args(get_args(Method)[0]):
        cls = get_args(member)[0]
        kind = cls.model_fields["kind"].default
        table = {"kind": kind} | SMALL.get(kind, {})
        match kind:
            case "lora":
                yield "LoRA", table
                yield "DoRA", table | {"dora": True}
            case "lycoris":
                for algorithm in get_args(Algorithm):
                    yield f"LyCORIS {algorithm}", table | {"algorithm": algorithm, "rank": WIDE.get(algorithm, 4)}
            case _:
                yield re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__), table


def recipe_of(method: dict[str, Any]) -> Any:
    """Accumulation, caption dropout, flips and a rate that changes, so that a resume has something to get wrong."""
    from darkroom import pocket
    from darkroom.train.recipe import Recipe

    tree = {
        "base": "pocket", "device": "cpu", "method": method,
        "data": {
            "images": str(pocket.CATS / "train"), "subject": "TOK cat", "batch_size": 2, "resolution": 32, "flip": True,
            "wording": {"dropout": 0.0 if method["kind"] == "inversion" else 0.3},  # a caption that is left out has no new word
        },
        "optimizer": {"rate": 1e-3, "schedule": "cosine", "warmup": 1}, "preview": {"every": "100 steps", "steps": 1},
        "train": {"length": f"{STEPS} steps", "save_every": f"{SAVED} steps", "accumulate": 2},
    }  # fmt: skip
    return Recipe.from_tree(tree, "tools/methods_table.py")


class Assassin:
    """A watcher that ends the process with -9, in the middle, at step `KILLED`."""

    def say(self, text: str) -> None:
        pass

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "training":
            self.figures(done, total, {})

    def figures(self, step: int, total: int, values: Any) -> None:
        if step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)

    def picture(self, step: int, path: Path) -> None:
        pass


def tried(name: str, method: dict[str, Any], place: Path) -> Row:
    """One row. What fails is told in it, with the reason."""
    from darkroom.errors import DarkroomError
    from darkroom.jobs.train import run_training

    said = ", ".join(f"{key} = {value}" for key, value in method.items() if key not in ("rank", "alpha"))
    try:
        recipe = recipe_of(method)
        run = run_training(recipe, place / "whole")
    except DarkroomError as error:
        return Row(name, said, f"no: {first_line(error)}")
    except Exception as error:  # a fault of ours: the table says so rather than stop
        return Row(name, said, f"**a fault**: {type(error).__name__}: {first_line(error)}")
    product = run.product
    return Row(name, said, moved(run), resumed(recipe, run, place), by_diffusers(product, place), by_lycoris(product), sized(product))


def moved(run: Any) -> str:
    """How many of the trained tensors differ between the two checkpoints."""
    import torch

    (before, _), (after, _) = (checkpoint.load() for checkpoint in run.checkpoints())
    names = [key for key in after if key.startswith("weights.")]
    count = sum(not torch.equal(before[key], after[key]) for key in names)
    return f"yes: {count} of {len(names)} tensors moved" if count else "**no tensor moved**"


def resumed(recipe: Any, whole: Any, place: Path) -> str:
    """Killed with -9 at step 3, gone on with from step 2, compared byte by byte."""
    from darkroom.files import write_text
    from darkroom.jobs.receipt import product_hash
    from darkroom.jobs.train import resume_training
    from darkroom.train.run import Run

    write_text(place / "recipe.toml", recipe.to_toml())
    done = subprocess.run([sys.executable, __file__, "--killed", str(place / "recipe.toml"), str(place / "killed")], capture_output=True, text=True)
    if done.returncode != -signal.SIGKILL:
        return f"**not killed** ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}"
    left = [checkpoint.step for checkpoint in Run.open(place / "killed").checkpoints()]
    if left != [SAVED]:
        return f"**left checkpoints {left}**"
    try:
        again = resume_training(place / "killed")
    except Exception as error:
        return f"**no**: {first_line(error)}"
    return "byte-equal" if product_hash(again.product) == product_hash(whole.product) else "**other bytes**"


def be_killed(recipe: Path, out: Path) -> None:
    """In a process of its own."""
    from darkroom.jobs.train import run_training
    from darkroom.spec import read_toml
    from darkroom.train.recipe import Recipe

    run_training(Recipe.from_tree(read_toml(recipe), str(recipe)), out, Assassin())


def sized(product: Path) -> str:
    files = [product] if product.is_file() else [path for path in product.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1024
    return f"{size:,.0f} KiB" + ("" if product.is_file() else f", {len(files)} files")


# ---- other programs -------------------------------------------------------------------------------------------------------------------------------------


def by_diffusers(product: Path, place: Path) -> str:
    """What stock diffusers makes of it."""
    try:
        if product.is_dir():
            return opened(product)
        from darkroom.sdxl.adapters.header import Header

        keys = Header.read(product).names
        if {"clip_l", "clip_g"} & set(keys):
            return as_words(product, place)
        return fused(product, place)
    except Exception as error:
        return f"no: {first_line(error)}"


def opened(folder: Path) -> str:
    """A folder by the class that its own configuration names."""
    import diffusers
    import json

    if (folder / "model_index.json").is_file():
        diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
        return "yes: StableDiffusionXLPipeline.from_pretrained"
    name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    getattr(diffusers, name).from_pretrained(folder)
    return f"yes: {name}.from_pretrained"


def as_words(product: Path, place: Path) -> str:
    """A textual inversion: diffusers reads one file for each encoder."""
    from darkroom.jobs.adapter import Conversion, convert_adapter

    pipe = stock()
    try:
        pipe.load_textual_inversion(product.parent, weight_name=product.name, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
        return "yes: load_textual_inversion"
    except Exception:
        pass
    out = place / "words"
    convert_adapter(Conversion(product, "diffusers", out, "pocket"))
    files = sorted(out.glob("*.safetensors"))
    for file, encoder, tokenizer in zip(files, (pipe.text_encoder, pipe.text_encoder_2), (pipe.tokenizer, pipe.tokenizer_2), strict=True):
        pipe.load_textual_inversion(file.parent, weight_name=file.name, text_encoder=encoder, tokenizer=tokenizer)
    return "after `adapter convert --to diffusers`: load_textual_inversion"


def stock() -> Any:
    """diffusers' own pipeline on the pocket model."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import logging as talk

    from darkroom import pocket

    talk.set_verbosity_error()
    talk.disable_progress_bar()
    return StableDiffusionXLPipeline.from_pretrained(Path(pocket.resolve("pocket")))


def fused(product: Path, place: Path) -> str:
    """As the run wrote it; where diffusers makes another change of that, after `adapter convert --to diffusers`."""
    from darkroom.jobs.adapter import Conversion, convert_adapter

    try:
        told = added(product, product)
    except Exception as error:
        told = f"no: {first_line(error)}"
    if told.startswith("load_lora_weights: equal"):
        return told
    bundled = any(name.startswith("bundle_emb.") for name in header_names(product))
    out = place / "diffusers.safetensors"
    try:
        convert_adapter(Conversion(product, "diffusers", out, "pocket", unbundle=bundled))
        again = added(out, product)
    except Exception:
        return told
    return f"{told}; after `adapter convert --to diffusers{' --unbundle' if bundled else ''}` {again}"


def added(file: Path, product: Path) -> str:
    """load_lora_weights and fuse_lora of `file`, against what `product` says by our own formulas."""
    changes, model = changes_of(product)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = stock()
        pipe.load_lora_weights(file.parent, weight_name=file.name)
        pipe.fuse_lora(components=[part for part in ("unet", "text_encoder", "text_encoder_2") if getattr(getattr(pipe, part), "peft_config", None)])
        pipe.unload_lora_weights()
    got = {key: weight(getattr(pipe, key[0]), key[1]) - weight(model.parts[key[0]], key[1]) for key in changes}
    return "load_lora_weights: " + compared({key: change.delta(weight(model.parts[key[0]], key[1])) for key, change in changes.items()}, got)


def by_lycoris(product: Path) -> str:
    """What lycoris-lora makes of each module of the file, by its own reader of files."""
    if product.is_dir() or {"clip_l", "clip_g"} & set(header_names(product)):
        return "not its kind"
    try:
        return read_by_lycoris(product)
    except Exception as error:
        return f"no: {first_line(error)}"


def read_by_lycoris(product: Path) -> str:
    import logging

    from safetensors.torch import load_file

    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris.modules import get_module, make_module

    from darkroom.sdxl.formats import kohya_name, plain_blocks

    changes, model = changes_of(product)
    if not changes:
        return "not its kind"
    tensors, got, other = load_file(product), {}, set()
    layers, plain = int(model.unet.config.layers_per_block), plain_blocks(model.unet)
    for part, path in changes:
        name, module = kohya_name(part, path, layers, plain), model.parts[part].get_submodule(path)
        found, values = get_module(tensors, name)
        made = make_module(found, values, name, module) if found else None
        if made is None:
            other.add(getattr(found, "__name__", "nothing"))
            continue
        got[part, path] = worn_weight(made, module) - weight(model.parts[part], path)
    if not got:
        return f"no: its reader makes {', '.join(sorted(other))} of the modules"
    return compared({key: changes[key].delta(weight(model.parts[key[0]], key[1])) for key in changes}, got)


def worn_weight(made: Any, module: Any) -> Any:
    """(out, in) of what a linear layer does with the module on: by its forward, for get_merged_weight of LoHa and LoKr scales twice in lycoris-lora 4.1.3."""
    import torch

    with torch.no_grad():
        bias = 0 if module.bias is None else module.bias
        return (made(torch.eye(module.in_features)) - bias).T


def changes_of(product: Path) -> tuple[dict[Any, Any], Any]:
    from darkroom.jobs.base import open_base
    from darkroom.sdxl.formats import read_adapter

    model = open_base("pocket", "cpu", "fp32")
    return read_adapter(product, model).changes, model


def header_names(product: Path) -> list[str]:
    from darkroom.sdxl.adapters.header import Header

    return list(Header.read(product).names)


def weight(root: Any, path: str) -> Any:
    return root.get_submodule(path).weight.detach()


def compared(ours: dict[Any, Any], theirs: dict[Any, Any]) -> str:
    """Largest difference over all modules, over the largest change of any."""
    largest = max(float(delta.abs().max()) for delta in ours.values())
    missing = [key for key in ours if key not in theirs or (float(ours[key].abs().max()) > 0 and float(theirs[key].abs().max()) == 0)]
    if missing:
        return f"**{len(missing)} of {len(ours)} modules are left out**"
    off = max(float((theirs[key] - ours[key]).abs().max()) for key in ours) / largest
    return f"equal to {off:.0e} in {len(ours)} modules" if off <= CLOSE else f"**another change**: {off:.0%} off"


def first_line(error: Exception) -> str:
    """Without folders of this machine."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"(/[\w.-]+)+/", "", line)[:160].strip(" :,").replace("|", "\\|")


# ---- the page -------------------------------------------------------------------------------------------------------------------------------------------


def main() -> None:
    import torch

    from darkroom.files import write_text

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    rows, only = [], sys.argv[1:]
    for name, method in variants():
        if only and not any(word in name.lower() for word in only):
            continue
        with tempfile.TemporaryDirectory() as place:
            rows.append(tried(name, method, Path(place)))
        print(" | ".join(filter(None, vars(rows[-1]).values())), flush=True)
    if not only:  # part of a table is printed alone
        write_text(PAGE, page(rows))
        print(PAGE)


def page(rows: list[Row]) -> str:
    import importlib.metadata as about

    versions = ", ".join(f"{name} {about.version(name)}" for name in ("torch", "diffusers", "peft", "lycoris_lora"))
    heads = ("method", "in the recipe", "trains", "resumes after kill -9", "diffusers", "lycoris-lora", "file on pocket")
    lines = [heads, ("---",) * len(heads), *(tuple(vars(row).values()) for row in rows)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"""# Methods

Written by `make methods-table` ({versions}, CPU, float32); do not edit. Each row is a training of {STEPS} steps on the pocket model with accumulation, caption
dropout, flips and a cosine rate; killed with -9 at step {KILLED}, gone on with from the checkpoint at step {SAVED}, and compared byte by byte with the run that
was never stopped. What diffusers and lycoris-lora add to the weights is compared with what Darkroom adds: the largest difference over the largest change.

{table}

`lycoris-lora` reads module by module, as the programs do that use it; "not its kind" is a file of which it has no reader. Of `dylora` it has
a module for training and none that reads a file, and LoRA's reader takes its files. A1111, ComfyUI and sd-scripts are not installed here:
`darkroom adapter show FILE` says what their code reads.
"""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--killed"]:
        be_killed(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
