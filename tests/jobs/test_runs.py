"""`darkroom runs`: every run below a folder with what came of it, broken ones with the reason; and one of them in pictures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.cli.main import run as command
from darkroom.errors import OutputError, RunError
from darkroom.jobs.curve import draw_losses, show_run, smoothed, spread
from darkroom.jobs.runs import check_new, list_runs, look, readable
from darkroom.jobs.train import resume_training, run_training
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real training of four steps, with held-out pictures and previews at 0, 2 and 4."""
    from darkroom import pocket

    settings = (
        "train.length=4 steps", "train.save_every=2 steps", "preview.every=2 steps", "preview.steps=2", "device=cpu", "method.rank=2", "data.batch_size=2",
        f'validation.pictures="{pocket.CATS / "held_out"}"', "validation.every=2 steps", "validation.draws=1", "data.resolution=32",
    )  # fmt: skip
    recipe = load_recipe("demo", settings, data={"images": str(pocket.CATS / "train"), "subject": "TOK cat"})
    return run_training(recipe, tmp_path_factory.mktemp("runs") / "cat-001")


def before_its_end(finished: Run, folder: Path, checkpoint: int, log: int) -> Path:
    """The same run as it was after `log` steps, with checkpoints up to `checkpoint`."""
    shutil.copytree(finished.folder, folder)
    (folder / "adapter.safetensors").unlink()
    for saved in Run(folder).checkpoints():
        if saved.step > checkpoint:
            shutil.rmtree(saved.folder)
    Run(folder).forget_after(log)
    return folder


def aged(folder: Path, seconds: float) -> None:
    for path in (folder / "log.jsonl", folder / "facts.json", folder / "recipe.toml"):
        if path.is_file():
            os.utime(path, (1_800_000_000 - seconds,) * 2)


@pytest.fixture
def shelf(finished: Run, tmp_path: Path) -> Path:
    """A run in each state, and things that are none."""
    root = tmp_path / "runs"
    shutil.copytree(finished.folder, root / "done" / "cat-001")
    before_its_end(finished, root / "stopped", 2, 2)
    before_its_end(finished, root / "killed", 2, 3)
    before_its_end(finished, root / "killed-early", 0, 1)
    before_its_end(finished, root / "new", 0, 0)
    for name in ("no-facts", "bad-facts", "bad-recipe", "cut-adapter", "cut-checkpoint", "odd-facts"):
        shutil.copytree(finished.folder, root / name)
    (root / "no-facts" / "facts.json").unlink()
    (root / "bad-facts" / "facts.json").write_text('{"preflight": {"pic')
    (root / "odd-facts" / "facts.json").write_text('{"preflight": []}')
    (root / "bad-recipe" / "recipe.toml").write_text('metod = "lora"\n')
    cut(root / "cut-adapter" / "adapter.safetensors")
    (root / "cut-checkpoint" / "adapter.safetensors").unlink()
    cut(root / "cut-checkpoint" / "steps" / "000004" / "state.safetensors")
    (root / "only-begun").mkdir()
    shutil.copy(finished.folder / "recipe.toml", root / "only-begun")
    (root / "mine").mkdir()
    (root / "mine" / "recipe.toml").write_text("")
    (root / "mine" / "letter.txt").write_text("dear")
    for seconds, folder in enumerate(sorted(path.parent for path in root.rglob("recipe.toml"))):
        aged(folder, seconds)
    return root


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def test_every_run_is_listed_with_its_state(shelf: Path, finished: Run) -> None:
    found = {run.name: run for run in list_runs(shelf)}
    assert {name: run.state for name, run in found.items()} == {
        "done/cat-001": "finished", "stopped": "stopped", "killed": "interrupted", "killed-early": "interrupted", "new": "not begun", "no-facts": "damaged",
        "bad-facts": "damaged", "bad-recipe": "damaged", "cut-adapter": "damaged", "cut-checkpoint": "damaged", "odd-facts": "damaged",
        "only-begun": "damaged",
    }  # fmt: skip
    done, log = found["done/cat-001"], finished.read_log()
    assert (done.method, done.pictures, done.done, done.total) == ("lora 2", 6, 4, 4)
    assert done.loss == pytest.approx(sum(row["loss"] for row in log if "loss" in row) / 4)
    assert (done.best, done.best_step) == min((row["validation"], row["step"]) for row in log if "validation" in row)
    assert done.size == (finished.folder / "adapter.safetensors").stat().st_size
    words = {name: run.words for name, run in found.items()}
    assert words["stopped"].startswith("stopped at step 2 of 4: can go on")
    assert words["killed"].startswith("interrupted at step 3 of 4: can go on from step 2")
    assert words["killed-early"].startswith("interrupted at step 1 of 4: can go on from the start")
    assert "facts.json is missing" in words["no-facts"] and "facts.json is no JSON" in words["bad-facts"]
    assert 'there is no key "metod". Did you mean "method"?' in words["bad-recipe"]
    assert "adapter.safetensors: is damaged" in words["cut-adapter"] and "steps/000004 is damaged" in words["cut-checkpoint"]


def test_what_it_says_of_a_stopped_run_is_true(finished: Run, tmp_path: Path) -> None:
    folder = before_its_end(finished, tmp_path / "run", 2, 3)
    assert "can go on from step 2" in look(folder).words and "still under way" in look(folder).words, "its log was written to just now"
    done = resume_training(folder)
    assert look(folder).state == "finished" and (folder / "adapter.safetensors").read_bytes() == (finished.folder / "adapter.safetensors").read_bytes()
    assert done.finished


def test_a_run_that_settled_says_where(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    facts = finished.facts
    (tmp_path / "run" / "facts.json").write_text(json.dumps(facts | {"result": facts["result"] | {"steps": 2}}))
    assert look(tmp_path / "run").words == "finished: settled at step 2 of 4" and look(finished.folder).words == "finished"


def test_newest_first(shelf: Path) -> None:
    changed = [run.changed for run in list_runs(shelf)]
    assert changed == sorted(changed, reverse=True) and len(set(changed)) == len(changed)


def test_a_folder_that_is_a_run_lists_itself(finished: Run) -> None:
    assert [run.name for run in list_runs(finished.folder)] == ["cat-001"]


def test_the_command(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["runs", str(shelf)]) == 0
    words = capsys.readouterr().out.splitlines()
    assert words[0].split() == ["run", "method", "pictures", "steps", "state", "loss", "held", "out", "size", "when"]
    assert any(line.startswith("done/cat-001") and "finished" in line for line in words)
    assert any(line.startswith("cut-adapter: ") for line in words), "the reason stands below"
    assert command(["runs", "list", str(shelf), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert len(found) == 12 and {"state", "loss", "best", "best_step", "size", "when", "folder"} <= found[0].keys()


def test_no_folder_and_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="no such folder"):
        list_runs(tmp_path / "nothing")
    assert command(["runs", str(tmp_path)]) == 0
    assert "There is no run in" in capsys.readouterr().out


def test_a_run_in_pictures(finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["runs", "show", str(finished.folder), "--out", str(tmp_path / "shown"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["pictures_made"]
    assert sorted(made) == ["loss", "previews"]
    with Image.open(made["previews"]) as strip:
        frame = np.asarray(Image.open(finished.folder / "previews" / "000004_0.png").convert("RGB").resize((160, 160), Image.Resampling.NEAREST))
        shown = np.asarray(strip.convert("RGB"))
    assert any(
        np.array_equal(shown[y : y + 160, x : x + 160], frame) for y in range(shown.shape[0] - 159) for x in range(shown.shape[1] - 159)
        if np.array_equal(shown[y, x], frame[0, 0]) and np.array_equal(shown[y, x : x + 160], frame[0])
    ), "the last preview is in the strip"  # fmt: skip
    with Image.open(made["loss"]) as curve:
        assert curve.width > 800 and len(curve.convert("RGB").getcolors(1 << 20)) > 50
    assert not (finished.folder / "shown").exists()


def test_a_damaged_run_is_shown_as_far_as_it_goes(shelf: Path) -> None:
    Path(shelf / "no-facts" / "previews" / "000002_0.png").write_bytes(b"no picture")
    told, made = show_run(shelf / "no-facts")
    assert told.state == "damaged" and sorted(made) == ["loss", "previews"] and all(path.is_file() for path in made.values())
    assert show_run(shelf / "only-begun")[1] == {}
    with pytest.raises(RunError, match="no run folder"):
        show_run(shelf)


def test_the_curve_is_the_log(tmp_path: Path) -> None:
    """Drawn twice the same; another loss, another picture."""
    rows: list[dict[str, Any]] = [{"step": step, "loss": 1 / step, "rate": 1e-4} for step in range(1, 20)]
    for name, drawn in (("a", rows), ("b", rows), ("c", [*rows[:-1], {"step": 19, "loss": 3.0, "rate": 1e-4}])):
        draw_losses(drawn, tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    assert smoothed([1.0, 0.0]) == [1.0, 0.95]
    assert spread(list(range(0, 101, 10)), 3) == [0, 50, 100] and spread([1, 2], 3) == [1, 2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("done/cat-001", r"this run is finished: 4 of 4 steps, .*adapter.safetensors.*--out .*cat-002"),
        ("stopped", r"stopped at step 2 of 4.*`darkroom resume .*stopped`"),
        ("killed", r"interrupted at step 3 of 4: can go on from step 2.*`darkroom resume .*killed`"),
        ("bad-facts", r"holds a run that is damaged: facts.json is no JSON"),
    ],
)
def test_a_training_into_a_run_says_what_is_there(shelf: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OutputError, match=words):
        check_new(shelf / name)
    before = sorted(path.name for path in (shelf / name).rglob("*"))
    assert command(["train", "demo", "--images", str(shelf), "--subject", "TOK cat", "--out", str(shelf / name)]) == 2
    assert capsys.readouterr().err.startswith(f"darkroom: {shelf / name}: ")
    assert sorted(path.name for path in (shelf / name).rglob("*")) == before
    check_new(shelf / "nothing there")


def test_sizes() -> None:
    assert [readable(size) for size in (812, 24_680, 114_294_784, 6_979_321_856)] == ["812 B", "24.1 KiB", "109.0 MiB", "6.5 GiB"]
