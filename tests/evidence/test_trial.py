"""A trial goes on where it stopped, never mixes pictures of another model or adapter, and refuses what could show nothing."""

import pytest
from PIL import Image

from darkroom import pocket
from darkroom.errors import DatasetError
from darkroom.evidence.trial import Arm, Trial, compare, run_trial
from darkroom.sampling.request import read_request


@pytest.fixture
def trial():
    return Trial(
        arms=(Arm(name="base"), Arm(name="empty negative", negative="")), prompts=("a 3d cat", "a flat dog"), seeds=(1,), steps=2, metrics=("clip", "aesthetic")
    )


def times(out):
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in (out / "pictures").rglob("*.png")}


def test_goes_on_and_redraws_only_what_changed(trial, tmp_path):
    result = run_trial(trial, tmp_path, "cpu")
    before = times(tmp_path)
    assert len(before) == 4 and len(result["comparisons"]) == 2
    first, second = sorted(before)[:2]
    (tmp_path / first).unlink()
    (tmp_path / second).write_bytes((tmp_path / second).read_bytes()[:200])  # damaged
    run_trial(trial, tmp_path, "cpu")
    after = times(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {first, second}
    run_trial(trial.model_copy(update={"steps": 3}), tmp_path, "cpu")
    assert all(times(tmp_path)[name] != after[name] for name in after)


def test_arms_share_noise_and_differ_in_what_they_say(trial, tmp_path):
    run_trial(trial, tmp_path, "cpu")
    base, other = (read_request(tmp_path / "pictures" / arm / "000-seed1.png") for arm in ("base", "empty-negative"))
    assert base.model_copy(update={"negative": ""}) == other
    assert trial.arms[1].what(trial) == "pocket, as it is, negative encoded empty"


def test_a_held_out_picture_that_was_trained_on_is_refused(trial, tmp_path):
    for name in ("train", "held"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), "red").save(tmp_path / name / "a.png")
    leaky = trial.model_copy(update={"training": str(tmp_path / "train"), "reference": str(tmp_path / "held")})
    with pytest.raises(DatasetError, match="held-out pictures too"):
        run_trial(leaky, tmp_path / "out", "cpu")


def test_the_sentence_follows_the_interval(trial):
    metric = {"name": "clip", "unit": "points", "higher_is_better": True}

    def rows(differences):
        return [
            {"arm": arm.name, "prompt": prompt, "seed": 1, "scores": {"clip": 10.0 + (difference if arm.name != "base" else 0)}}
            for arm in trial.arms
            for prompt, difference in zip(trial.prompts, differences, strict=True)
        ]

    assert "is better" in compare(trial, rows([5.0, 5.1]), trial.arms[1], metric)["sentence"]
    assert "is worse" in compare(trial, rows([-5.0, -5.1]), trial.arms[1], metric)["sentence"]
    assert "no difference" in compare(trial, rows([-5.0, 5.1]), trial.arms[1], metric)["sentence"]


def test_the_demo_keeps_its_subject_apart():
    train, held = ({p.name for p in (pocket.CATS / name).glob("*.png")} for name in ("train", "held_out"))
    assert len(train) == 6 and len(held) == 3 and not train & held
