"""A trial goes on where it stopped, never mixes pictures of another model or adapter, and refuses what could show nothing."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from darkroom import pocket
from darkroom.errors import DatasetError, RecipeError
from darkroom.evidence.trial import Arm, Trial, compare, compare_all, run_trial
from darkroom.files import finite
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


CLIP = {"name": "clip", "question": "Does it show what the prompt says?", "unit": "points", "higher_is_better": True}
FAULTS = {"name": "faults", "question": "Is it clean?", "unit": "faults", "higher_is_better": False}


def wide(arms=2, **changes):
    """A trial of eight prompts x six seeds and its rows: in clip and faults alike, arm i gains i - 1 on average."""
    more = tuple(Arm(name=f"arm {i}", guidance=i) for i in range(1, arms))
    trial = Trial(
        arms=(Arm(name="base"), *more), prompts=tuple(f"a cat on {i} hats" for i in range(8)), seeds=tuple(range(1, 7)), metrics=("clip", "faults"), **changes
    )
    rng = np.random.default_rng(3)
    rows = [
        {"arm": arm.name, "prompt": prompt, "seed": seed, "scores": dict.fromkeys(("clip", "faults"), 20.0 + max(0, i - 1) + 0.5 * rng.normal())}
        for i, arm in enumerate(trial.arms)
        for prompt in trial.prompts
        for seed in trial.seeds
    ]
    return trial, rows


def test_all_comparisons_are_judged_together():
    trial, rows = wide(arms=4)
    found = compare_all(trial, rows, trial.arms[1:], [CLIP, FAULTS])
    assert [(one["arm"], one["metric"]) for one in found] == [(f"arm {i}", name) for name in ("clip", "faults") for i in (1, 2, 3)]
    assert [one["verdict"] for one in found] == ["unclear", "better", "better", "unclear", "worse", "worse"]
    assert all(one["comparisons"] == 6 and one["p_corrected"] >= one["p"] for one in found)
    assert max(one["p_corrected"] / one["p"] for one in found) == pytest.approx(6)
    alone = compare(trial, rows, trial.arms[2], CLIP)
    assert alone["p_corrected"] == alone["p"] == found[1]["p"]


def test_a_comparison_says_its_sizes_and_what_it_would_take():
    trial, rows = wide(arms=3)
    unseen, seen, _, fewer = compare_all(trial, rows, trial.arms[1:], [CLIP, FAULTS])
    assert seen["wins"][0] > 0.8 and fewer["wins"] == pytest.approx([1 - seen["wins"][0], 1 - seen["wins"][2], 1 - seen["wins"][1]])
    assert seen["g"][1] < seen["g"][0] < seen["g"][2] and seen["bootstrap"][0] < seen["mean"] < seen["bootstrap"][1]
    assert seen["arm_mean"] - seen["baseline_mean"] == pytest.approx(seen["mean"])
    assert "it would take about" in unseen["sentence"] and unseen["plan"]["alternatives"][0]["pictures"] == 3 * unseen["plan"]["alternatives"][0]["pairs"]
    json.dumps(finite([unseen, seen]), allow_nan=False)


def test_equivalence_is_for_those_who_state_a_margin():
    trial, rows = wide(margins={"clip": 1.0})
    clip, faults = compare_all(trial, rows, trial.arms[1:], [CLIP, FAULTS])
    assert clip["verdict"] == "equivalent" and clip["margin"] == 1.0 and clip["p_equivalence"] < 0.05
    assert faults["verdict"] == "unclear" and faults["margin"] is None
    assert Trial.from_tree(json.loads(trial.model_dump_json()), "x") == trial


@pytest.mark.parametrize(
    ("margins", "words"), [({"clpi": 1.0}, '"clpi" is not among the metrics'), ({"clip": 0.0}, "above 0"), ({"clip": math.inf}, "above 0")]
)
def test_a_margin_that_makes_no_sense_is_refused(margins, words):
    with pytest.raises(RecipeError, match=words):
        Trial.from_tree(json.loads(wide()[0].model_dump_json()) | {"margins": margins}, "x")


def test_one_score_that_is_no_number_costs_one_pair_and_is_said():
    trial, rows = wide()
    rows[-1]["scores"] = {"clip": math.nan}
    clip, faults = compare_all(trial, rows, trial.arms[1:], [CLIP, FAULTS])
    assert clip["pairs"] == faults["pairs"] == 47 and math.isfinite(clip["arm_mean"])
    assert 'no score in "arm 1" for prompt "a cat on 7 hats", seed 6' in clip["notes"][0]


def test_a_metric_that_failed_does_not_cost_the_others():
    trial, rows = wide(arms=3)
    for row in rows:
        if row["arm"] == "arm 1":
            row["scores"] = row["scores"] | {"faults": None}
    found = compare_all(trial, rows, trial.arms[1:], [CLIP, FAULTS])
    assert [one["verdict"] for one in found] == ["unclear", "better", "unclear", "worse"]
    assert 'faults: "arm 1" cannot be compared with "base": no pair has a score in both arms' in found[2]["sentence"] and found[2]["pairs"] == 0
    assert found[0]["comparisons"] == 3, "what was not asked is not corrected for"


def test_the_demo_keeps_its_subject_apart():
    train, held = ({p.name for p in (pocket.CATS / name).glob("*.png")} for name in ("train", "held_out"))
    assert len(train) == 6 and len(held) == 3 and not train & held
