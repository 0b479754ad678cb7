"""The schedule's formulas against diffusers and against the papers' own words in float64."""

import pytest
import torch
from diffusers import DDPMScheduler

from darkroom.sdxl.schedule import Schedule

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_equal_diffusers(prediction):
    ours = Schedule.from_config(CONFIG | {"prediction_type": prediction})
    theirs = DDPMScheduler(**CONFIG, prediction_type=prediction)
    x, noise, t = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 250, 700, 999])
    torch.testing.assert_close(ours.add_noise(x, noise, t), theirs.add_noise(x, noise, t), rtol=1e-5, atol=1e-6)
    if prediction == "v_prediction":
        torch.testing.assert_close(ours.target(x, noise, t), theirs.get_velocity(x, noise, t), rtol=1e-5, atol=1e-6)
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
