"""Figures and previews reach TensorBoard and wandb, each step once, whatever was killed; and neither can stop a training."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.errors import RecipeError
from darkroom.jobs.track import named, preview_name, tracking
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run
from darkroom.train.track import Track

BOTH = {"tensorboard": True, "wandb": "darkroom-test", "wandb_offline": True}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb's own process may come slowly on a busy machine."""
    monkeypatch.setenv("WANDB__SERVICE_WAIT", "300")
    monkeypatch.setattr("darkroom.jobs.track.PATIENCE", 300)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.from_tree({"data": {"images": "/home/anna/pictures", "subject": "TOK cat"}, "track": BOTH}, "test")


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        pass


def figures(step: int) -> dict[str, Any]:
    found = {"loss": 1 / step, "grad_norm": 0.5, "rate": 1e-4, "seconds": 0.25}
    return found | ({"validation": 2 / step} if step % 2 == 0 else {})


def preview(folder: Path, step: int) -> Path:
    path = folder / "previews" / f"{step:06d}_0.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (step, 0, 0)).save(path)
    return path


def train(recipe: Recipe, folder: Path, start: int, stop: int, watcher: Any = None, at_the_end: Callable[[], None] = lambda: None) -> None:
    """What the loop does, without learning."""
    run = Run(folder)
    with tracking(recipe, folder, start, watcher) as tracker:
        for step in range(start + 1, stop + 1):
            run.log({"step": step, **figures(step)})
            tracker.figures(step, figures(step))
            if step % 3 == 0:
                tracker.picture(step, preview_name(path := preview(folder, step)), path)
        at_the_end()


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_track
from darkroom.train.run import Run

folder = Path(sys.argv[1])
test_track.train(Run(folder).recipe, folder, 0, 7, at_the_end=lambda: os.kill(os.getpid(), 9))
"""


def on_board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve, as TensorBoard itself reads the files, nothing purged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=False)
    read.Reload()
    found = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    return found | {tag: [(event.step, 0.0) for event in read.Images(tag)] for tag in read.Tags()["images"]}


def records_of(file: Path) -> list[Any]:
    """Up to the run's end, which wandb's own process may write after this one has gone on."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    deadline = time.monotonic() + 120
    while True:
        store, found = DataStore(), list[Any]()
        with suppress(AssertionError, struct.error):  # half a record, or no header yet
            store.open_for_scan(str(file))
            while data := store.scan_data():
                found.append(wandb_internal_pb2.Record.FromString(data))
        if (found and found[-1].WhichOneof("record_type") == "exit") or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def at_wandb(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """Rows of the history, the config, and the ids of all offline runs in the folder, from wandb's own files."""
    rows, config, ids = [], {}, []
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for record in records_of(file):
            if record.WhichOneof("record_type") == "history":
                rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item})
            if record.WhichOneof("record_type") == "run":
                ids.append(record.run.run_id)
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
    return rows, config, ids


def check_whole(folder: Path, steps: int) -> None:
    """Both programs tell every step once, and the log's numbers."""
    board, (rows, _, ids) = on_board(folder), at_wandb(folder)
    wanted = list(range(1, steps + 1))
    assert [step for step, _ in board["train/loss"]] == wanted
    assert [value for _, value in board["train/loss"]] == pytest.approx([1 / step for step in wanted])
    assert [step for step, _ in board["held_out/loss"]] == [step for step in wanted if step % 2 == 0]
    assert board["speed/steps_per_second"][0][1] == pytest.approx(4)
    assert [step for step, _ in board["preview 0"]] == [step for step in wanted if step % 3 == 0]
    assert len(ids) == 1
    assert [row["_step"] for row in rows] == wanted
    assert [row["train/loss"] for row in rows] == pytest.approx([1 / step for step in wanted])
    assert [row["_step"] for row in rows if "preview 0/path" in row] == [step for step in wanted if step % 3 == 0]


def test_both_programs_get_everything(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", recipe, {})
    train(recipe, run.folder, 0, 7)
    check_whole(run.folder, 7)
    config = at_wandb(run.folder)[1]
    assert config["method"]["rank"] == 16 and config["data"]["subject"] == "TOK cat"
    assert "anna" not in json.dumps(config), "folders of this machine are sent nowhere"


def test_gone_on_after_a_kill_no_step_is_told_twice(recipe: Recipe, tmp_path: Path) -> None:
    """The process dies at step 7 without a word; the run goes on from its checkpoint at step 4, and neither program lacks or repeats a step."""
    run = Run.create(tmp_path / "run", recipe, {})
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # or it would use this process's own
    command = [sys.executable, "-c", KILLED, str(run.folder), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == -9, done.stderr
    kept = json.loads((run.folder / "track.json").read_text())["wandb"]
    run.forget_after(4)
    train(recipe, run.folder, 4, 9)
    check_whole(run.folder, 9)
    assert at_wandb(run.folder)[2] == [kept], "one run at wandb's"


def test_a_program_that_fails_is_told_of_once_and_stops_nothing(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from darkroom.jobs.track import Board

    run, heard = Run.create(tmp_path / "run", recipe, {}), Heard()

    def full(self: Board, step: int, values: dict[str, float]) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Board, "figures", full)
    train(recipe, run.folder, 0, 5, heard)
    assert heard.said == ["TensorBoard gets no more figures: No space left on device. The training goes on, and log.jsonl in the run folder has them all."]
    assert [row["_step"] for row in at_wandb(run.folder)[0]] == [1, 2, 3, 4, 5], "the other one goes on"


def test_a_program_that_cannot_start_stops_nothing(recipe: Recipe, tmp_path: Path) -> None:
    run, heard = Run.create(tmp_path / "run", recipe, {}), Heard()
    (run.folder / "tensorboard").write_text("a file where the folder should be")
    train(recipe.model_copy(update={"track": Track(tensorboard=True)}), run.folder, 0, 2, heard)
    assert len(heard.said) == 1 and heard.said[0].startswith("TensorBoard gets no more figures")


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    plain = Recipe()
    run = Run.create(tmp_path / "run", plain, {})
    train(plain, run.folder, 0, 2)
    assert sorted(path.name for path in run.folder.iterdir()) == ["facts.json", "log.jsonl", "recipe.toml"]


def test_only_the_first_process_tells(recipe: Recipe, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", recipe, {})
    with tracking(recipe, run.folder, 0, first=False) as tracker:
        tracker.figures(1, figures(1))
    assert not (run.folder / "tensorboard").exists() and not (run.folder / "wandb").exists()


@pytest.mark.parametrize(("key", "asked"), [("tensorboard", Track(tensorboard=True)), ("wandb", Track(wandb="p", wandb_offline=True))])
def test_a_missing_library_is_told_before_anything_is_trained(key: str, asked: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    asked.check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=rf'track.{key}: the package {key} is not installed.*pip install "sdxl-darkroom\[track\]"'):
        asked.check()
    Track().check()


def test_nobody_is_asked_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    with pytest.raises(RecipeError, match=r"nobody is logged in.*wandb_offline=true"):
        Track(wandb="p").check()
    Track(wandb="p", wandb_offline=True).check()
    monkeypatch.setenv("WANDB_MODE", "offline")
    Track(wandb="p").check()
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(RecipeError, match="WANDB_MODE"):
        Track(wandb="p").check()


def test_a_projects_name_is_one() -> None:
    with pytest.raises(RecipeError, match=r"track.wandb = 'a/b'"):
        Recipe.from_tree({"track": {"wandb": "a/b"}}, "test")


def test_names_of_figures() -> None:
    told = named({"step": 3, "loss": 1, "validation": 0.5, "seconds": 0.5, "peak": 7, "note": "text", "flag": True})
    assert told == {"train/loss": 1.0, "held_out/loss": 0.5, "speed/steps_per_second": 2.0, "train/peak": 7.0}
    assert preview_name(Path("previews/000100_1.png")) == "preview 1"
