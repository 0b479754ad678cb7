"""Every command takes addresses, at one seam: each parameter that may name a place is in its table, and help stays quick."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom import places
from darkroom.cli import addresses
from darkroom.cli.addresses import INNER, USES, _values
from darkroom.cli.main import app, run

# What these parameters take are words, numbers in words, names of the hub's: never a place. A new parameter goes here or into USES, on purpose.
WORDS = {
    "adapter convert": "to word", "adapter merge": "block dtype how", "adapter extract": "dtype", "adapter resize": "dtype", "base convert": "dtype to",
    "base merge": "block dtype how", "caption": "by device name prefix prompt subject suffix template trigger engine",
    "collect": "caption_column column licence_column prefix suffix engine", "dataset encode": "engine subject",
    "dataset prepare": "held_out", "dataset show": "crop",
    "export": "base_model license name push", "generate": "device language memory negative outpaint precision prompts sampler upscaler engine",
    "grid": "device language memory negative precision sampler title", "pick": "device prompt words", "prompt": "language text", "rate": "rater",
    "score": "device metrics trigger engine", "screen": "also keep reject settings undo without engine", "train": "subject",
    "trial": "device difference prompt world", "tune-weights": "device", "wrong": "caption device precision",
    "studio": "host token name",
}  # fmt: skip


def commands(name: str = "", command: Any = None) -> Iterator[tuple[str, Any]]:
    import typer.main

    command = command or typer.main.get_command(app)
    for inner, found in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {inner}".strip(), found)
    if not hasattr(command, "commands"):
        yield name, command


def hints(command: Any) -> dict[str, Any]:
    return typing.get_type_hints(command.callback.__wrapped__)


def takes(hint: Any, kind: type) -> bool:
    return hint is kind or any(takes(inner, kind) for inner in typing.get_args(hint))


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_parameter_that_may_name_a_place_is_in_the_table(name: str, command: Any) -> None:
    known, uses, words = hints(command), USES.get(name, {}), set(WORDS.get(name, "").split())
    assert set(uses) <= set(known), f"{name} has no such parameters"
    paths = {parameter for parameter, hint in known.items() if takes(hint, Path)}
    texts = {parameter for parameter, hint in known.items() if takes(hint, str)}
    assert paths <= set(uses), f"{name}: say in cli/addresses.USES what it does with these places"
    assert texts <= set(uses) | words, f"{name}: do these take a place? Into cli/addresses.USES, or into WORDS here"
    assert not set(uses) & words
    assert {word for use in uses.values() for word in use.unless.split()} <= set(known)


def test_the_table_has_no_command_too_many() -> None:
    assert set(USES) <= {name for name, _ in commands()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("generate cat --adapter=s3://b/x:0.8 dog --out s3://b/o", [("prompts", "cat"), ("adapter", "s3://b/x:0.8"), ("prompts", "dog"), ("out", "s3://b/o")]),
        ("generate -- --adapter x", [("prompts", "--adapter"), ("prompts", "x")]),
        ("wrong --guidance 8 13 --to s3://b/w", [("guidance", "8"), ("guidance", "13"), ("to", "s3://b/w")]),
        ("adapter extract s3://b/t pocket --out o", [("tuned", "s3://b/t"), ("base", "pocket"), ("out", "o")]),
        ("collect --failures --to s3://b/d", [("failures", ""), ("to", "s3://b/d")]),
        ("runs s3://b/runs --json", [("folder", "s3://b/runs"), ("as_json", "")]),
        ("train demo --out", [("recipe", "demo")]),
        ("train demo --nothing s3://b", [("recipe", "demo"), ("recipe", "s3://b")]),
    ],
)  # fmt: skip
def test_values_are_read_as_the_parser_reads_them(line: str, expected: list[tuple[str, str]]) -> None:
    import typer.main

    words = line.split()
    _, command, start = addresses._found(typer.main.get_command(app), words)
    assert [(word.name, word.text) for word in _values(command, words, start)] == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s3://b/x.safetensors:0.8", ["s3://b/x.safetensors"]), ("s3://b/run@500", ["s3://b/run"]), ("s3://b/x:-0.5@unconditional", ["s3://b/x"]),
        ("negative=s3://b/run", ["s3://b/run"]), ("m.safetensors=s3://b/i.png,weight=0.8", ["s3://b/i.png"]), ("a: adapters=s3://b/x; seed=1", ["s3://b/x"]),
        ("gs://b/a,gs://b/c", ["gs://b/a", "gs://b/c"]), ("prompt=a|b", []), ("x:0.8", []), ("s3://b/x y", ["s3://b/x"]),
    ],
)  # fmt: skip
def test_addresses_within_words(text: str, found: list[str]) -> None:
    assert INNER.findall(text) == found


@pytest.fixture
def memory(memory: Any, own_cache: None) -> Any:
    return memory


def test_a_dataset_by_address(memory: Any, cats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """collect, screen, caption, show and shards: each reads what the one before pushed, and says addresses."""
    for picture in sorted(cats.iterdir())[:3]:
        memory.pipe_file(f"/raw/{picture.name}", picture.read_bytes())
    assert run(["collect", "memory://raw", "--to", "memory://cats"]) == 0
    assert {"/cats/manifest.parquet"} < set(memory.store)
    assert run(["screen", "memory://cats", "--smallest", "32"]) == 0
    assert run(["caption", "memory://cats", "--with", "template", "--set", "template=a photo of a cat", "--sidecars"]) == 0
    assert any(name.endswith(".txt") for name in memory.store)
    assert run(["dataset", "shards", "memory://cats", "--to", "memory://shards"]) == 0
    assert "/shards/shards.json" in memory.store
    capsys.readouterr()
    assert run(["dataset", "show", "memory://cats", "--base", "pocket", "--json", "--html", "memory://pages/cats.html"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)["html"] == "memory://pages/cats.html"
    assert str(places.near("memory://cats").parents[1]) not in told
    assert b"<html" in memory.cat_file("/pages/cats.html").lower()


def test_a_mistake_names_the_address(memory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["screen", "memory://none"]) == 2
    assert "darkroom: memory://none: there is no such folder" in capsys.readouterr().err
    assert run(["dataset", "show", "memory://none", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"].startswith("memory://none: there is nothing there")


def test_a_web_address_is_no_place(memory: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["collect", "https://example.invalid/cats.csv", "--to", str(tmp_path / "d")]) == 2
    assert "An address goes into a table" in capsys.readouterr().err


def test_help_and_plain_paths_import_nothing() -> None:
    code = (
        "import sys\nfrom darkroom.cli.main import run\nrun(['--help'])\nrun(['train', '--help', '--out', 's3://b/x'])\nrun(['screen', '/nowhere'])\n"
        "print(sorted({'fsspec', 's3fs', 'torch', 'filelock'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
