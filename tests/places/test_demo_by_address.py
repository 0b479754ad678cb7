"""The whole demo from and to s3://, on a real S3 server on loopback: the store's listing is a local demo's, and so are its bytes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="moto[server] is a development dependency")
pytest.importorskip("s3fs", reason="s3fs is the extra [s3]")

from darkroom import places, pocket
from darkroom.cli.main import run
from support import s3

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture(scope="module", autouse=True)
def served() -> Iterator[None]:
    with s3.s3_server("machines"):
        for file in pocket.CATS.rglob("*"):
            if file.is_file():
                s3.client().upload_file(str(file), "machines", f"all/{file.relative_to(pocket.CATS).as_posix()}")
        yield


def body(key: str) -> bytes:
    return s3.body("machines", key)


def _demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo in small: as long as its parts, not as its promise."""
    from darkroom.evidence import demo
    from darkroom.train.recipe import load_recipe

    few = ("train.length=4 steps", "train.save_every=2 steps", "preview.every=4 steps", "preview.steps=2", "device=cpu")
    monkeypatch.setattr(demo, "load_recipe", lambda name, data: load_recipe(name, few, data=data))
    monkeypatch.setattr(demo, "PROMPTS", demo.PROMPTS[:2])
    monkeypatch.setattr(demo, "SEEDS", (1, 2))
    monkeypatch.setattr(demo, "Trial", functools.partial(demo.Trial, steps=3))


def _compared(folder: Path) -> None:
    """The store's listing is the local demo's; bytes are equal where nothing of time or place is in them."""
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(s3.keys("machines", "demo/")) == set(here)
    other = {name for name in here if body(f"demo/{name}") != here[name]}
    timed = {"run/facts.json", "run/log.jsonl", "run/recipe.toml", "trial/trial.json", "trial/trial.toml", "trial/report.html"}
    drawn = {name for name in other if name.startswith("trial/pictures/adapter/")}  # they name the adapter's place
    assert other <= timed | drawn, "these differ and should not"
    assert {"run/adapter.safetensors", "trial/scores.csv", "trial/summary.csv", "trial/grid.png"} <= set(here) - other
    _same_pictures(folder, drawn)
    assert not [name for name in here if str(places.copy.root()).encode() in body(f"demo/{name}")], "a working copy is named in what was pushed"


def _same_pictures(folder: Path, names: set[str]) -> None:
    import io

    from PIL import Image

    for name in names:
        with Image.open(folder / name) as mine, Image.open(io.BytesIO(body(f"demo/{name}"))) as theirs:
            assert mine.tobytes() == theirs.tobytes(), name


def _by_address(machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--pictures", "s3://machines/all", "--out", "s3://machines/demo"]) == 0
    assert "report  s3://machines/demo/trial/report.html" in capsys.readouterr().out
    machine("b")
    assert run(["demo", "--out", "local"]) == 0
    _compared(Path("local"))


def test_the_demo_from_and_to_s3_in_small(machine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _demo(monkeypatch)
    _by_address(machine, capsys)


@pytest.mark.slow
def test_the_demo_from_and_to_s3(machine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _by_address(machine, capsys)
