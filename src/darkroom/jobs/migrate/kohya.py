"""Settings of kohya's programs to a recipe: the GUI's JSON, a config_file of sd-scripts, a dataset configuration."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert, kohya_gui
from darkroom.jobs.migrate.kohya_dataset import Dataset, read_dataset
from darkroom.jobs.migrate.kohya_method import idle, method
from darkroom.jobs.migrate.kohya_objective import objective
from darkroom.jobs.migrate.kohya_optimizer import optimizer
from darkroom.jobs.migrate.kohya_options import DEPRECATED, IMPLIED, KNOWN, LACKING, NETWORK, NEUTRAL, SUBSETS, TRAIN
from darkroom.jobs.migrate.kohya_pictures import pictures
from darkroom.jobs.migrate.kohya_previews import previews, validation
from darkroom.jobs.migrate.options import defaults, read
from darkroom.jobs.migrate.report import Imported, Ledger, Row, finish


def import_kohya(path: Path) -> Imported:
    """What the settings would train, as a recipe. Raises RecipeError in the words of the mistake."""
    tree = _read(path)
    if "datasets" in tree:
        return _convert(Ledger(path.name, {}, defaults(TRAIN)), read_dataset(tree, path.name), whole=False)
    _refuse_strangers(tree, path)
    if kohya_gui.is_gui(tree):
        given, names, rows = kohya_gui.translate(tree, path.name)
    else:
        given, names = _flat(tree), {}
        rows = _misplaced(given)
    ledger = Ledger(path.name, given, defaults(TRAIN), names, rows=rows)
    if names and "sdxl" not in tree:
        ledger.todo.append("The settings do not say whether they are for SDXL (older GUIs do not): see that rates and resolution are SDXL's.")
    if "network_module" not in given:
        raise RecipeError(
            f"{path}: names no network_module (the GUI: LoRA_type), so that it changes the whole U-Net (sdxl_train.py), which no recipe can say yet. "
            f'For a LoRA add network_module = "networks.lora".'
        )
    _expand(ledger, "network_args")
    return _convert(ledger, _dataset_of(ledger, path.parent))


def _read(path: Path) -> dict[str, Any]:
    """JSON by its ending, else TOML. Raises RecipeError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file. Give the JSON that the GUI saved, or the TOML of --config_file or --dataset_config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text: {error}.") from None
    kind = "JSON" if path.suffix.lower() == ".json" or text.lstrip().startswith("{") else "TOML"
    try:
        tree = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: is no {kind}: {error}. Give the JSON that the GUI saved, or the TOML of --config_file or --dataset_config.") from None
    if not isinstance(tree, dict) or not tree:
        raise RecipeError(f"{path}: holds no settings.")
    return tree


def _refuse_strangers(tree: dict[str, Any], path: Path) -> None:
    inner = {name for value in tree.values() if isinstance(value, dict) for name in value}
    if {"token_string", "init_word", "num_vectors_per_token"} & (tree.keys() | inner):
        raise RecipeError(f"{path}: learns a new word (textual inversion), which no recipe can say yet. A subject can be learned with a LoRA instead.")
    if not kohya_gui.is_gui(tree) and not KNOWN & (tree.keys() | inner):
        raise RecipeError(f"{path}: holds no setting of kohya's programs. Give the JSON that the GUI saved, or the TOML of --config_file or --dataset_config.")


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """sd-scripts lays the sections of a config_file together; a key that stands twice counts as it stands last."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        for name, inner in value.items() if isinstance(value, dict) else [(key, value)]:
            if name in found and found[name] != inner:
                raise RecipeError(f"{name}: is given twice, as {found[name]!r} and as {inner!r}. Keep the one that is meant.")
            found[name] = inner
    return found


def _misplaced(given: dict[str, Any]) -> list[Row]:
    """Keys that sd-scripts knows, but not here: it takes no notice of them. They are taken out of `given`."""
    places = {**dict.fromkeys(NETWORK, "network_args"), **dict.fromkeys(SUBSETS, "a dataset configuration")}
    found = [key for key in given if key in places]
    return [Row(key, given.pop(key), "unknown", "", f"sd-scripts knows it in {places[key]} alone, and takes no notice of it here.") for key in found]


def _expand(ledger: Ledger, key: str) -> None:
    """network_args into keys of their own."""
    if key not in ledger.given:
        return
    parts = convert.arguments(read(_option("list"), ledger.given.pop(key), key))
    if not parts:
        ledger.note(ledger.shown(key), "", "implied", why="empty: not set")
    for said, value in parts.items():
        name = DEPRECATED.get(said, said)
        if name in ledger.given:
            ledger.note(f"{key} {said}", value, "implied", why=f"{ledger.shown(name)} counts")
        else:
            ledger.given[name], ledger.names[name] = value, f"{key} {said}"


def _option(kind: str) -> Any:
    from darkroom.jobs.migrate.options import Option

    return Option("", kind)


def _dataset_of(ledger: Ledger, beside: Path) -> Dataset:
    """The dataset that the settings name: a configuration file, or folders by name."""
    name = ledger.given.get("dataset_config")
    if not name:
        ledger.imply("dataset_config", "not set")
        return Dataset()
    file = next((path for path in (beside / str(name), Path(str(name)), beside / Path(str(name)).name) if path.is_file()), None)
    if file is None:
        ledger.lack("dataset_config", "that file is not on this machine: its pictures and settings are not known")
        ledger.todo.append(f"{name} was not found: put it beside the settings and import again, or give --images and --subject.")
        return Dataset()
    ledger.note(ledger.shown("dataset_config"), name, "mapped", "data", "its settings are rows of their own, and count before those here")
    ledger.given.pop("dataset_config")
    found = read_dataset(_read(file), file.name)
    for key in ("train_data_dir", "reg_data_dir", "in_json"):
        if key in ledger.given:
            ledger.note(ledger.shown(key), ledger.given.pop(key), "implied", why="sd-scripts ignores it beside a dataset_config")
    return found


def _convert(ledger: Ledger, dataset: Dataset, whole: bool = True) -> Imported:
    """`whole` is False for a dataset configuration alone: what is not about data is then left to Darkroom's defaults."""
    ledger.rows += dataset.rows
    ledger.todo += dataset.todo
    for key, value in dataset.given.items():
        if key in ledger.given:
            ledger.note(ledger.shown(key), ledger.given[key], "implied", why=f"{dataset.names[key]} counts")
        ledger.given[key], ledger.names[key] = value, dataset.names[key]
    _kinds(ledger)
    ledger.map("training_comment", "about", ledger["training_comment"]) if ledger["training_comment"] else ledger.put(
        "about", f"Imported from {ledger.program}"
    )
    if "training_comment" in ledger.given and not ledger["training_comment"]:
        ledger.imply("training_comment", "empty")
    convert.base(ledger)
    if whole:
        convert.vae(ledger, "vae")
    repeats = pictures(ledger, whole)
    if whole:
        method(ledger)
        steps = _length(ledger, repeats)
        optimizer(ledger, steps)
        _train(ledger, repeats)
        previews(ledger, repeats)
    else:
        ledger.todo.append(
            "A dataset configuration says nothing of the training: method, rates and length are Darkroom's own. Import the config_file for those."
        )
    validation(ledger, repeats)
    if ledger["reg_data_dir"]:
        ledger.lack("prior_loss_weight", "regularisation pictures are no recipe's (yet)")
    unused = idle(ledger) if whole else {}
    implied = {key: why for key, why in IMPLIED.items() if key != "prior_loss_weight" or not ledger["reg_data_dir"]} | unused
    ledger.sweep(implied, {key: why for key, why in LACKING.items() if key not in unused}, NEUTRAL)
    return finish(ledger, dict.fromkeys(KNOWN))


def _kinds(ledger: Ledger) -> None:
    """Values as their kinds; an empty one is as if it were left out."""
    for key in [key for key in ledger.given if key in TRAIN]:
        value = read(TRAIN[key], ledger.given[key], ledger.shown(key))
        if value is None:
            ledger.note(ledger.shown(key), ledger.given.pop(key), "implied", why="empty: not set")
        else:
            ledger.given[key] = value


def _length(ledger: Ledger, repeats: int) -> int | None:
    """train.length; returns the steps where they are known."""
    if ledger["max_train_epochs"]:
        why = f"each shows a picture {repeats} times" if repeats != 1 else ""
        ledger.map("max_train_epochs", "train.length", f"{ledger['max_train_epochs'] * repeats} epochs", why)
        ledger.imply("max_train_steps", f"{ledger.shown('max_train_epochs')} counts before it")
        return None
    ledger.imply("max_train_epochs", "0: not set")
    steps = int(ledger["max_train_steps"])
    ledger.map("max_train_steps", "train.length", f"{steps} steps")
    return steps


def _train(ledger: Ledger, repeats: int) -> None:
    every = {"save_every_n_steps": "steps", "save_every_n_epochs": "epochs"}
    chosen = next((key for key in every if ledger[key]), None)
    for key, unit in every.items():
        count = ledger[key]
        if key == chosen and count:
            ledger.map(key, "train.save_every", f"{count * repeats if unit == 'epochs' else count} {unit}")
        elif count:
            ledger.lack(key, f"one interval counts: {chosen}")
        else:
            ledger.imply(key, "0: not set")
    if chosen is None:
        ledger.put("train.save_every", ledger.recipe["train"]["length"])  # sd-scripts then saves at the end alone
    ledger.map("gradient_accumulation_steps", "train.accumulate", ledger["gradient_accumulation_steps"])
    ledger.map("gradient_checkpointing", "train.gradient_checkpointing", bool(ledger["gradient_checkpointing"]))
    convert.precision(ledger, "mixed_precision")
    convert.precision(ledger, "save_precision", "train.save_dtype", left_out="float")
    ledger.map("max_grad_norm", "train.max_grad_norm", ledger["max_grad_norm"]) if ledger["max_grad_norm"] else _unclipped(ledger)
    seed = ledger["seed"]
    ledger.map("seed", "train.seed", max(0, seed or 0), "" if seed else "no seed is set there, so that no two runs are alike; here every draw follows from one")
    objective(ledger)
    ledger.imply("v2", "false: it is SDXL")


def _unclipped(ledger: Ledger) -> None:
    ledger.map("max_grad_norm", "train.max_grad_norm", 1e9, "0 is no clipping there; so large a norm is none here")
