"""A sheet shows pairs and gives nothing away; its answers are taken in once, and only for the pictures that were looked at."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.errors import DarkroomError, RecipeError, RunError
from darkroom.evidence.answers import answers_file, read_answers
from darkroom.evidence.rating import open_session
from darkroom.evidence.rating_sheet import LOSSLESS, take_answers, write_sheet
from support.ratings import finished, prefers, rate_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finished(tmp_path)
    return tmp_path


def sheet(folder: Path, rater: str = "ann", pairs: int = 8) -> tuple[str, dict[str, Any]]:
    """The page, and the data in it."""
    write_sheet(open_session(folder, rater, pairs), folder / "sheet.html")
    html = (folder / "sheet.html").read_text("utf-8")
    data: dict[str, Any] = json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[0])
    return html, data


def filled(folder: Path, data: dict[str, Any], **changes: Any) -> Path:
    """The file that the page saves, the left one chosen throughout."""
    said = [{"pair": pair["pair"], "seal": pair["seal"], "answer": "left", "seconds": 2.5} for pair in data["pairs"]]
    file = folder / "answers.json"
    file.write_text(json.dumps({**data["sheet"], "answers": said, **changes}), encoding="utf-8")
    return file


def test_nothing_in_the_page_tells_arms_apart(folder: Path) -> None:
    html, data = sheet(folder)
    for word in ("plain", "base:", "adapter", "pictures/", "seed1", "likeness", "better?"):
        assert word not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html), word
    assert len(data["pairs"]) == 9 and data["sheet"] == {"darkroom_ratings": 1, "rater": "ann", "seed": 0, "pairs": 8}
    assert all(pair.keys() == {"pair", "seal", "prompt", "left", "right"} for pair in data["pairs"])


def test_the_pictures_are_the_pairs_own_without_metadata(folder: Path) -> None:
    session, (_, data) = open_session(folder, "ann", 8), sheet(folder)
    for pair, shown in zip(session.pairs, data["pairs"], strict=True):
        for file, side in zip(pair.files, ("left", "right"), strict=True):
            raw = base64.b64decode(shown[side]["uri"].removeprefix("data:image/png;base64,"))
            with Image.open(io.BytesIO(raw)) as image, Image.open(folder / file) as own:
                assert image.tobytes() == own.tobytes() and "darkroom" in own.info and not image.info
            assert b"adapter" not in raw and b"base" not in raw


def test_large_pictures_are_jpeg_without_metadata(folder: Path) -> None:
    pair = open_session(folder, "ann", 8).pairs[0]
    exif = Image.Exif()
    exif[0x010F] = "adapter"
    Image.effect_mandelbrot((LOSSLESS + 8, LOSSLESS), (-2, -1, 1, 1), 40).convert("RGB").save(folder / pair.files[0], exif=exif)
    _, data = sheet(folder)
    raw = base64.b64decode(data["pairs"][0]["left"]["uri"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(raw)) as image:
        assert image.format == "JPEG" and image.size == (LOSSLESS + 8, LOSSLESS) and not dict(image.getexif())
    assert b"adapter" not in raw


def test_the_page_loads_nothing_and_runs_only_its_own_script(folder: Path) -> None:
    html, _ = sheet(folder)
    script = html.rsplit("<script>", 1)[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert "http:" not in html and "https:" not in html and "<b>snow" not in html, "a prompt is no markup"
    assert not re.search(r"\son\w+=", html.split("<script")[0])


def test_answers_are_taken_in_once(folder: Path) -> None:
    _, data = sheet(folder)
    file, path = filled(folder, data), answers_file(folder, "ann")
    assert take_answers(folder, "ann", file) == {"new": 9, "changed": 0, "known": 0, "refused": []}
    whole = path.read_bytes()
    assert take_answers(folder, "ann", file) == {"new": 0, "changed": 0, "known": 9, "refused": []} and path.read_bytes() == whole
    session = open_session(folder, "ann", 8)
    assert [(said["left"], said["answer"], said["seconds"]) for said in read_answers(path).standing.values()] == [
        (pair.left, "left", 2.5) for pair in session.pairs
    ]
    with pytest.raises(RunError, match="answered all 9 pairs"):
        write_sheet(session, folder / "more.html")


def test_a_changed_mind_takes_the_old_answer_back(folder: Path) -> None:
    _, data = sheet(folder)
    take_answers(folder, "ann", filled(folder, data))
    path = answers_file(folder, "ann")
    whole = path.read_bytes()
    first = {"pair": data["pairs"][0]["pair"], "seal": data["pairs"][0]["seal"], "answer": "tie"}
    assert take_answers(folder, "ann", filled(folder, data, answers=[first])) == {"new": 0, "changed": 1, "known": 0, "refused": []}
    found = read_answers(path)
    assert path.read_bytes().startswith(whole) and found.undone == 1 and found.standing[first["pair"]]["answer"] == "tie" and len(found.standing) == 9


def test_a_sheet_goes_on_where_the_rater_stopped(folder: Path) -> None:
    rate_all(open_session(folder, "ann", 8), prefers("adapter-9"), 3)
    _, data = sheet(folder)
    assert len(data["pairs"]) == 6


def test_pictures_that_changed_since_are_refused(folder: Path) -> None:
    _, data = sheet(folder)
    file = filled(folder, data)
    pair = open_session(folder, "ann", 8).pairs[0]
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / pair.files[0])
    told = take_answers(folder, "ann", file)
    assert f"{pair.prompt}, seed {pair.seed}" in told["refused"] and told["new"] == 9 - len(told["refused"])
    assert pair.id not in read_answers(answers_file(folder, "ann")).standing


def test_where_all_changed_nothing_is_taken(folder: Path) -> None:
    _, data = sheet(folder)
    file = filled(folder, data)
    finished(folder, seeds=(1, 2, 3))
    for number, picture in enumerate(sorted((folder / "pictures").rglob("*.png"))):
        Image.new("RGB", (8, 8), (number, 2, 3)).save(picture)
    with pytest.raises(RunError, match="all its pairs were changed"):
        take_answers(folder, "ann", file)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rater": "bob"}, RunError, 'answers of "bob"'),
        ({"seed": 3}, RunError, "are not in"),
        ({"seed": "x"}, RecipeError, "seed"),
        ({"pairs": 0}, RecipeError, "at least 1"),
        ({"darkroom_ratings": 2}, RecipeError, "darkroom_ratings"),
        ({"answers": [{"pair": "beef", "seal": "x", "answer": "left"}]}, RunError, "another trial"),
        ({"answers": [{"pair": "beef", "seal": "x", "answer": "up"}]}, RecipeError, "answer"),
        ({"answers": [{"pair": "beef", "seal": "x", "answer": "left", "seconds": -1}]}, RecipeError, "seconds"),
        ({"answers": [{"pair": "beef", "seal": "x", "answr": "left"}]}, RecipeError, 'Did you mean "answer"'),
        ({"answers": 3}, RecipeError, "answers"),
        ({"arms": []}, RecipeError, "no key"),
    ],
)
def test_files_that_are_refused_whole(folder: Path, changes: dict[str, Any], error: type[DarkroomError], words: str) -> None:
    _, data = sheet(folder)
    with pytest.raises(error, match=words):
        take_answers(folder, "ann", filled(folder, data, **changes))
    assert not answers_file(folder, "ann").exists()


@pytest.mark.parametrize("text", ["", "[1]", "no json", "[" * 100_000, '{"a": NaN'])
def test_files_that_are_no_answers(folder: Path, text: str) -> None:
    file = folder / "answers.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="page saved"):
        take_answers(folder, "ann", file)
    with pytest.raises(RunError, match="cannot be read"):
        take_answers(folder, "ann", folder / "none.json")
