"""Nothing fails in silence: losses that are no number, gradients that are dead, weights that do not move, pictures of one colour."""

import dataclasses

import pytest
import torch

from darkroom.errors import RunError
from darkroom.jobs.train import run_training
from darkroom.train.health import Health, Vitals
from darkroom.train.run import Run


def vitals(**limits):
    return Vitals(Health(**limits), 1e-3)


class TestFigures:
    def test_a_loss_that_is_no_number_stops_or_is_left_out(self):
        with pytest.raises(RunError, match=r"step 4: the loss is nan.*lower rate than optimizer\.rate = 0\.001"):
            vitals().may_step(3, float("nan"), 1.0, False)
        patient = vitals(bad_losses=2)
        assert not patient.may_step(3, float("inf"), 1.0, False)
        assert "step 4: left out" in patient.told[0]
        assert patient.may_step(4, 0.1, 1.0, False)
        assert not patient.may_step(5, 0.1, float("nan"), False)
        with pytest.raises(RunError, match=r"step 7: the gradient's norm is inf"):
            patient.may_step(6, 0.1, float("inf"), False)

    def test_fp16_may_skip(self):
        assert vitals().may_step(0, 0.1, float("inf"), True)

    def test_dead_gradients(self):
        watched = vitals(dead_steps=2)
        assert watched.may_step(0, 0.1, 0.0, False)
        with pytest.raises(RunError, match="every gradient was zero in 2 steps"):
            watched.may_step(1, 0.1, 0.0, False)

    def test_a_loss_that_runs_away_is_stopped_and_one_outlier_is_not(self):
        watched = vitals(diverged=10)
        for number in range(20):
            watched.may_step(number, 0.1, 1.0, False)
        assert watched.may_step(20, 2.0, 1.0, False)
        for number in range(21, 40):
            watched.may_step(number, 0.1, 1.0, False)
        with pytest.raises(RunError, match=r"the loss is 3 and began with 0\.1"):
            for number in range(40, 100):
                watched.may_step(number, 3.0, 1.0, False)

    def test_a_resume_remembers(self):
        watched = vitals(dead_steps=2)
        watched.may_step(0, 0.1, 0.0, False)
        again = vitals(dead_steps=2)
        again.load_state(watched.state())
        with pytest.raises(RunError, match="every gradient was zero"):
            again.may_step(1, 0.1, 0.0, False)


class TestWeights:
    def test_none_moved(self):
        watched, weights = vitals(still_steps=3), [torch.ones(4), torch.ones(2, 2)]
        watched.begin(weights)
        watched.after(0, 100, weights)
        with pytest.raises(RunError, match="no weight has moved"):
            watched.after(2, 100, weights)

    def test_some_did_not(self):
        watched, weights = vitals(still_steps=3), [torch.ones(4), torch.ones(2, 2)]
        watched.begin(weights)
        weights[0][1] += 1e-6
        watched.after(2, 100, weights)
        assert watched.told == ["After 3 steps 1 of 2 trained tensors have not moved at all."]

    def test_a_short_training_is_looked_at_in_the_end(self):
        watched, weights = vitals(), [torch.ones(4)]
        watched.begin(weights)
        with pytest.raises(RunError, match="no weight has moved"):
            watched.after(4, 5, weights)


@pytest.mark.parametrize(("black", "told"), [("ignore", 0), ("warn", 1)])
def test_a_black_preview(black, told):
    watched = vitals(black=black)
    watched.picture("000100_0.png", [(0, 1), (0, 0), (0, 2)])
    watched.picture("000100_1.png", [(0, 1), (0, 80), (0, 2)])
    assert len(watched.told) == told
    with pytest.raises(RunError, match=r"000100_0\.png: is one colour all over"):
        vitals(black="stop").picture("000100_0.png", [(3, 3)] * 3)


def test_a_whole_run_with_a_mad_rate_stops_in_words_and_keeps_what_was(quick, tmp_path):
    recipe = quick.model_copy(update={"optimizer": quick.optimizer.model_copy(update={"rate": 1e5, "warmup": 0, "schedule": "constant"})})
    recipe = recipe.model_copy(update={"health": Health(still_steps=50), "train": recipe.train.model_copy(update={"length": "60 steps"})})
    with pytest.raises(RunError, match="diverged"):
        run_training(type(recipe).from_tree(recipe.model_dump(mode="json"), "test"), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.finished
    assert all(torch.isfinite(tensor).all() for checkpoint in run.checkpoints() for tensor in checkpoint.load()[0].values())


def test_keep_the_newest_and_the_best(quick, cats, tmp_path, monkeypatch):
    from darkroom.jobs.fitting import Sitting

    losses = iter([0.5, 0.2, 0.4, 0.3, 0.6, 0.7, 0.8])
    monkeypatch.setattr(Sitting, "_held_out", lambda self: next(losses))
    from darkroom import pocket

    recipe = type(quick).from_tree(quick.model_dump(mode="json") | {
        "train": quick.train.model_dump(mode="json") | {"keep": 2, "save_every": "1 steps"},
        "validation": {"pictures": str(pocket.CATS / "held_out"), "every": "1 steps"},
    }, "test")  # fmt: skip
    run = run_training(recipe, tmp_path / "run")
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 5, 6]
    assert run.best() == 1
    assert sorted(path.name for path in (run.folder / "steps").iterdir()) == ["000001", "000005", "000006"]


def test_the_receipt_says_what_was_told(quick, tmp_path, monkeypatch):
    from darkroom.jobs import fitting

    monkeypatch.setattr(fitting, "_extremes", lambda picture: [(0, 0)] * 3)
    said = []

    @dataclasses.dataclass
    class Listener:
        def say(self, text):
            said.append(text)

        def move(self, *_):
            pass

    run = run_training(quick, tmp_path / "run", Listener())
    assert [text for text in said if "one colour" in text] == run.facts["result"]["told"]
    assert len(run.facts["result"]["told"]) == 2


def test_a_settled_training_ends_and_goes_back(quick, tmp_path, monkeypatch):
    """The held-out loss stops falling at step 2: patience 2 ends it at step 4 of 6, and what is kept is step 2's; a kill in between changes nothing."""
    from darkroom import pocket
    from darkroom.jobs.fitting import Sitting
    from darkroom.jobs.train import resume_training

    losses = iter([0.5, 0.4, 0.2, 0.3, 0.25])
    monkeypatch.setattr(Sitting, "_held_out", lambda self: next(losses))
    tree = quick.model_dump(mode="json")
    tree["validation"] = {"pictures": str(pocket.CATS / "held_out"), "every": "1 steps", "settle": {"patience": 2}}
    tree["train"]["save_every"] = "100 steps"
    run = run_training(type(quick).from_tree(tree, "test"), tmp_path / "run")
    assert run.facts["result"]["settled"] == run.facts["result"]["steps"] == 2
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 2, 3, 4]
    assert run.product.read_bytes() == (run.folder / "steps/000002/adapter.safetensors").read_bytes()
    run.product.unlink()
    assert resume_training(run.folder).product.read_bytes() == (run.folder / "steps/000002/adapter.safetensors").read_bytes()


def test_settling_wants_all_checkpoints(quick):
    from darkroom.errors import RecipeError

    tree = quick.model_dump(mode="json")
    tree["validation"] |= {"settle": {}}
    tree["train"] |= {"keep": 2}
    with pytest.raises(RecipeError, match=r"Set train\.keep = 0"):
        type(quick).from_tree(tree, "test")
