"""A tiny real run is measured and chosen from, and the words for runs that overfit, copy, or learn nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom import pocket
from darkroom.errors import DatasetError, ModelError, RecipeError, RunError
from darkroom.evidence.held import Held
from darkroom.evidence.measuring import EXCESS, LOSS, Measured, Row, measure
from darkroom.evidence.pick import Pick, Picked, decide, run_pick, spread
from darkroom.evidence.pick_words import told
from darkroom.jobs.train import run_training
from darkroom.sampling.request import read_request
from darkroom.statistics.plateau import Curve
from darkroom.train.run import Checkpoint, Run

PROMPTS = ("{} on a red background", "{} on a blue background", "a picture of {}, green background")
QUICK = Pick(prompts=PROMPTS, seeds=2, steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six steps on the cats, a checkpoint every second one, three other cats held out."""
    from darkroom.train.recipe import load_recipe

    folder = tmp_path_factory.mktemp("run")
    for name in ("train", "held_out"):
        (folder / name).mkdir()
        for picture in (pocket.CATS / name).glob("*.png"):
            shutil.copy(picture, folder / name)
    settings = (
        "train.length=6 steps", "train.save_every=2 steps", "validation.every=2 steps", f"validation.pictures={folder / 'held_out'}", "validation.draws=2",
        "preview.every=100 steps", "preview.steps=1", "device=cpu", "method.rank=4", "data.batch_size=2",
    )  # fmt: skip
    recipe = load_recipe("demo", settings, data={"images": str(folder / "train"), "subject": "TOK cat"})
    return run_training(recipe, folder / "run")


@pytest.fixture(scope="module")
def result(run: Run) -> dict[str, Any]:
    return run_pick(run.folder, QUICK, device="cpu")


def curve_of(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(curve for curve in result["curves"] if curve["name"] == name)


def test_everything_is_measured_at_every_step(run: Run, result: dict[str, Any]) -> None:
    assert result["steps"] == [0, 2, 4, 6] and result["step"] in (2, 4, 6)
    assert Path(result["file"]) == run.folder / "steps" / f"{result['step']:06d}" / "adapter.safetensors" and Path(result["file"]).is_file()
    assert [curve["name"] for curve in result["curves"]] == [LOSS, "likeness", "clip", "diversity", "copying", EXCESS, "drift"]
    for curve in result["curves"]:
        assert len(curve["means"]) == len(curve["low"]) == len(curve["high"]) == 4 and np.isfinite(curve["means"]).all()
    assert curve_of(result, LOSS)["units"] == 3 and curve_of(result, "likeness")["units"] == 3
    assert curve_of(result, "drift")["means"][0] == pytest.approx(0.0, abs=1e-3) and curve_of(result, "drift")["higher_is_better"] is False
    assert result["sentence"].startswith(f"Step {result['step']} is the one to keep: the earliest of 3 checkpoints")


def test_the_losses_are_those_of_the_log(run: Run, result: dict[str, Any]) -> None:
    """Measured while training, in one go; and from the checkpoints, picture by picture."""
    logged = [row["validation"] for row in run.read_log() if "validation" in row]
    assert curve_of(result, LOSS)["means"] == pytest.approx(logged, rel=1e-5)


def test_the_same_noise_at_every_step_and_another_for_each_prompt(run: Run, result: dict[str, Any]) -> None:
    out = run.folder / "pick"
    for kind in ("subject", "class"):
        seeds = {step: [row["seed"] for row in result["pictures"] if (row["kind"], row["step"]) == (kind, step)] for step in result["steps"]}
        assert len({tuple(found) for found in seeds.values()}) == 1 and len(set(seeds[0])) == 6
    request = read_request(out / "pictures" / "000004" / "class-01-1.png")
    assert request.prompt == "cat on a blue background" and Path(request.adapters[0].file).parent.name == "000004"
    assert read_request(out / "pictures" / "000000" / "subject-01-1.png").adapters == ()


def test_a_second_call_draws_and_measures_nothing(run: Run, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from darkroom.evidence import held

    def never(*_: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(held, "_losses", never)
    monkeypatch.setattr("darkroom.metrics.copying.Copying.__call__", never)
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "pick" / "pictures").rglob("*.png")}
    assert run_pick(run.folder, QUICK, device="cpu") == json.loads(json.dumps(result))
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "pick" / "pictures").rglob("*.png")} == before


def test_the_page_is_whole_and_the_picture_is_there(run: Run, result: dict[str, Any]) -> None:
    from PIL import Image

    page = (run.folder / "pick" / "pick.html").read_text("utf-8")
    assert result["sentence"] in page and page.count("<svg") == 7 and page.count("data:image/png") == 8 and page.count('class="chosen"><img') == 2
    assert "http" not in page.replace("http-equiv", "")
    with Image.open(run.folder / "pick" / "curves.png") as picture:
        assert len(picture.getcolors(1 << 24) or []) > 50
    assert json.loads((run.folder / "pick" / "pick.json").read_text("utf-8"))["step"] == result["step"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"prompts": ("a photo of TOK cat", *PROMPTS)}, RecipeError, "has no {}"),
        ({"prompts": PROMPTS[:2]}, RecipeError, "give at least three"),
        ({"prompts": (*PROMPTS, PROMPTS[0])}, RecipeError, "stands twice"),
        ({"words": "TOK cat"}, RecipeError, "must say the class alone"),
        ({"held_out": "nowhere"}, DatasetError, "nowhere"),
        ({"scorer": "nowhere"}, ModelError, "nowhere"),
        ({"likeness": "beauty"}, RecipeError, "likeness"),
    ],
)
def test_mistakes_are_said(run: Run, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run_pick(run.folder, Pick.from_tree({**json.loads(QUICK.model_dump_json()), **changes}, "pick"), tmp_path / "out", "cpu")
    assert not (tmp_path / "out" / "pictures").exists(), "told before anything is drawn"


def test_a_learned_caption_is_no_new_prompt(run: Run, tmp_path: Path) -> None:
    caption = run.facts["pictures"][0]["caption"]
    with pytest.raises(RecipeError, match="learned from"):
        run_pick(run.folder, QUICK.model_copy(update={"prompts": (caption.replace("TOK cat", "{}"), *PROMPTS)}), tmp_path / "out", "cpu")


def test_one_checkpoint_is_no_choice(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("pick"))
    for step in (2, 4):
        shutil.rmtree(tmp_path / "run" / "steps" / f"{step:06d}")
    with pytest.raises(RunError, match=r"has one checkpoint, of step 6, .* train\.save_every"):
        run_pick(tmp_path / "run", QUICK, device="cpu")


def test_other_pictures_than_then_are_refused(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("pick"))
    facts = run.facts
    facts["pictures"][0]["sha256"] = "0" * 64
    (tmp_path / "run" / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match="pictures it learned from changed"):
        run_pick(tmp_path / "run", QUICK, device="cpu")


def test_checkpoints_are_spread_with_the_last_among_them() -> None:
    found = [Checkpoint(Path(f"{step:06d}")) for step in range(10, 210, 10)]
    assert [one.step for one in spread(found, 4, Path())] == [10, 70, 140, 200]
    assert [one.step for one in spread(found, 2, Path())] == [10, 200] and spread(found, 50, Path()) == found


class Scored:
    """A metric that a test decides."""

    question, unit, higher_is_better, per, copy_from, prompted, blank = "?", "points", True, "picture", 80.0, False, ""

    def __init__(self, name: str, score: Any) -> None:
        self.name = self.key = name
        self.score = score

    def __call__(self, pictures: Any, prompts: Any) -> list[float]:
        return [self.score(number) for number in range(len(pictures))]


def test_a_metric_that_fails_costs_its_own_curve(tmp_path: Path) -> None:
    from PIL import Image

    def fail(number: int) -> float:
        raise OSError("the disk is gone")

    rows = [Row("subject", step, prompt, f"prompt {prompt}", 1, f"{step}-{prompt}.png") for step in (0, 10, 20) for prompt in (0, 1, 2)]
    for row in rows:
        Image.new("RGB", (8, 8), (row.step, row.prompt, 0)).save(tmp_path / row.file)
    answers = {"likeness": lambda n: 50.0 + n, "clip": fail, "diversity": lambda n: np.nan if n == 1 else 2.0, "copying": lambda n: 30.0}
    scored = {name: Scored(name, answer) for name, answer in answers.items()}
    held = Held((Path("a"), Path("b")), (), {0: [3.0, 4.0], 10: [2.0, 3.0], 20: [2.5, 3.5]}, {})

    class Quiet:
        def move(self, *_: Any) -> None: ...

        def say(self, *_: Any) -> None: ...

    class Asked:
        given, metrics, apart, likeness = None, scored, Scored("apart", lambda n: 25.0), "likeness"

    found = measure(rows, tmp_path, Asked(), ["a", "b", "c"], held, Quiet())  # type: ignore[arg-type]
    assert [curve.name for curve in found.curves] == [LOSS, "likeness", "diversity", "copying", EXCESS]
    assert [curve.values.shape for curve in found.curves] == [(3, 2), (3, 3), (3, 2), (3, 3), (3, 3)]
    assert found.curves[-1].means.tolist() == [5.0, 5.0, 5.0]
    assert any("the disk is gone" in note for note in found.notes) and any('diversity leaves out "prompt 1"' in note for note in found.notes)


STEPS = (0, 100, 200, 300, 400)


def picked(**means: tuple[float, ...]) -> Picked:
    """A choice over curves with these means and a little spread; steps 0 to 400."""
    rng = np.random.default_rng(1)
    names = {"loss": LOSS, "excess": EXCESS}

    def curve(name: str, values: tuple[float, ...]) -> Curve:
        higher = name not in ("loss", "excess", "copying", "drift")
        table = np.array(values)[:, None] + np.arange(6) * np.ptp(values) / 10 + rng.normal(0, 0.02 * (np.ptp(values) or 1), (5, 6))
        return Curve(names.get(name, name), STEPS, table, higher)

    curves = tuple(curve(name, values) for name, values in means.items())
    held = Held(tuple(Path(str(n)) for n in range(6)), (), {}, {step: [0.04 - step / 20000] for step in STEPS})
    measured = Measured((), curves, {}, (), {})
    return Picked(Run(Path("run")), Pick(), STEPS, "cat", held, measured, decide(curves, Pick()))


OVERFIT = {"loss": (0.05, 0.04, 0.035, 0.045, 0.06), "likeness": (40.0, 48.0, 52.0, 52.2, 52.1), "excess": (0.0, -3.0, -3.0, 2.0, 8.0)}


def test_a_run_that_overfits_is_warned_of() -> None:
    found = told(picked(**OVERFIT, copying=(46, 45, 45, 52, 60), diversity=(20, 19, 19, 14, 9)))
    assert found["sentence"] == (
        "Step 200 is the one to keep: the earliest of 4 checkpoints that is as good as the best in likeness and in held-out loss, "
        "before held-out loss rises (step 300)."
    )
    (warning,) = found["warnings"]
    assert warning.startswith("Overfitting: from step 200 to 400") and "by heart" in warning and "from step 300 on" in warning
    for words in ("held-out pictures rises by 60%", "it learned from falls from 0.0300 to 0.0200", "nearer to those it learned from", "more alike"):
        assert words in warning, words
    assert any("rises from step 200 on" in line and "steps from 300 on were not considered" in line for line in found["why"])


def test_a_run_that_still_learns_is_told_to_go_on() -> None:
    found = told(picked(loss=(0.05, 0.045, 0.04, 0.035, 0.03), likeness=(40, 44, 48, 52, 56)))
    assert found["sentence"].startswith("Step 400") and any("Train longer" in warning for warning in found["warnings"])


def test_a_run_that_is_done_at_once_is_told_to_save_more_often() -> None:
    found = told(picked(loss=(0.05, 0.03, 0.04, 0.05, 0.06), likeness=(40, 50, 50, 50, 50)))
    assert found["sentence"].startswith("Step 100") and any("Save more often" in warning for warning in found["warnings"])


def test_a_run_that_learned_nothing_is_told_so() -> None:
    found = told(picked(loss=(0.05, 0.04, 0.035, 0.035, 0.035), likeness=(40.0, 40.0, 40.0, 40.0, 40.0)))
    assert any("nothing says yet that the subject was learned" in warning for warning in found["warnings"])


def test_a_trigger_that_took_over_is_told() -> None:
    found = told(picked(**{**OVERFIT, "excess": (0, 0, 0, 0, 0)}, clip=(30, 26, 20, 20, 20), diversity=(20, 15, 10, 10, 10)))
    assert any("the trigger took over" in warning for warning in found["warnings"])


def test_a_rule_without_a_loss_of_its_own_goes_by_likeness() -> None:
    found = picked(likeness=(40, 45, 50, 50.1, 50.2), drift=(0, 5, 8, 10, 11))
    assert found.choice.step == 200 and found.choice.turns == ()
