"""A shell command line read without running it: continued lines, variables, accelerate's own flags, the script, its options."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

from darkroom.errors import RecipeError, did_you_mean
from darkroom.jobs.migrate.diffusers_options import DREAMBOOTH, LAUNCH, LAUNCH_ANYWAY, LAUNCH_WHY, SCRIPTS, TEXT_TO_IMAGE, TWINS
from darkroom.jobs.migrate.options import Option, read
from darkroom.jobs.migrate.report import SECRETS, VARIABLE, Row

ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass
class Command:
    """What a command line says: the script and its options, and of accelerate's own flags what matters."""

    script: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    precision: str = ""
    rows: list[Row] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)


def read_command(text: str) -> Command:
    """Raises RecipeError where it is no command line, or starts no script that can be imported."""
    found = Command()
    words = _filled(_words(text), found)
    place = next((index for index, word in enumerate(words) if word.endswith(".py")), None)
    if place is None:
        raise RecipeError(
            f'"{_short(text)}": names no script that ends in .py. Give the whole command: "accelerate launch train_dreambooth_lora_sdxl.py --...".'
        )
    found.script = re.split(r"[/\\]", words[place])[-1]
    _refuse_other_scripts(found.script)
    _launcher(words[:place], found)
    options = DREAMBOOTH if found.script == "train_dreambooth_lora_sdxl.py" else TEXT_TO_IMAGE
    for name, value in _pairs(words[place + 1 :], options, found.script, "--"):
        _keep(name, value, options, found)
    return found


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else f"{flat[:57]}..."


def _words(text: str) -> list[str]:
    """The words of the command in a text that may hold assignments before it, a notebook's "!", and comments."""
    joined = re.sub(r"[ \t]*[\\^`][ \t]*\r?\n[ \t]*", " ", text.strip())
    words: list[str] = []
    held = ""
    for line in joined.splitlines():
        line = line.strip().removeprefix("!").removeprefix("%env ").removeprefix("$ ").strip()
        if not held and line.startswith(("%%", "```", "cd ", "pip ")):
            continue
        try:
            words += shlex.split(f"{held}{line}", comments=True)
            held = ""
        except ValueError:  # a quotation that goes on in the next line
            held = f"{held}{line} "
    if held:
        raise RecipeError(f'"{_short(held)}": is no whole command line. A quotation mark is missing at one end.')
    if not words:
        raise RecipeError('the command line is empty. Give it whole: "accelerate launch train_dreambooth_lora_sdxl.py --...".')
    return words


def _filled(words: list[str], found: Command) -> list[str]:
    """The command's words, with the variables put in that were assigned before it."""
    known: dict[str, str] = {}
    script = next((index for index, word in enumerate(words) if word.endswith(".py")), len(words))
    rest = words[script:]
    before = [word for word in words[:script] if word != "export" and not ASSIGNMENT.fullmatch(word)]
    for index, word in enumerate(words[:script]):
        if match := ASSIGNMENT.fullmatch(word):
            name, value = match[1], _put_in(match[2], known)
            known[name] = value
            _assigned(name, value, words[index + 1 :], found)
    return [_put_in(word, known) for word in [*before, *rest]]


def _assigned(name: str, value: str, later: list[str], found: Command) -> None:
    secret = any(word in name.upper() for word in ("TOKEN", "KEY", "SECRET"))
    shown = "(hidden)" if secret else value
    if any(f"${name}" in word or f"${{{name}}}" in word for word in later):
        found.rows.append(Row(f"${name}", shown, "implied", "", "put in where the command uses it"))
    else:
        found.rows.append(Row(f"${name}", shown, "no_equal", "", "a variable of the environment; recipes read none"))


def _put_in(text: str, known: dict[str, str]) -> str:
    return VARIABLE.sub(lambda match: known.get(match[1] or match[2], match[0]), text)


def _refuse_other_scripts(script: str) -> None:
    if script in TWINS:
        raise RecipeError(f"{script}: is diffusers' script for Stable Diffusion 1.x and 2.x, and Darkroom trains SDXL alone. Its SDXL twin is {TWINS[script]}.")
    if re.search(r"flux|sd3|sana|lumina|hidream|qwen|z_image|kontext|krea|ideogram|wuerstchen|kandinsky|cascade", script):
        raise RecipeError(f"{script}: trains another family of models, and Darkroom trains SDXL alone.")
    if script.startswith(("sdxl_train", "train_network", "train_db", "fine_tune")):
        raise RecipeError(f"{script}: is a script of sd-scripts. Save its settings with --output_config, and give the .toml to `darkroom import kohya`.")
    if script not in SCRIPTS:
        known = [name for name, why in SCRIPTS.items() if not why]
        raise RecipeError(f"{script}: is no script that can be imported.{did_you_mean(script, SCRIPTS)} Those that can: {', '.join(known)}.")
    if SCRIPTS[script]:
        raise RecipeError(f"{script}: {SCRIPTS[script]}.")


def _launcher(words: list[str], found: Command) -> None:
    """accelerate's flags, or the words of python and torchrun."""
    plain = [word for word in words if not word.startswith("-")]
    if "launch" in plain:
        words = words[words.index("launch") + 1 :]
    else:
        words = [
            word for index, word in enumerate(words) if word.startswith("-") or (index and words[index - 1].startswith("--") and "=" not in words[index - 1])
        ]
    aliases = {"num_processes": "num_processes", "nproc_per_node": "num_processes", "nproc-per-node": "num_processes"}
    for name, value in _pairs(words, LAUNCH, "accelerate launch", "accelerate --"):
        shown, name = f"accelerate --{name}", aliases.get(name, name)
        hidden = "(hidden)" if name in SECRETS else value
        if name == "num_processes" and str(value).isdigit():
            found.processes = max(1, int(value))
            why = "in train.accumulate: one process takes the parts one after the other" if found.processes > 1 else "one process, as here"
            found.rows.append(Row(shown, value, "mapped" if found.processes > 1 else "implied", "train.accumulate" if found.processes > 1 else "", why))
        elif name == "mixed_precision" and value in ("no", "fp16", "bf16"):
            found.precision = str(value)
            found.rows.append(Row(shown, value, "mapped", "train.precision", "unless the script's own option says otherwise"))
        elif name in LAUNCH_ANYWAY or value in (False, None, "no", "1", 1):
            found.rows.append(Row(shown, hidden, "implied", "", "it says how processes are started, not what is learned"))
        elif name in LAUNCH:
            found.rows.append(Row(shown, hidden, "no_equal", "", LAUNCH_WHY.get(name, "one process on one device trains")))
        else:
            found.rows.append(Row(shown, value, "unknown", "", f"accelerate launch has no such flag, or none that is known here.{did_you_mean(name, LAUNCH)}"))


def _pairs(words: list[str], options: dict[str, Option], program: str, prefix: str) -> list[tuple[str, Any]]:
    """(name, value) of every option, as argparse would read them; one given twice with two values is refused."""
    found: dict[str, Any] = {}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-") or word == "-":
            raise RecipeError(f'{program}: "{word}" belongs to no option. A quotation mark or a "--" is missing before it.')
        name, equals, value = word.lstrip("-").partition("=")
        name = _whole_name(name, options)
        option = options.get(name)
        if option is not None and option.kind == "flag":
            told: Any = True if not equals else value
        elif equals:
            told = value
        elif index < len(words) and (not words[index].startswith("-") or re.fullmatch(r"-[\d.]+(e-?\d+)?", words[index])):
            told, index = words[index], index + 1
        elif option is not None:
            raise RecipeError(f"{prefix}{name}: has no value behind it. Write {prefix}{name}=VALUE.")
        else:
            told = None  # unknown there: whether it wants a value cannot be known
        if name in found and found[name] != told:
            raise RecipeError(f"{prefix}{name}: is given twice, as {found[name]!r} and as {told!r}. Keep the one that is meant.")
        found[name] = told
    return list(found.items())


def _whole_name(name: str, options: dict[str, Option]) -> str:
    """argparse takes the beginning of an option's name for the whole where it is the beginning of one alone."""
    longer = [known for known in options if known.startswith(name)]
    return longer[0] if name not in options and len(longer) == 1 else name


def _keep(name: str, value: Any, options: dict[str, Option], found: Command) -> None:
    """Into `given`, or, where a number is a variable that nobody told, into the rows."""
    option = options.get(name)
    if option is None:
        found.given[name] = value
        return
    variable = isinstance(value, str) and VARIABLE.search(value)
    if variable and option.kind != "str":
        why = f"a variable of the shell whose value the command does not tell: that script's default is written down, {option.default!r}"
        found.rows.append(Row(f"--{name}", value, "no_equal", "", why))
        found.todo.append(f"--{name} is {value}: find out what that was, and set it in the recipe.")
        return
    found.given[name] = read(option, value, f"--{name}")
    if found.given[name] is None and option.kind != "flag":
        found.given[name] = "" if option.kind == "str" else option.default
