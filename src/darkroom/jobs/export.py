"""A run to a folder that is ready for the hub, A1111 and ComfyUI: the adapter as it is, a card, pictures, the recipe, the receipt.

Nothing in the folder names a path of the machine it was made on: pictures are written anew with a request that says names alone, and the recipe
and the receipt hold what others can use.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from darkroom.errors import DarkroomError, RecipeError, RunError
from darkroom.files import sha256_file, whole_folder, write_json, write_text
from darkroom.jobs.card import Shot, card
from darkroom.jobs.label import on_hub, public_name, public_receipt, public_recipe, write_sidecar
from darkroom.methods import Pivotal, TextualInversion
from darkroom.methods.chosen import ADAPTER
from darkroom.sampling.request import Request, read_request, save_png
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run

SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
MACHINE = ("gpu", "gpu_memory_mib", "cores")


@dataclass(frozen=True)
class Export:
    """What is to be exported, and how it is to be called."""

    run: Path
    to: Path
    step: int | None = None
    name: str = ""
    weight: float = 1.0
    license: str = "other"
    base_model: str = ""
    trial: Path | None = None
    repository: str = ""


@dataclass(frozen=True)
class Subject:
    """The facts that the card, the receipt and the side-car share."""

    name: str
    recipe: Recipe
    step: int
    facts: dict[str, Any]
    adapter_sha256: str
    trained_on: str
    base_model: str
    shots: tuple[Shot, ...] = ()
    verdicts: tuple[str, ...] = ()
    grid: str = ""
    choices: dict[str, Any] = field(default_factory=dict)


def export(asked: Export) -> Path:
    """Write the folder whole or not at all; returns the adapter's path in it. Raises RunError, OutputError, RecipeError."""
    run = Run.open(asked.run)
    step, source = _adapter(run, asked.step)
    if source.is_dir():
        raise RunError(
            f"{asked.run}: learned no adapter but a whole model, {source}, which diffusers opens and the hub takes as it is. One file for A1111 and ComfyUI "
            f"is made by `darkroom base convert {source} --to single --out NAME.safetensors`."
        )
    name = _name(asked, run.recipe)
    if not LICENCE.fullmatch(asked.license):
        raise RecipeError(
            f"--license {asked.license}: is no licence the hub knows by name. Write one as it does, for example cc-by-4.0, mit, openrail++ or other."
        )
    name += f"-{step:06d}" if asked.step is not None and not isinstance(run.recipe.method, TextualInversion) else ""
    with whole_folder(asked.to, "--to") as folder:
        _lay(source, run.recipe, folder / f"{name}.safetensors")
        subject = _subject(asked, run, step, name, folder, sha256_file(source))
        _write(asked, subject, folder)
    return asked.to / f"{name}.safetensors"


def _name(asked: Export, recipe: Recipe) -> str:
    """The file's name without its ending: what was asked for, or the subject; of a textual inversion its word, by which programs call it."""
    if not isinstance(recipe.method, TextualInversion):
        name = slug(asked.name or recipe.data.subject) or "adapter"
        same = recipe.inversion is not None and recipe.inversion.word.lower() == name  # the file of the word that lies beside it
        return f"{name}-adapter" if same else name
    word = recipe.product.removesuffix(".safetensors")
    if asked.name and asked.name != word:
        raise RecipeError(
            f'--name {asked.name}: {asked.run} learned the word "{word}", and the file\'s name is the word. Leave --name out, or call the word otherwise with '
            f"`darkroom adapter convert {asked.run / recipe.product} --to kohya --word {asked.name}`."
        )
    return word


def _lay(source: Path, recipe: Recipe, file: Path) -> None:
    """What was learned, as other programs take it: an adapter that bundles its word becomes two files, for only A1111 reads both from one."""
    if not isinstance(recipe.method, Pivotal):
        shutil.copyfile(source, file)
        return
    from darkroom.sdxl.adapters.inversion_files import Word, write_word
    from darkroom.sdxl.adapters.keys import BUNDLED
    from darkroom.sdxl.adapters.metadata import STALE
    from darkroom.sdxl.formats import read_tensors, write_adapter

    tensors, metadata = read_tensors(source)
    found = {name: match for name in tensors if (match := BUNDLED.fullmatch(name))}
    for name in dict.fromkeys(match[1] for match in found.values()):
        word = Word(name, {match[2]: tensors[key] for key, match in found.items() if match[1] == name}, (source,))
        write_word(file.with_name(f"{word.file_name}.safetensors"), word, "kohya")
    left = {name: tensor for name, tensor in tensors.items() if name not in found}
    write_adapter(file, left, {key: value for key, value in metadata.items() if key not in STALE})


def _adapter(run: Run, step: int | None) -> tuple[int, Path]:
    saved = {checkpoint.step: checkpoint.folder / run.recipe.product for checkpoint in run.checkpoints()}
    known = ", ".join(map(str, saved)) or "none"
    if step is not None:
        if step not in saved:
            raise RunError(f"{run.folder}: has no checkpoint of step {step}. It has: {known}.")
        return step, saved[step]
    if not run.finished:
        raise RunError(f"{run.folder}: is not finished. Go on with `darkroom resume {run.folder}`, or export a checkpoint with --checkpoint STEP ({known}).")
    return int(run.facts["result"]["steps"]), run.product


def slug(text: str) -> str:
    """ "TOK cat" to "tok-cat": a name that file systems, peft and <lora:...> all take."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def _subject(asked: Export, run: Run, step: int, name: str, folder: Path, learned: str) -> Subject:
    """`learned` is the hash of what the run holds, by which a trial knows it."""
    recipe = run.recipe
    digest = sha256_file(folder / f"{name}.safetensors")
    trained_on = public_name(recipe.base)
    base_model = asked.base_model or ("" if recipe.base == "pocket" else recipe.base if on_hub(recipe.base) else SDXL_BASE)
    verdicts, grid = _trial(asked.trial, learned, folder) if asked.trial else ((), "")
    return Subject(
        name, recipe, step, public_facts(run.facts, step, digest, trained_on), digest, trained_on, base_model, _pictures(run, step, name, folder),
        verdicts, grid, {"weight": asked.weight, "license": asked.license, "repository": asked.repository},
    )  # fmt: skip


def public_facts(facts: dict[str, Any], step: int, adapter_sha256: str, trained_on: str) -> dict[str, Any]:
    """The receipt with what others can check, what it was made on and what came of it, and nothing of the machine's names."""
    return {
        **public_receipt(facts, trained_on),
        "hardware": {key: value for key, value in facts.get("hardware", {}).items() if key in MACHINE},
        "result": {key: value for key, value in facts.get("result", {}).items() if key != "adapter_sha256"},
        "adapter_step": step,
        "adapter_sha256": adapter_sha256,
    }


def public_request(request: Request, name: str) -> Request:
    """What a picture was asked to be, with the names of files for their paths."""
    worn = tuple(w.model_copy(update={"file": f"{name}.safetensors" if Path(w.file).name == ADAPTER else Path(w.file).name}) for w in request.adapters)
    words = tuple(w.model_copy(update={"file": Path(w.file).name}) for w in request.embeddings)
    files = {key: Path(getattr(request, key)).name for key in ("image", "mask", "keep") if getattr(request, key)}
    return request.model_copy(update={**files, "base": public_name(request.base), "adapters": worn, "embeddings": words})


def _pictures(run: Run, step: int, name: str, folder: Path) -> tuple[Shot, ...]:
    """The last previews up to the step, the same pixels with a public request; the first one also beside the adapter, where A1111 looks for it."""
    drawn = sorted((run.folder / "previews").glob("[0-9]*_*.png"))
    steps = {int(path.name.partition("_")[0]) for path in drawn}
    last = max((number for number in steps if 0 < number <= step), default=None)
    shots: list[Shot] = []
    for index, path in enumerate(p for p in drawn if int(p.name.partition("_")[0]) == last):
        try:
            request = public_request(read_request(path), name)
        except DarkroomError:  # not ours, or re-saved by another program: it cannot say what it shows
            continue
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        target = folder / "images" / f"preview-{index}.png"
        save_png(picture, request, target)
        if not shots:
            shutil.copyfile(target, folder / f"{name}.png")
        shots.append(Shot(f"images/{target.name}", request.prompt, request.seed, last or 0))
    return tuple(shots)


def _trial(trial: Path, adapter_sha256: str, folder: Path) -> tuple[tuple[str, ...], str]:
    """A trial's sentences and its grid, where it wore this very adapter. Raises RunError."""
    try:
        result = json.loads((trial / "trial.json").read_text(encoding="utf-8"))
        sentences = tuple(str(row["sentence"]) for row in result["comparisons"])
        worn = {*result["receipt"]["adapters"].values(), *result["receipt"].get("embeddings", {}).values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{trial}: is no trial's folder (its trial.json is missing or damaged). `darkroom trial` makes one.") from None
    if adapter_sha256 not in worn:
        raise RunError(f"{trial}: tried another adapter than this one (sha256 {adapter_sha256[:12]}). Try this one first, or leave --trial out.")
    grid = trial / "grid.png"
    if not grid.is_file():
        return sentences, ""
    with Image.open(grid) as opened:
        (folder / "images").mkdir(exist_ok=True)
        opened.convert("RGB").save(folder / "images" / "trial.png", "PNG", optimize=True)
    return sentences, "images/trial.png"


def _write(asked: Export, subject: Subject, folder: Path) -> None:
    notes = f"Trained with Darkroom on {subject.trained_on}: {subject.facts['pictures']} pictures, {subject.step} steps. sha256 {subject.adapter_sha256}"
    if not isinstance(subject.recipe.method, TextualInversion):  # activation text and weight are an adapter's: a word is its own
        write_sidecar(folder / f"{subject.name}.safetensors", subject.recipe, asked.weight, notes)
    write_json(folder / "facts.json", subject.facts)
    write_text(folder / "recipe.toml", public_recipe(subject.recipe, subject.trained_on).to_toml())
    write_text(folder / "README.md", card(subject))
