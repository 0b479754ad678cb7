"""Every command of the table of addresses on a real S3 server: one line on paths and on addresses gives the same files, and every mistake is told in words."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("moto", reason="moto[server] is a development dependency")
pytest.importorskip("s3fs", reason="s3fs is the extra [s3]")

from darkroom import places
from darkroom.cli.addresses import INNER, USES, _found, _values
from darkroom.cli.main import app, run
from support import elsewhere, s3

CACHE = "cache-of-every-command"


class Case(NamedTuple):
    """A command line with names of the world in braces; {o} is not there yet."""

    line: str
    differ: str = ""
    """Patterns of files that hold a time or a place."""


CASES = (
    Case("collect {cats} --to {o}", "*.parquet *.jsonl"),
    Case("collect {table}/own.csv --to {o}", "*.parquet *.jsonl"),
    Case("screen {cats} --smallest 32 --like {held}/crying-cat.png", "*.parquet"),
    Case("caption {cats} --with template --set template='a cat' --sidecars", "*.parquet"),
    Case("dataset prepare {cats} --held-out 1 --masks {masks}", "*.parquet"),
    Case("dataset show {cats} --base {base} --html {o}/page.html", "*.html"),
    Case("dataset encode {cats} --recipe demo --subject 'TOK cat' --base pocket", "*.parquet"),
    Case("dataset shards {cats} --to {o} --per-shard 2", "*.parquet"),
    Case("dataset unpack {shards} --to {o}", "*.parquet"),
    Case("dataset unpack {shards}/train-000000.tar --to {o}", "*.parquet"),
    Case("train {few.toml} --images {cats} --base {base} --out {o}", "*facts.json *log.jsonl *recipe.toml *.png"),
    Case("runs {run}"),
    Case("runs show {run}"),
    Case("runs show {run} --out {o}"),
    Case(
        "pick {run} --held-out {held} --scorer {scorer} --prompt 'a {} at sea' --prompt 'a {} in a hat' --prompt 'two {}' --set steps=1 --set drift=false",
        "*/pick.json */pick.toml */pick.html */losses.json",
    ),
    Case(
        "trial --adapter {worn.safetensors}:0.8 --scorer {scorer} --prompts {prompts.txt} --prompt 'a dog' --seeds 1"
        " --reference {held} --set steps=1 --out {o} --device cpu",
        "o/trial.* o/report.html",
    ),
    Case("trial {trial.toml} --out {o} --device cpu", "o/trial.* o/report.html trial.toml"),
    Case("tune-weights --trial {small.toml} --adapter {worn.safetensors}:0.5 --out {o} --device cpu", "*.json *.toml *.html"),
    Case("rate {trial} --rater ann --sheet {o}/sheet.html"),
    Case(
        "score {drawn} --reference {held} --training {cats} --beside {held} --base-pictures {held} --scorer {scorer}"
        " --device cpu", "*.json *.html *.parquet",
    ),
    Case("score {drawn} --prompts {prompts.txt} --metrics sharpness --out {o} --device cpu", "*.json *.html"),
    Case(
        "generate 'a toy' --adapter {worn.safetensors}:0.5 --embedding {toy.safetensors}"
        " --image {held}/crying-cat.png --mask {masks}/weary-cat.png --out {o} --steps 2",
    ),
    Case("generate --again {drawn}/0000-seed0.png"),
    Case("grid {grid.toml} --out {o}", "*.json"),
    Case("wrong --to {o} --words {words.txt} --scenes {scenes.txt} --per-word 1 --steps 1 --refiner none", "*.parquet"),
    Case("prompt 'a toy' --embedding {toy.safetensors}"),
    Case("adapter show {worn.safetensors} --base {base}"),
    Case("adapter convert {worn.safetensors} --to peft --sidecar 0.7"),
    Case("adapter convert {worn.safetensors} --to kohya --out {o}/x.safetensors --sidecar 0.7"),
    Case("adapter convert {toy.safetensors} --to diffusers --base pocket"),
    Case("adapter convert {toy.safetensors} --to kohya --bundle {worn.safetensors}"),
    Case("adapter merge {run}@2 {worn.safetensors}:-0.5 --into {base} --out {o}/merged"),
    Case("adapter extract {tuned.safetensors} pocket --rank 1 --out {o}/x.safetensors --config {base} --no-text-encoders"),
    Case("adapter resize {worn.safetensors} --rank 1"),
    Case("adapter resize {worn.safetensors} --rank 1 --out {o}/x.safetensors"),
    Case("adapter diff {worn.safetensors} {other.safetensors}"),
    Case("base show {tuned.safetensors}"),
    Case("base convert {tuned.safetensors} --to folder --out {o} --config {base} --vae {base}/vae", "*/darkroom.json"),
    Case("base merge {base} {base} --out {o}/m.safetensors"),
    Case("import kohya {kohya.json} --out {o}/r.toml", "*.toml"),
    Case("import diffusers {command.txt} --out {o}/r.toml", "*.toml"),
    Case("export {run} --to {o} --trial {trial}"),
    Case("recipes {small.toml}"),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    elsewhere.build(folder)
    yield folder
    for each in (folder, tmp_path_factory.getbasetemp() / CACHE):
        shutil.rmtree(each, ignore_errors=True)


@pytest.fixture(scope="module")
def gate(world: Path) -> Iterator[s3.Gate]:
    with s3.gated(elsewhere.BUCKET) as found:
        for name in (*elsewhere.SHARED, "worn.safetensors"):
            elsewhere.upload(world / name, f"shared/{name}")
        yield found


@pytest.fixture
def place(gate: s3.Gate, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, in an empty one of which commands are given."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path_factory.getbasetemp() / CACHE))
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    places._compared.clear()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield tmp_path
    gate.rules.clear()
    shutil.rmtree(tmp_path, ignore_errors=True)  # whole models are among it


def words(line: str, shared: str, own: str) -> tuple[list[str], set[str]]:
    """The words of a line with places for names, and the names of its own."""
    asked = set(re.findall(r"\{([\w.]+)\}", line))

    def put(found: re.Match[str]) -> str:
        return f"{shared if found[1] in elsewhere.SHARED else own}/{found[1]}"

    return [re.sub(r"\{([\w.]+)\}", put, word) for word in shlex.split(line)], asked - {*elsewhere.SHARED, "o"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line.partition(" --")[0])
def test_paths_and_addresses_give_the_same(case: Case, world: Path, place: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    key, own = f"case{CASES.index(case)}", place / "own"
    here, asked = words(case.line, str(world), str(own))
    there, _ = words(case.line, f"s3://{elsewhere.BUCKET}/shared", f"s3://{elsewhere.BUCKET}/{key}")
    for name in asked:
        elsewhere.lay(world / name, own / name, str(world))
        elsewhere.lay(world / name, place / "sent" / name, f"s3://{elsewhere.BUCKET}/shared")
        elsewhere.upload(place / "sent" / name, f"{key}/{name}")
    assert run(here) == 0, capsys.readouterr().err
    assert run(there) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert not list(Path().iterdir()), "left in the folder where the command was given"
    assert str(places.copy.root()) not in said.out + said.err
    mine, theirs = elsewhere.lie(own), elsewhere.stored(f"{key}/")
    assert set(theirs) == set(mine)
    assert not {name for name in elsewhere.differing(mine, theirs) if not any(fnmatch.fnmatch(name, pattern) for pattern in case.differ.split())}
    assert not [name for name, data in theirs.items() if str(places.copy.root()).encode() in elsewhere.open_text(name, data)], "a working copy is named there"


@pytest.mark.parametrize("name", USES)
def test_a_wrong_bucket_a_wrong_name_and_no_rights_are_told(name: str, gate: s3.Gate, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each parameter alone: what is wrong with its place comes before what else is missing on the line."""
    before, where = s3.keys(elsewhere.BUCKET), f"s3://{elsewhere.BUCKET}/none.safetensors"
    uses = {parameter: use for parameter, use in USES[name].items() if use.mode != "later"}
    for parameter, use in uses.items():
        match use.mode:
            case "here":
                assert "an address, and a folder of this machine" in _refused(name, parameter, where, capsys)
            case "write":
                gate.rules.append(lambda method, path: "refuse" if method == "PUT" else "")
                assert "may not be written: the store refused" in _refused(name, parameter, where, capsys)
                gate.rules.clear()
            case _:
                assert "there is nothing there" in _refused(name, parameter, where, capsys)
    if use.mode != "here":
        assert "there is no such bucket" in _refused(name, parameter, "s3://nowhere/x", capsys)
    assert not list(Path().iterdir())
    assert s3.keys(elsewhere.BUCKET) == before


def _refused(name: str, parameter: str, address: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of the address."""
    import typer.main

    command = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    given = next(param for param in command.params if param.name == parameter)
    # an argument that others stand before gets its place by theirs
    before = [param for param in command.params if param.param_type_name == "argument"]
    line = [given.opts[0], address] if given.param_type_name != "argument" else [*["pocket"] * before.index(given), address]
    assert run([*name.split(), *line]) == 2, f"{name} {line}"
    said = capsys.readouterr().err
    assert address in said and "Traceback" not in said, said
    return said


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("studio s3://machines/x --no-browser", "a folder of this machine is wanted"), ("generate cat --out s3:/machines/x", "an address has two slashes: s3://machines/x"),
        ("screen gs:/machines/x", "an address has two slashes"), ("train demo --images cats --out https://host/run", "is a page of the web"),
        ("screen s4://machines/x", '"s4://" is not known'), ("recipes none.toml", "cannot be read as text"),
        ("generate --again s3://machines/none.png", "s3://machines/none.png: "), ("collect s3://machines/none --to s3://machines/d", "there is nothing there"),
        ("adapter convert s3://machines/none.safetensors --to peft", "s3://machines/none.safetensors: "),
        ("score cats --engine s3://machines/x", "no such engine"),
    ],
)  # fmt: skip
def test_slips_are_told_and_make_no_folder(line: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said, said
    assert not list(Path().iterdir())


def test_a_grid_goes_on_elsewhere_under_the_same_names(world: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are named by what they are asked to be, addresses and all, not by where a machine keeps its copies."""
    elsewhere.upload(world / "held", "grid/held")
    elsewhere.upload(world / "worn.safetensors", "grid/worn.safetensors")
    at = f"s3://{elsewhere.BUCKET}/grid"
    line = ["grid", "a cat", "--adapter", f"{at}/worn.safetensors:0.5", "--axis", f"image={at}/held/crying-cat.png", "--steps", "2", "--out", f"{at}/o"]
    assert run(line) == 0
    before = {name: seen.tag for name, seen in places.listing(f"{at}/o/pictures").items()}
    monkeypatch.setenv("DARKROOM_CACHE", str(place / "another machine"))
    places._compared.clear()
    assert run(line) == 0
    assert {name: seen.tag for name, seen in places.listing(f"{at}/o/pictures").items()} == before
    assert len(before) == 1


def test_a_result_that_is_there_already_is_not_written_over(world: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere.upload(world / "worn.safetensors", "again/worn.safetensors")
    line = ["adapter", "convert", f"s3://{elsewhere.BUCKET}/again/worn.safetensors", "--to", "peft"]
    assert run(line) == 0
    capsys.readouterr()
    assert run(line) == 2
    assert f"s3://{elsewhere.BUCKET}/again/worn-peft.safetensors: is there already" in capsys.readouterr().err


def test_the_cases_give_every_parameter_of_the_table_an_address() -> None:
    """Those aside that want a model of their own kind: that they are brought near is shown above, and by the tests of what they name."""
    import typer.main

    given = {(name, parameter) for case in CASES for name, parameter in _given(case.line, typer.main.get_command(app))}
    wanted = {(name, parameter) for name, uses in USES.items() for parameter, use in uses.items() if use.mode not in ("later", "here")}
    assert wanted - given == {(name, parameter) for name, parameters in NOT_RUN.items() for parameter in parameters.split()}, (
        "give it an address in CASES, or say in NOT_RUN why not"
    )


OF_THE_BASE = "base config"
"""A base at an address is drawn with, learned on, shown, merged into and converted above: whoever opens it is one and the same."""
NOT_RUN = {
    "adapter convert": "base", "adapter diff": OF_THE_BASE, "adapter extract": "base", "adapter merge": OF_THE_BASE, "adapter resize": OF_THE_BASE,
    "caption": "config model settings",  # a captioner's own weights, a list of folders of sd-scripts'
    "dataset encode": "recipe", "generate": "adapters base control keep refiner tiny",  # a ControlNet, a refiner, a tiny autoencoder: read as a base is
    "demo": "out pictures",  # test_demo_by_address.py
    "grid": "adapter adapters arm axis base embedding refiner",  # as of generate; adapter and axis below
    "pick": "out", "prompt": "base", "rate": "answers", "resume": "run",  # test_run_elsewhere.py
    "score": "model", "trial": "base fill pilot", "wrong": "base refiner",
}  # fmt: skip


def _given(line: str, root: object) -> Iterator[tuple[str, str]]:
    name, command, start = _found(root, (words_of := words(line, "s3://b", "s3://b")[0]))
    for word in _values(command, words_of, start):
        if INNER.search(word.text):
            yield name, word.name
