"""Rates against diffusers' and transformers' get_scheduler, and REX against its paper; what does nothing is refused."""

import pytest
import torch
from diffusers.optimization import get_scheduler
from pydantic import ValidationError
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

from darkroom.train.rates import Paced

TOTAL = 40


def theirs(build):
    """The factors of a torch scheduler, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = build(optimizer)
    found = []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        scheduler.step()
    return found


def ours(**changes):
    return [Paced(**changes).factor(step, TOTAL) for step in range(TOTAL)]


CASES = {
    "constant": {},
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"cycles": 3},
    "polynomial": {"power": 2.5, "floor": 1e-7 / 2.0},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("warmup", [0, 7])
def test_curves_are_diffusers(name, warmup):
    changes = CASES[name]
    known = {"num_cycles": changes["cycles"]} if "cycles" in changes else {"power": changes["power"]} if "power" in changes else {}
    expected = theirs(
        lambda o: get_scheduler("constant_with_warmup" if name == "constant" else name, o, num_warmup_steps=warmup, num_training_steps=TOTAL, **known)
    )
    found = ours(schedule=name, warmup=warmup, **changes)
    assert found[warmup:] == pytest.approx(expected[warmup:], abs=1e-9)
    assert found[:warmup] == pytest.approx([*expected[1:warmup], 1.0][:warmup])  # theirs begins at 0, so that its first step learns nothing


def test_a_floor_is_transformers_min_lr_rate():
    expected = theirs(lambda o: get_cosine_with_min_lr_schedule_with_warmup(o, num_warmup_steps=5, num_training_steps=TOTAL, min_lr_rate=0.1))
    assert ours(schedule="cosine", warmup=5, floor=0.1)[5:] == pytest.approx(expected[5:])


def test_rex_is_the_papers():
    """Chen, Wolfe and Kyrillidis 2021: p(z) = (1 - z) / (1/2 + 1/2 (1 - z)), z the share of the budget that is used."""
    assert ours(schedule="rex") == pytest.approx([(1 - z / TOTAL) / (0.5 + 0.5 * (1 - z / TOTAL)) for z in range(TOTAL)])
    assert ours(schedule="rex", warmup=10)[10:] == pytest.approx([(1 - z / 30) / (0.5 + 0.5 * (1 - z / 30)) for z in range(30)])


def test_a_warm_up_is_steps_or_a_share():
    assert ours(warmup=0.25, schedule="rex") == ours(warmup=10, schedule="rex")
    assert Paced(warmup=0.1).warm(39) == 3
    assert Paced(warmup=1).warm(10) == 1


def test_a_warm_up_longer_than_the_training_is_told():
    assert Paced(warmup=500).remarks(TOTAL) == ("optimizer.warmup = 500: the training of 40 steps ends before the rate is reached; it gets to 8% of it.",)
    assert Paced(warmup=500).factor(39, TOTAL) == 40 / 500
    assert Paced(warmup=39).remarks(TOTAL) == Paced(warmup=0.99).remarks(TOTAL) == Paced().remarks(TOTAL) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"warmup": 2.5}, "neither whole steps nor"),
        ({"warmup": -1}, "greater than or equal to 0"),
        ({"cycles": 2}, 'Set schedule = "cosine_with_restarts", or cycles = 1'),
        ({"schedule": "linear", "power": 2.0}, 'Set schedule = "polynomial", or power = 1'),
        ({"floor": 0.1}, "which never falls"),
        ({"schedule": "cosine", "floor": 1.0}, "less than 1"),
    ],
)
def test_what_does_nothing_is_refused(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        Paced(**changes)
