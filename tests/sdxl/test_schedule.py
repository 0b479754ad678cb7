"""The schedule's formulas against diffusers and against the papers' own words in float64."""

import math

import pytest
import torch
from diffusers import DDPMScheduler

from darkroom.errors import ModelError
from darkroom.sdxl.schedule import Schedule

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_equal_diffusers(prediction):
    ours = Schedule.from_config(CONFIG | {"prediction_type": prediction})
    theirs = DDPMScheduler(**CONFIG, prediction_type=prediction)
    x, noise, t = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 250, 700, 999])
    last = 2e-6  # four units in the last place of the terms, which are up to 5 and may cancel
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t), rtol=1e-5, atol=last)
    if prediction == "v_prediction":
        torch.testing.assert_close(ours.target(x, noise, t), theirs.get_velocity(x, noise, t), rtol=1e-5, atol=last)
    else:
        assert torch.equal(ours.target(x, noise, t), noise)


def test_min_snr_is_the_papers():
    t = torch.arange(1000)
    for prediction, divisor in (("epsilon", lambda s: s), ("v_prediction", lambda s: s + 1)):
        schedule = Schedule.from_config(CONFIG | {"prediction_type": prediction})
        betas = [(0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2 for i in range(1000)]
        bar, expected = 1.0, []
        for beta in betas:
            bar *= 1 - beta
            snr = bar / (1 - bar)
            expected.append(min(snr, 5.0) / divisor(snr))
        torch.testing.assert_close(schedule.min_snr_weight(t, 5.0), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def paper_alpha_bar(zero_terminal=False):
    """alpha-bar of SDXL in plain Python, from the papers' words: scaled-linear betas, and Lin et al. 2023, algorithm 1."""
    bar, found = 1.0, []
    for i in range(1000):
        bar *= 1 - (0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
        found.append(bar)
    if zero_terminal:
        first, last = math.sqrt(found[0]), math.sqrt(found[-1])
        found = [((math.sqrt(b) - last) * first / (first - last)) ** 2 for b in found]
    return found


def test_zero_terminal_is_lins_algorithm_and_diffusers():
    ours = Schedule.from_config(CONFIG).zero_terminal()
    expected = torch.tensor(paper_alpha_bar(zero_terminal=True), dtype=torch.float64)
    torch.testing.assert_close(ours.alpha_bar, expected, rtol=1e-10, atol=1e-18)
    assert ours.alpha_bar[-1] == 0 and ours.ends_in_noise and not Schedule.from_config(CONFIG).ends_in_noise
    theirs = DDPMScheduler(**CONFIG, rescale_betas_zero_snr=True).alphas_cumprod.double()
    torch.testing.assert_close(ours.alpha_bar, theirs, rtol=1e-4, atol=1e-7)
    assert ours.zero_terminal() is ours
    named = Schedule.from_config(CONFIG | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    assert torch.equal(named.alpha_bar, ours.alpha_bar) and named.prediction == "v_prediction"


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_v_weights_with_any_terminal(zero_terminal):
    schedule = Schedule.from_config(CONFIG | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_terminal})
    snrs = [b / (1 - b) for b in paper_alpha_bar(zero_terminal)]
    t = torch.arange(1000)
    for found, expected in (
        (schedule.min_snr_weight(t, 5.0), [min(s, 5.0) / (s + 1) for s in snrs]),
        (schedule.debiased_weight(t), [1 / (s + 1) for s in snrs]),
    ):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-15)
        assert found.isfinite().all()


def test_debiased_is_bounded_where_there_is_almost_no_noise():
    found = Schedule.from_config(CONFIG).debiased_weight(torch.arange(1000))
    expected = [1 / math.sqrt(min(b / (1 - b), 1000.0)) for b in paper_alpha_bar()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    assert found[0] == pytest.approx(1000**-0.5)


@pytest.mark.parametrize("change", [{"prediction_type": "sample"}, {"beta_schedule": "squaredcos_cap_v2"}])
def test_another_familys_schedule_is_refused(change):
    with pytest.raises(ModelError, match=f"{next(iter(change.values()))}.*Correct it"):
        Schedule.from_config(CONFIG | change)
