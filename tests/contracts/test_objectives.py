"""Every loss with every way of choosing timesteps keeps the contract: one finite loss a picture, gradients that lower it, the same draws again, TOML."""

import tomllib
from typing import get_args

import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.sdxl.schedule import Schedule
from darkroom.train.loss import Loss
from darkroom.train.noise import draw_batch
from darkroom.train.objective import Batch, Diffusion
from darkroom.train.timesteps import Timesteps

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
RANGE = {"low": 300, "high": 400}
INSIDE = {"portion": {"begin": 310, "end": 320}}


def members(union):
    found = [get_args(each)[0] for each in get_args(get_args(union)[0])]
    return {made.model_fields["kind"].default: made for made in found}


LOSSES, TIMESTEPS = members(Loss), members(Timesteps)
LATENTS = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_no_member_is_forgotten():
    assert LOSSES.keys() >= {"l2", "l1", "huber", "smooth_l1"} and TIMESTEPS.keys() >= {"uniform", "logit_normal", "cubic", "portion"}
    assert all(info.description for made in (*LOSSES.values(), *TIMESTEPS.values(), Diffusion) for name, info in made.model_fields.items() if name != "kind")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("timesteps", TIMESTEPS)
@pytest.mark.parametrize("loss", LOSSES)
def test_contract(loss, timesteps, prediction):
    tree = {"loss": {"kind": loss}, "timesteps": {"kind": timesteps, **RANGE, **INSIDE.get(timesteps, {})}, "noise_offset": 0.05, "pyramid": 3}
    objective = Diffusion.from_tree(tree, "test")
    assert Diffusion.from_tree(tomllib.loads(objective.to_toml()), "test") == objective
    own = Schedule.from_config(CONFIG | {"prediction_type": prediction})
    objective.check(own)
    assert isinstance(objective.loss, LOSSES[loss]) and isinstance(objective.timesteps, TIMESTEPS[timesteps])

    weight = torch.zeros(2, requires_grad=True)

    def predict(noisy, t, batch):
        return weight[0] * noisy + weight[1] * batch.latents

    def losses():
        draws = draw_batch(objective, 1, 2, list("abcdef"), LATENTS)
        assert draws.t.min() >= 300 and draws.t.max() < 400
        return objective.losses(predict, objective.schedule(own), Batch(LATENTS, None, None, torch.ones(6)), draws.noise, draws.t, draws.shown)

    first = losses()
    assert first.shape == (6,) and first.isfinite().all() and (first > 0).all() and torch.equal(first, losses())
    for _ in range(30):
        weight.grad = None
        losses().mean().backward()
        with torch.no_grad():
            weight -= 0.02 * weight.grad
    assert losses().mean() < first.mean()


@pytest.mark.parametrize(("table", "kinds"), [("loss", LOSSES), ("timesteps", TIMESTEPS)])
def test_an_unknown_argument_is_refused(table, kinds):
    for kind in kinds:
        with pytest.raises(RecipeError, match=rf'there is no key "{table}\.cc"'):
            Diffusion.from_tree({table: {"kind": kind, "cc": 1}}, "test")
