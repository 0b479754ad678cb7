"""What is looked at while sd-scripts trains: pictures drawn meanwhile, and the loss on pictures held out."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.report import Ledger

SAMPLE_FLAGS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "scale", "s": "steps", "g": "guidance", "ss": "sampler", "cn": "control",
                "ctr": "cfg_trunc", "rcfg": "renorm_cfg", "fs": "flow_shift"}  # fmt: skip


def previews(ledger: Ledger, repeats: int) -> None:
    """sample_prompts and how often. sd-scripts draws nothing without an interval; an interval in epochs counts before one in steps."""
    said = ledger["sample_prompts"]
    every = {"sample_every_n_epochs": "epochs", "sample_every_n_steps": "steps"}
    chosen = next((key for key in every if ledger[key]), None)
    if not said or chosen is None:
        for key in ("sample_prompts", *every, "sample_sampler"):
            ledger.imply(key, "nothing is drawn there" if not said else "without an interval nothing is drawn there")
        return
    for key, unit in every.items():
        count = ledger[key]
        if key == chosen:
            ledger.map(key, "preview.every", f"{count * repeats if unit == 'epochs' else count} {unit}")
        else:
            ledger.imply(key, f"{chosen} counts before it" if count else "0: not set")
    if str(ledger["sample_sampler"]) in ("euler", "k_euler"):
        ledger.imply("sample_sampler", "previews are drawn with Euler")
    else:
        ledger.lack("sample_sampler", "previews are drawn with Euler")
    ledger.put("preview.steps", 30)  # sd-scripts' own where a prompt says nothing
    ledger.put("preview.guidance", 7.5)
    _prompts(ledger, said)


def validation(ledger: Ledger, repeats: int) -> None:
    """validation_split and how often it is measured: at steps, else at every epoch or so many."""
    every = {"validate_every_n_steps": "steps", "validate_every_n_epochs": "epochs"}
    share, seed = float(ledger["validation_split"]), ledger["validation_seed"]
    if not share:
        for key in ("validation_split", "validation_seed", "max_validation_steps", *every):
            ledger.imply(key, "nothing is held out there")
        return
    ledger.lack("validation_split", "a dataset says which of its pictures are held out, not a recipe: `darkroom dataset prepare --held-out`")
    ledger.lack("validation_seed", "it goes into `darkroom dataset prepare --seed`, and draws other pictures than there")
    ledger.lack("max_validation_steps", "all that is held out is measured, at validation.draws timesteps each")
    drawn = f" --seed {seed}" if seed else ""
    ledger.todo.append(f"Hold pictures out: `darkroom dataset prepare {ledger.recipe['data']['images'] or 'FOLDER'} --held-out {share:g}{drawn}`.")
    chosen = next((key for key in every if ledger[key]), "validate_every_n_epochs")
    for key, unit in every.items():
        if key == chosen:
            ledger.map(key, "validation.every", f"{(ledger[key] or 1) * (repeats if unit == 'epochs' else 1)} {unit}")
        elif ledger[key]:
            ledger.lack(key, f"one interval counts: {chosen}")
        else:
            ledger.imply(key, "0: not set")


def _prompts(ledger: Ledger, said: Any) -> None:
    rows = _prompt_rows(said)
    if rows is None:
        ledger.lack("sample_prompts", "that file is not on this machine: the caption is drawn")
        ledger.todo.append(f"{said} was not found: set preview.prompts.")
        return
    prompts = [str(row.get("prompt", "")) for row in rows]
    ledger.map("sample_prompts", "preview.prompts", prompts, "drawn in the model's own size")
    first = rows[0] if rows else {}
    shared = {"steps": ("preview.steps", 30), "scale": ("preview.guidance", 7.5)}
    for number, row in enumerate(rows, 1):
        for flag, value in row.items():
            shown = f"{ledger.shown('sample_prompts')} {number} {flag}"
            if flag == "prompt":
                continue
            if flag == "seed":
                _seed(ledger, shown, int(float(value)), number, first)
            elif flag in shared and number == 1 and convert.numbers(value):
                target, kind = shared[flag][0], type(shared[flag][1])
                ledger.put(target, kind(float(value)))
                ledger.note(shown, value, "mapped", f"{target} = {value}")
            elif flag in shared and first.get(flag) == value:
                ledger.note(shown, value, "implied", why="as for the first prompt")
            elif flag in shared:
                ledger.note(shown, value, "no_equal", why="all previews are drawn alike: as the first")
            else:
                ledger.note(shown, value, "no_equal", why="a preview has a prompt alone; draw others with `darkroom generate`")


def _seed(ledger: Ledger, shown: str, value: int, number: int, first: dict[str, Any]) -> None:
    if number == 1:
        ledger.put("preview.seed", value)
        ledger.note(shown, value, "mapped", f"preview.seed = {value}")
    elif convert.numbers(first.get("seed", 0)) == [value - number + 1]:
        ledger.note(shown, value, "implied", why="seeds are counted up from the first prompt's, as here")
    else:
        ledger.note(shown, value, "no_equal", why="seeds are counted up from the first prompt's")


def _prompt_rows(said: Any) -> list[dict[str, Any]] | None:
    """The prompts as dictionaries, from a file of sd-scripts or from the form's text; None where a file is not here."""
    if isinstance(said, list):
        return [row if isinstance(row, dict) else {"prompt": str(row)} for row in said]
    text = str(said)
    if not re.search(r"\.(txt|toml|json)\s*$", text) or "\n" in text.strip():
        return _lines(text)
    path = Path(text.strip())
    try:
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".toml":
            table = tomllib.loads(content)["prompt"]
            return [{**{key: value for key, value in table.items() if key != "subset"}, **subset} for subset in table["subset"]]
        return _lines(content) if path.suffix == ".txt" else [row if isinstance(row, dict) else _line(row) for row in json.loads(content)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: is no file of sample prompts that sd-scripts could read ({error}).") from None


def _lines(text: str) -> list[dict[str, Any]]:
    return [_line(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _line(line: str) -> dict[str, Any]:
    prompt, *flags = line.strip().split(" --")
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for flag in flags:
        name, _, value = flag.strip().partition(" ")
        found[SAMPLE_FLAGS.get(name.lower(), f"--{name}")] = value.strip()
    return found
