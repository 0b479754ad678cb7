"""A trial goes on where it stopped, never mixes pictures of another model or adapter, and what fails half-way costs itself alone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom import pocket
from darkroom.errors import AdapterError, DatasetError, RecipeError
from darkroom.evidence.trial import Arm, Trial, run_trial
from darkroom.metrics import METRICS
from darkroom.metrics.sharpness import Sharpness
from darkroom.sampling.request import Worn, read_request
from darkroom.sdxl.adapters.places import Catalogue
from darkroom.sdxl.model import SDXL
from support.adapters import chosen, made, saved


@pytest.fixture
def trial() -> Trial:
    """Three arms, the third of which changes nothing that anybody can see: twelve tiny pictures."""
    arms = (Arm(name="base"), Arm(name="empty negative", negative="", differs=("encoding",)))
    return Trial(arms=arms, prompts=("a 3d cat", "a flat dog"), seeds=(1, 2), steps=1, batch=2, metrics=("clip", "sharpness"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One trial that was run, to be copied."""
    yield tmp_path_factory.mktemp("trials") / "first"


@pytest.fixture
def out(trial: Trial, first: Path, tmp_path: Path) -> Path:
    """A folder of the trial's, as it is after a run."""
    if not first.exists():
        run_trial(trial, first, "cpu")
    return Path(shutil.copytree(first, tmp_path / "out"))


def times(out: Path) -> dict[str, int]:
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in (out / "pictures").rglob("*.png")}


def test_goes_on_and_redraws_only_what_changed(trial: Trial, out: Path) -> None:
    before, then = times(out), json.loads((out / "trial.json").read_text())
    assert len(before) == 8
    (out / "pictures/base/000-seed1.png").unlink()
    damaged = out / "pictures/empty-negative/001-seed2.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    result = run_trial(trial, out, "cpu")
    after = times(out)
    assert {name for name in after if after[name] != before[name]} == {"pictures/base/000-seed1.png", "pictures/empty-negative/001-seed2.png"}
    assert [row["scores"] for row in result["pictures"]] == [row["scores"] for row in then["pictures"]]
    run_trial(trial.model_copy(update={"steps": 2}), out, "cpu")
    assert all(times(out)[name] != after[name] for name in after)


def test_more_prompts_and_seeds_redraw_nothing(trial: Trial, out: Path) -> None:
    before = times(out)
    run_trial(trial.model_copy(update={"prompts": (*trial.prompts, "a small hat"), "seeds": (1, 2, 3), "batch": 2}), out, "cpu")
    after = times(out)
    assert len(after) == 18 and all(after[name] == before[name] for name in before)


def test_arms_share_noise_and_differ_in_what_they_say(trial: Trial, out: Path) -> None:
    base, other = (read_request(out / "pictures" / arm / "000-seed1.png") for arm in ("base", "empty-negative"))
    assert base.model_copy(update={"negative": ""}) == other and base.seed == trial.noise("a 3d cat", 1)
    assert base.seed != read_request(out / "pictures/base/001-seed1.png").seed
    result = json.loads((out / "trial.json").read_text())
    assert [arm["what"] for arm in result["arms"]] == ["pocket, as it is", "pocket, as it is, negative encoded empty"]
    assert result["contrasts"][0]["differs"] == ["encoding"] and "in one thing" in result["contrasts"][0]["difference"]
    assert result["faults"] == [] and result["receipt"]["seconds_drawing"] > 0


def test_tables_hold_every_picture_and_both_aggregations(trial: Trial, out: Path) -> None:
    with (out / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and set(rows[0]) == {"file", "arm", "prompt", "seed", "clip", "sharpness"}
    with (out / "summary.csv").open(encoding="utf-8") as file:
        found = [(row["name"], row["metric"], row["aggregation"]) for row in csv.DictReader(file)]
    assert len(found) == 8 and ("empty negative", "sharpness", "mean of prompts") in found and ("base", "clip", "pooled") in found


def test_a_held_out_picture_that_was_trained_on_is_refused(trial: Trial, tmp_path: Path) -> None:
    for name in ("train", "held"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / name / "a.png")
    leaky = trial.model_copy(update={"training": str(tmp_path / "train"), "reference": str(tmp_path / "held")})
    with pytest.raises(DatasetError, match="held-out pictures too"):
        run_trial(leaky, tmp_path / "out", "cpu")


@pytest.mark.parametrize(("metrics", "words"), [(("likenes",), 'Did you mean "likeness"'), (("likeness",), "--reference"), (("copying",), "copying")])
def test_a_metric_that_cannot_be_asked_is_refused_before_anything_is_drawn(metrics: tuple[str, ...], words: str, trial: Trial, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, DatasetError), match=words):
        run_trial(trial.model_copy(update={"metrics": metrics}), tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


class Failing(Sharpness):
    """Fails from the second call on, as a scorer does whose memory runs out."""

    calls = 0

    def __init__(self, given: Any) -> None:
        self.key = f"failing {id(self)}"

    def __call__(self, pictures: Any, prompts: Any) -> list[float]:
        type(self).calls += 1
        if type(self).calls > 1:
            raise RuntimeError("out of memory")
        return super().__call__(pictures, prompts)


def test_a_scorer_that_fails_half_way_costs_its_own_scores_alone(trial: Trial, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "sharpness", Failing)
    result = run_trial(trial, out, "cpu")
    clip, failed = result["comparisons"]
    assert clip["pairs"] == 4 and "cannot be compared" in failed["sentence"]
    assert [row["scores"]["sharpness"] is not None for row in result["pictures"]] == [True] * 4 + [False] * 4
    assert any("sharpness failed" in fault and "out of memory" in fault for fault in result["faults"])
    assert "out of memory" in (out / "report.html").read_text("utf-8")
    monkeypatch.undo()
    assert run_trial(trial, out, "cpu")["faults"] == []


def test_a_picture_that_is_gone_or_broken_costs_its_pair_alone(trial: Trial, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk loses them between drawing and scoring."""
    gone, broken = out / "pictures/base/000-seed1.png", out / "pictures/empty-negative/001-seed2.png"

    def lose(work: Any, *_: Any, **__: Any) -> None:
        gone.unlink(missing_ok=True)
        broken.write_bytes(broken.read_bytes()[:200])

    monkeypatch.setattr("darkroom.evidence.drawing.draw_files", lose)
    result = run_trial(trial, out, "cpu")
    assert [one["pairs"] for one in result["comparisons"]] == [2, 2]
    assert "are left out" in result["comparisons"][0]["notes"][0]
    assert any("000-seed1.png: there is no such file" in fault for fault in result["faults"]) and any("001-seed2.png" in fault for fault in result["faults"])
    assert "no picture" in (out / "report.html").read_text("utf-8") or "no such file" in (out / "report.html").read_text("utf-8")


def adapter(path: Path, model: SDXL, zero: bool = False) -> Worn:
    catalogue = Catalogue.of(model)
    found = made(catalogue, "LoRA", keys=[chosen(catalogue)[0].key])
    if zero:
        for change in found.changes.values():
            torch.nn.init.zeros_(change.up)  # type: ignore[attr-defined]
    return Worn(file=str(saved(path, found)))


def test_an_adapter_that_changes_nothing_is_said(trial: Trial, out: Path, model: SDXL, tmp_path: Path) -> None:
    idle = Arm(name="idle", adapters=(adapter(tmp_path / "idle.safetensors", model, zero=True),), differs=("adapters",))
    result = run_trial(trial.model_copy(update={"arms": (*trial.arms, idle)}), out, "cpu")
    notes = {one["arm"]: one["notes"] for one in result["comparisons"] if one["metric"] == "clip"}
    assert 'All 4 pictures of "idle" equal those of "base" to the last bit' in notes["idle"][0]
    assert not any("last bit" in note for note in notes["empty negative"])


def test_an_arm_that_cannot_be_drawn_does_not_cost_the_others(trial: Trial, out: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").write_bytes(b"this is no adapter")
    odd = Arm(name="odd", adapters=(Worn(file=str(tmp_path / "odd.safetensors")),))
    result = run_trial(trial.model_copy(update={"arms": (*trial.arms, odd)}), out, "cpu")
    clip = {one["arm"]: one for one in result["comparisons"] if one["metric"] == "clip"}
    assert clip["empty negative"]["pairs"] == 4 and "cannot be compared" in clip["odd"]["sentence"]
    assert any('arm "odd"' in fault and "not drawn" in fault and "odd.safetensors" in fault for fault in result["faults"])
    assert (out / "grid.png").is_file() and "odd.safetensors" in (out / "report.html").read_text("utf-8")
    with pytest.raises(AdapterError, match=r"odd\.safetensors"):  # nothing is left to compare
        run_trial(trial.model_copy(update={"arms": (trial.arms[0], odd)}), out, "cpu")


def test_the_demo_keeps_its_subject_apart() -> None:
    train, held = ({p.name for p in (pocket.CATS / name).glob("*.png")} for name in ("train", "held_out"))
    assert len(train) == 6 and len(held) == 3 and not train & held
