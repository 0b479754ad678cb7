"""A plan from a pilot draws nothing, and the trial that it plans sees what it promised to see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.cli.main import run
from darkroom.errors import RecipeError, RunError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.compare import compare_all
from darkroom.evidence.planning import Ask, parse_difference, plan_trial
from darkroom.evidence.planning_text import plan_lines
from darkroom.files import finite, write_json

METRICS = [
    {"name": "clip", "question": "", "unit": "points of 100", "higher_is_better": True},
    {"name": "aesthetic", "question": "", "unit": "points of 10", "higher_is_better": True},
]


def made(prompts: int = 10, seeds: int = 4, **changes: Any) -> Trial:
    arms = (Arm(name="base"), Arm(name="one", steps=3), Arm(name="two", steps=4))
    return Trial(
        **{
            "arms": arms,
            "prompts": tuple(f"prompt {i}" for i in range(prompts)),
            "seeds": tuple(range(1, seeds + 1)),
            "metrics": ("clip", "aesthetic"),
            **changes,
        }
    )


def drawn(trial: Trial, rng: np.random.Generator, gain: float = 0.0) -> list[dict[str, Any]]:
    """Gains vary by 0.5 from prompt to prompt and by 1.4 from picture to picture."""
    rows = []
    for number, arm in enumerate(trial.arms):
        for prompt in trial.prompts:
            own = rng.normal() * 0.35
            for seed in trial.seeds:
                scores = {"clip": 25 + own + rng.normal() + gain * (number > 0), "aesthetic": 5 + 0.1 * rng.normal()}
                rows.append({"arm": arm.name, "prompt": prompt, "seed": seed, "scores": scores})
    return rows


def pilot(folder: Path, trial: Trial, rows: list[dict[str, Any]], **receipt: Any) -> Path:
    write_json(folder / "trial.json", {"metrics": METRICS, "pictures": rows, "receipt": {"trial": json.loads(trial.model_dump_json()), **receipt}})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trial = made()
    return pilot(tmp_path / "pilot", trial, drawn(trial, np.random.default_rng(1)), seconds_drawing=1.5, seconds_scoring=0.5)


def test_a_plan_names_designs_and_their_cost_and_draws_nothing(folder: Path, tmp_path: Path) -> None:
    found = plan_trial(made(), tmp_path / "out", Ask({"clip": 0.5}, pilot=folder))
    assert not (tmp_path / "out").exists()
    assert [(one["arm"], one["metric"], one["why"]) for one in found["plans"]][1:3] == [("two", "clip", "asked for"), ("one", "aesthetic", "as measured")]
    clip = found["plans"][0]
    assert clip["difference"] == 0.5 and [one["seeds"] for one in clip["designs"]] == [1, 2, 4, 8, 16]
    assert all(one["safe_prompts"] >= one["prompts"] and one["seconds"] == 2.0 * one["pictures"] for one in clip["designs"])
    assert all(together["prompts"] >= one["prompts"] for together, one in zip(found["together"], clip["designs"], strict=True))
    assert found["together"][0]["seconds"] == found["together"][0]["pictures"] * 2.0 and found["comparisons"] == 4
    json.dumps(finite(found), allow_nan=False)
    text = "\n".join(plan_lines(found))
    assert "one against base 0.500 (asked for)" in " ".join(text.split()) and "2.00 s a picture" in text and "4 comparisons" in text
    assert "aesthetic: planned for the difference that the pilot measured" in text


def test_what_is_planned_is_seen(folder: Path) -> None:
    """From a large pilot, a design for a difference of 0.6 with power 0.8 sees it in about 8 of 10 trials: within 5 points over 300."""
    rng = np.random.default_rng(3)
    large = made(150, 4, metrics=("clip",), comparisons=(("one", "base"),))
    found = plan_trial(large, folder, Ask({"clip": 0.6}, pilot=pilot(folder, large, drawn(large, rng))))
    design = next(one for one in found["plans"][0]["designs"] if one["seeds"] == 2)
    trial = made(design["prompts"], 2, metrics=("clip",), comparisons=(("one", "base"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkroom.statistics.verdict.bootstrap", lambda pairs, confidence: None)
        patch.setattr("darkroom.statistics.verdict._planned", lambda *_: None)
        seen = [compare_all(trial, drawn(trial, rng, gain=0.6), METRICS[:1])[0]["verdict"] == "better" for _ in range(300)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_what_the_pilot_lacks_is_said_and_the_rest_is_planned(folder: Path) -> None:
    trial = made(arms=(Arm(name="base"), Arm(name="one", steps=3), Arm(name="three", steps=9)), margins={"clip": 0.4})
    found = plan_trial(trial, folder, Ask({}, pilot=folder))
    assert found["plans"][0]["why"] == "the margin" and found["plans"][1]["problem"].startswith('the pilot had no arm "three"')
    assert "two against base: cannot be planned" not in "\n".join(plan_lines(found)) and "three against base: cannot be planned" in "\n".join(plan_lines(found))


def test_a_reader_is_told_what_the_pilot_cannot_tell(tmp_path: Path) -> None:
    shared = made(4, 1, seeds_shared=True, steps=9)
    folder = pilot(tmp_path, shared, drawn(shared, np.random.default_rng(2)))
    trial = made(arms=(Arm(name="base"), Arm(name="one", steps=5), Arm(name="two", steps=4)))
    found = plan_trial(trial, tmp_path, Ask({"clip": 1.0, "aesthetic": 1.0}, pilot=folder))
    told = " ".join(found["remarks"])
    assert "one seed a prompt" in told and "shared their seeds" in told and "Drawn otherwise in the pilot: one." in told and "another steps" in told
    assert {design["seeds"] for one in found["plans"] for design in one["designs"]} == {1} and found["seconds_per_picture"] is None


def test_scores_that_do_not_vary_cannot_be_planned_from(tmp_path: Path) -> None:
    trial = made(3, 2, metrics=("clip",))
    rows = [{**row, "scores": {"clip": 20.0}} for row in drawn(trial, np.random.default_rng(2))]
    found = plan_trial(trial, tmp_path, Ask({"clip": 1.0}, pilot=pilot(tmp_path, trial, rows)))
    assert all("nothing is known of how much they vary" in one["problem"] for one in found["plans"]) and found["together"] == []
    assert "No design sees all" in "\n".join(plan_lines(found))


@pytest.mark.parametrize("text", ["clip", "clip=", "clip=0", "=1", "clip=-1", "clip=nan"])
def test_a_difference_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError, match="METRIC=SIZE"):
        parse_difference(text)


def test_what_cannot_be_asked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='Did you mean "clip"'):
        plan_trial(made(), folder, Ask({"clp": 1.0}, pilot=folder))
    with pytest.raises(RecipeError, match="between 0 and 1"):
        plan_trial(made(), folder, Ask({}, power=80, pilot=folder))
    (tmp_path / "trial.json").write_text("{")
    with pytest.raises(RunError, match="no trial's folder"):
        plan_trial(made(), folder, Ask({}, pilot=tmp_path))


def test_without_a_pilot_a_small_one_is_drawn(tmp_path: Path) -> None:
    trial = Trial(arms=(Arm(name="base"), Arm(name="empty", negative="")), prompts=("a 3d cat", "a flat dog", "a hat"), seeds=(5,), steps=1, metrics=("clip",))
    found = plan_trial(trial, tmp_path, Ask({"clip": 5.0}, prompts=2), "cpu")
    assert (found["pilot_prompts"], found["pilot_seeds"]) == (2, 2) and found["seconds_per_picture"] > 0
    assert len(list((tmp_path / "pilot" / "pictures").rglob("*.png"))) == 8 and not (tmp_path / "pictures").exists()


def test_the_command_plans_as_a_table_and_as_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trial.toml").write_text(made().to_toml(), encoding="utf-8")
    asked = ["trial", str(tmp_path / "trial.toml"), "--plan", "--pilot", str(folder), "--difference", "clip=0.5", "--set", "metrics=['clip']"]
    assert run(asked) == 0 and "all together" in capsys.readouterr().out
    assert run([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["metric"] for one in found["plans"]] == ["clip", "clip"] and found["remarks"] == []
    assert run([*asked, "--power", "3"]) == 2 and "between 0 and 1" in capsys.readouterr().err
