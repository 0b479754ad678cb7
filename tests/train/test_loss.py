"""Losses against their formulas in plain Python, and what a mask does to their mean."""

import math

import pytest
import torch
from pydantic import ValidationError

from darkroom.sdxl.schedule import Schedule
from darkroom.train.loss import Absolute, Huber, SmoothAbsolute, Squared, over_picture

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
T = [0, 1, 250, 700, 999]


def alpha_bar():
    bar, found = 1.0, []
    for i in range(1000):
        bar *= 1 - (0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
        found.append(bar)
    return found


def threshold(name, c, t):
    match name:
        case "constant":
            return c
        case "exponential":
            return math.exp(-(-math.log(c) / 1000) * t)
        case "snr":
            sigma = math.sqrt((1 - alpha_bar()[t]) / alpha_bar()[t])
            return (1 - c) / (1 + sigma) ** 2 + c


@pytest.mark.parametrize("name", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("c", [0.05, 1.0])
def test_huber_and_smooth_l1(name, c):
    differences = torch.linspace(-3, 3, 5 * 12, dtype=torch.float64).view(5, 1, 3, 4)
    schedule, t = Schedule.from_config(CONFIG), torch.tensor(T)
    for kind, factor in ((Huber, lambda c: 2 * c), (SmoothAbsolute, lambda c: 2)):
        found = kind(c=c, schedule=name).errors(differences, schedule, t)
        expected = torch.empty_like(differences)
        for i, place in enumerate(T):
            at = threshold(name, c, place)
            for j, d in enumerate(differences[i].flatten().tolist()):
                expected[i].view(-1)[j] = factor(at) * (math.sqrt(d * d + at * at) - at)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_squared_and_absolute():
    differences = torch.tensor([[-2.0, 0.5]]).view(1, 1, 1, 2)
    assert Squared().errors(differences, None, None).flatten().tolist() == [4.0, 0.25]
    assert Absolute().errors(differences, None, None).flatten().tolist() == [2.0, 0.5]


def test_the_threshold_is_c_where_nothing_of_the_picture_is_left():
    schedule = Schedule.from_config(CONFIG).zero_terminal()
    assert Huber(c=0.2).at(schedule, torch.tensor([999])).item() == pytest.approx(0.2)


@pytest.mark.parametrize("c", [0, -0.1, 1.5])
@pytest.mark.parametrize("kind", [Huber, SmoothAbsolute])
def test_a_threshold_that_is_none_is_refused(kind, c):
    with pytest.raises(ValidationError, match="c\n"):
        kind(c=c)


class TestMask:
    errors = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def test_a_full_mask_is_no_mask_bit_for_bit(self):
        plain = over_picture(self.errors, None, 0.1)
        assert torch.equal(over_picture(self.errors, torch.ones(3, 1, 8, 8), 0.0), plain)
        assert torch.equal(plain, self.errors.flatten(1).mean(1))

    def test_only_what_is_masked_counts_however_small(self):
        mask = torch.zeros(3, 1, 8, 8)
        mask[:, :, 2:4, 3:6] = 1
        found = over_picture(self.errors, mask, 0.0)
        torch.testing.assert_close(found, self.errors[:, :, 2:4, 3:6].flatten(1).mean(1))

    def test_soft_edges_and_a_floor_weigh(self):
        mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        found = over_picture(self.errors.double(), mask.double(), 0.3)
        for i in range(3):
            above = below = 0.0
            for c in range(4):
                for y in range(8):
                    for x in range(8):
                        w = max(0.3, mask[i, 0, y, x].item())
                        above, below = above + w * self.errors[i, c, y, x].item(), below + w
            assert found[i].item() == pytest.approx(above / below, rel=1e-9)

    def test_an_empty_mask_teaches_nothing_and_is_no_nan(self):
        assert over_picture(self.errors, torch.zeros(3, 1, 8, 8), 0.0).tolist() == [0, 0, 0]
