"""Photos to report through the command line, on the pocket model, with few steps."""

import json

import pytest

from darkroom import pocket
from darkroom.cli.main import run


def ok(capsys, *arguments):
    code = run([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("journey")


def test_from_pictures_to_report(capsys, place):
    settings = ("--set", "train.length=4 steps", "--set", "preview.steps=2", "--set", "method.rank=2")
    done = ok(capsys, "train", "demo", "--images", pocket.CATS / "train", "--subject", "TOK cat", "--out", place / "run", *settings)
    assert done["steps"] == 4
    adapter = place / "run" / "adapter.safetensors"
    drawn = ok(
        capsys, "generate", "a photo of TOK cat", "a flat robot", "--adapter", f"{adapter}:0.8", "--steps", 3, "--count", 2, "--seed", 7, "--out", place / "o"
    )
    assert len(drawn["pictures"]) == 4
    same = ok(capsys, "generate", "--again", drawn["pictures"][3], "--out", place / "again")
    assert same["same_bytes"] is True
    trial = ok(
        capsys, "trial", "--adapter", adapter, "--prompt", "a TOK cat", "--prompt", "TOK cat on a red background", "--seeds", 2, "--out", place / "trial",
        "--reference", pocket.CATS / "held_out", "--set", "steps=2",
    )  # fmt: skip
    assert {row["metric"] for row in trial["comparisons"]} == {"likeness", "clip", "aesthetic"}
    report = (place / "trial" / "report.html").read_text()
    assert (place / "trial" / "grid.png").is_file()
    assert report.count("data:image/png;base64,") >= 8 and "<script>" not in report
    times = {path: path.stat().st_mtime_ns for path in (place / "trial" / "pictures").rglob("*.png")}
    ok(capsys, "trial", place / "trial" / "trial.toml", "--out", place / "trial")  # goes on where it was: nothing is drawn twice
    assert times == {path: path.stat().st_mtime_ns for path in (place / "trial" / "pictures").rglob("*.png")}


def test_check_shows_everything_and_trains_nothing(capsys, place, cats):
    found = ok(capsys, "train", "dreambooth", "--images", cats, "--subject", "TOK cat", "--check", "--out", place / "none")
    facts = found["preflight"]
    assert facts["steps"] == 500 and facts["pictures"] == 6 and facts["buckets"][0]["batches"] == [4, 2]
    assert {row["caption"] for row in facts["captions"]} == {"a photo of TOK cat"}
    assert facts["memory_mib"]["total"] > facts["memory_mib"]["model"] > 10
    assert not (place / "none").exists()


def test_a_preview_is_what_generate_draws(capsys, place):
    """The last preview and `generate` with the final adapter: the same picture, byte for byte."""
    from PIL import Image

    preview = place / "run" / "previews" / "000004_0.png"
    drawn = ok(capsys, "generate", "a photo of TOK cat", "--adapter", place / "run" / "adapter.safetensors", "--steps", 2, "--out", place / "p")["pictures"][0]
    assert Image.open(preview).tobytes() == Image.open(drawn).tobytes()


def test_recipes_are_listed_and_printed(capsys):
    assert {"dreambooth", "demo"} <= ok(capsys, "recipes")["recipes"].keys()
    assert "rank = 16" in ok(capsys, "recipes", "dreambooth")["toml"]


@pytest.mark.parametrize("folder", ["dog", "cat2"])
def test_real_photos(capsys, place, shared, folder):
    """Phone photos (JPEG, some MPO) of shared/assets at 64 px run through."""
    done = ok(
        capsys, "train", "dreambooth", "--images", shared / "assets" / "dreambooth" / folder, "--subject", "sks dog", "--out", place / folder,
        "--set", "train.length=2 steps", "--set", "preview.steps=2",
    )  # fmt: skip
    assert (place / folder / "adapter.safetensors").is_file() and done["steps"] == 2
