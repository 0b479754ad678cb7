"""`darkroom screen` at the command line: options reach the checks, standard output is JSON or words, mistakes are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from darkroom.cli.screen import screen_command
from darkroom.data.manifest import Manifest
from darkroom.errors import DatasetError, RecipeError

app = typer.Typer()
app.command("screen")(screen_command)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((120 + 3 * number, 120), Image.Resampling.NEAREST).save(place / f"{number}.jpg", quality=95, dpi=(72, 72))
    return place


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_options_reach_the_checks_and_hold_on(folder: Path) -> None:
    facts = json.loads(run(folder, "--smallest", 64, "--without", "dpi", "--json"))
    assert facts["kept"] == 4 and facts["checks"]["side"]["smallest"] == 64
    facts = json.loads(run(folder, "--keep", "[01].jpg", "--set", "aspect.most=1.001", "--json"))
    assert facts["reasons"] == {"aspect": 3} and facts["overruled"] == {"keep": 2, "reject": 0} and facts["kept"] == 2
    assert "dpi" in json.loads(run(folder, "--defaults", "--json"))["checks"]
    assert [row.overruled for row in Manifest.open(folder).rows] == ["keep", "keep", "", ""]


def test_words_for_a_person(folder: Path) -> None:
    told = run(folder, "--smallest", 64, "--show")
    assert "0 of 4 pictures kept" in told and "dpi" in told and "--without dpi" in told and "screening.html" in told
    assert (folder / "screening.html").is_file()


def test_the_checks_are_listed_without_a_dataset() -> None:
    assert "compression.jpeg=0.0625" in run("--checks")
    assert {one["check"] for one in json.loads(run("--checks", "--json"))["checks"]} >= {"side", "faces", "duplicate"}


def test_mistakes_are_told(folder: Path) -> None:
    with pytest.raises(RecipeError, match='Did you mean "dpi"'):
        run(folder, "--without", "dip")
    with pytest.raises(DatasetError, match="needs the folder"):
        run("--json")
