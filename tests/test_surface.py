"""What a user can hold on to: the public names and the options of the command line. And asking for help is quick."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import darkroom

HEAVY = ["torch", "diffusers", "transformers", "numpy"]

# A new option is a promise for years: add it here on purpose.
OPTIONS = {
    "": "--version",
    "collect": (
        "--caption-column --column --engine --failures --follow-links --jobs --json --licence-column --link --max-size --per-host "
        "--permanent --prefix --retries --retry --suffix --timeout --to --workers"
    ),
    "screen": ("--checks --defaults --engine --json --keep --largest --like --reject --set --show --smallest --undo --with --without --workers"),
    "caption": (
        "--again --batch --choose --device --dry-run --engine --from --json --model --name --no-choose --only-missing --prefix --prompt "
        "--set --sidecars --subject --suffix --template --trigger --with --workers"
    ),
    "dataset": "",
    "dataset show": "--base --batch-size --bucket-step --crop --enlarge --html --json --resolution",
    "dataset encode": "--base --engine --json --recipe --set --subject --workers",
    "dataset prepare": "--alpha --focus --held-out --json --masks --seed",
    "dataset shards": "--json --per-shard --to",
    "dataset unpack": "--json --to --whole",
    "train": "--base --check --images --json --out --processes --set --sidecar --stop-when-settled --subject",
    "resume": "--json --processes",
    "studio": "--browser --folder --host --name --no-browser --port --token",
    "generate": (
        "--adapter --adapters --again --base --batch --control --count --device --embedding --engine --guidance --height --image --json "
        "--keep --language --mask --memory --negative --out --outpaint --precision --previews --refiner --sampler --seed --set --steps "
        "--strength --tiny --upscale --upscaler --width --workers"
    ),
    "grid": (
        "--adapter --adapters --arm --axis --base --device --embedding --guidance --json --language --memory --negative --out --precision --refiner "
        "--sampler --seed --set --steps --title"
    ),
    "import": "",
    "import kohya": "--json --out",
    "import diffusers": "--json --out",
    "export": "--base-model --checkpoint --json --license --name --public --push --to --trial --weight",
    "adapter": "",
    "adapter show": "--base --json --no-norms --norms",
    "adapter merge": "--base --block --config --cumulative --dtype --energy --how --into --json --out --rank --ratio",
    "adapter extract": "--config --conv-rank --cumulative --dtype --energy --json --no-text-encoders --out --rank --ratio --text-encoders",
    "adapter resize": "--base --config --cumulative --dtype --energy --json --out --rank --ratio",
    "adapter diff": "--base --config --json",
    "base": "",
    "base show": "--json",
    "base convert": "--config --dtype --json --out --to --vae",
    "base merge": "--block --dtype --how --json --out --weight",
    "adapter convert": "--base --bundle --json --out --sidecar --to --unbundle --word",
    "prompt": "--base --embedding --json --language --steps",
    "trial": (
        "--adapter --base --device --difference --fill --json --out --pilot --pilot-prompts --plan --power --prompt --prompts --reference --scorer --seeds "
        "--set --world"
    ),
    "demo": "--json --out --pictures",
    "recipes": "--json --reference",
    "runs": "",
    "runs list": "--json",
    "runs show": "--json --out",
    "score": (
        "--base-pictures --batch --beside --device --engine --json --list --metrics --model --out --prompts --reference --scorer --training --trigger --workers"
    ),
    "pick": "--checkpoints --class --device --held-out --json --out --prompt --scorer --seeds --set",
    "tune-weights": "--adapter --budget --device --json --out --per-block --set --trial",
    "rate": "--answers --json --pairs --rater --seed --sheet",
    "wrong": ("--base --boost --caption --device --good --guidance --json --per-word --precision --refiner --scenes --seed --steps --to --words"),
}

PROBE = f"""
import contextlib, io, json, sys

def heavy():
    return sorted(set(sys.modules) & set({HEAVY!r}))

import darkroom
report = {{"after import": heavy(), "help": {{}}, "options": {{}}}}
from darkroom.cli.main import app, run
import typer.main
root = typer.main.get_command(app)
commands = {{"": root}}
for name, command in root.commands.items():
    commands[name] = command
    commands.update({{name + " " + inner: found for inner, found in getattr(command, "commands", {{}}).items()}})
for name, command in commands.items():
    words = io.StringIO()
    with contextlib.redirect_stdout(words):
        code = run([*name.split(), "--help"])
    report["help"][name] = {{"code": code, "heavy": heavy(), "text": words.getvalue()}}
    report["options"][name] = sorted(o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("-"))
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def probe() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_public_names_are_sorted_and_unique() -> None:
    assert darkroom.__all__ == sorted(set(darkroom.__all__))


@pytest.mark.parametrize("name", darkroom.__all__)
def test_every_public_name_is_there(name: str) -> None:
    found = getattr(darkroom, name)
    assert found is not None
    assert getattr(found, "__name__", name) == name, "the name leads to something else"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(darkroom.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(darkroom.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = darkroom.nothing_of_this_name


def test_importing_darkroom_costs_nothing(probe: dict[str, Any]) -> None:
    assert probe["after import"] == []


def test_help_costs_nothing(probe: dict[str, Any]) -> None:
    assert {name: page["heavy"] for name, page in probe["help"].items() if page["heavy"]} == {}


def test_every_command_explains_itself(probe: dict[str, Any]) -> None:
    for name, page in probe["help"].items():
        assert page["code"] == 0, name
        missing = [option for option in probe["options"][name] if option not in page["text"]]
        assert not missing, f"{name} --help says nothing of {missing}"


def test_options_are_frozen(probe: dict[str, Any]) -> None:
    assert probe["options"] == {name: options.split() for name, options in OPTIONS.items()}


def test_help_comes_at_once() -> None:
    """Below half a second of a processor; the best of five, because a busy machine is not our fault."""
    times = []
    for _ in range(5):
        start = used()
        done = subprocess.run([sys.executable, "-m", "darkroom", "train", "--help"], capture_output=True, text=True, timeout=300)
        times.append(used() - start)
        assert done.returncode == 0, done.stderr
        assert "--images" in done.stdout
        if times[-1] < 0.5:
            return
    pytest.fail(f"`darkroom train --help` took {min(times):.2f} s at best")


def used() -> float:
    """Seconds of a processor that the processes started from here have had."""
    times = os.times()
    return times.children_user + times.children_system
