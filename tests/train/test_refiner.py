"""A refiner learns the last steps: its own size ids, low noise alone, previews that a base begins."""

import pytest
import torch

from darkroom.jobs.train import prepare, run_training
from darkroom.sampling.request import read_request
from darkroom.train.loop import Trainer


@pytest.fixture
def refining(quick):
    tree = quick.model_dump(mode="json")
    tree["base"] = "pocket-refiner"
    tree["preview"] |= {"base": "pocket"}
    tree["data"] |= {"aesthetic": 6.5}
    tree["objective"] |= {"timesteps": {"kind": "uniform", "low": 0, "high": 200}}
    return type(quick).from_tree(tree, "test")


def test_its_ids_end_with_the_aesthetic_score(refining):
    model, plan = prepare(refining)
    attached = refining.method.attach(model, 0)
    try:
        trainer = Trainer(refining, plan, model, attached)
        batch = trainer.feed.batch(0)
        assert batch.ids.tolist() == [[256, 256, 0, 0, 6.5]] * 2
        assert batch.text.states.shape[-1] == model.text_encoder_2.config.hidden_size
        drawn = trainer._draw(0, trainer.feed.shown(0), batch.latents)
        assert int(drawn.t.max()) < 200
        assert torch.isfinite(trainer._learn(0))
    finally:
        attached.detach()


def test_it_trains_and_its_previews_are_begun_by_a_base(refining, tmp_path):
    run = run_training(refining, tmp_path / "run")
    asked = read_request(run.folder / "previews" / "000006_0.png")
    assert (asked.base, asked.refiner.model) == ("pocket", "pocket-refiner")
    rows = run.read_log()
    assert all(0 < row["loss"] < 5 for row in rows)
    plain = refining.model_copy(update={"preview": refining.preview.model_copy(update={"base": ""})})
    assert not (run_training(plain, tmp_path / "plain").folder / "previews").exists()
