"""The objective whole, against the papers' equations in float64, and every combination without a meaning refused with its reason."""

import math

import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.sdxl.schedule import Schedule
from darkroom.train.noise import draw_batch
from darkroom.train.objective import Batch, Diffusion

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EPS = Schedule.from_config(CONFIG)
V = Schedule.from_config(CONFIG | {"prediction_type": "v_prediction"})


def rand(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(mask=None):
    return Batch(rand(0, 4, 4, 6, 5), None, None, torch.tensor([1.0, 1.0, 0.5, 2.0]), mask)


def predict(noisy, t, batch):
    return 0.3 * noisy + 0.1


def oracle(x, noise, shown, t, prediction, zero_terminal=False, weight=lambda snr: 1.0, error=lambda d, sigma: d * d):
    """One picture's loss from the papers' equations alone, in float64."""
    bar = 1.0
    bars = [bar := bar * (1 - (0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2) for i in range(1000)]
    roots = [math.sqrt(b) for b in bars]
    if zero_terminal:
        roots = [(r - roots[-1]) * roots[0] / (roots[0] - roots[-1]) for r in roots]
    a, s = roots[t], math.sqrt(1 - roots[t] ** 2)
    total = 0.0
    for x0, e, seen in zip(x.flatten().tolist(), noise.flatten().tolist(), shown.flatten().tolist(), strict=True):
        said = 0.3 * (a * x0 + s * seen) + 0.1
        wanted = e if prediction == "epsilon" else a * e - s * x0
        total += error(said - wanted, s / a if a else math.inf)
    return total / x.numel() * weight(a * a / (s * s))


CASES = {
    "plain": ({"min_snr": 0.0}, {}),
    "min-snr": ({}, {"eps": lambda s: min(s, 5) / s, "v": lambda s: min(s, 5) / (s + 1)}),
    "debiased": ({"min_snr": 0.0, "debiased": True}, {"eps": lambda s: 1 / math.sqrt(min(s, 1000)), "v": lambda s: 1 / (s + 1)}),
    "perturbed": ({"min_snr": 0.0, "perturbation": 0.2}, {}),
}


WAYS = {
    "its own epsilon": (EPS, "model", False),
    "its own v": (V, "model", False),
    "v instead": (EPS, "v_prediction", False),
    "epsilon instead": (V, "epsilon", False),
    "v to the end": (V, "model", True),
    "v instead, to the end": (EPS, "v_prediction", True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("own", "prediction", "zero_terminal"), WAYS.values(), ids=WAYS.keys())
def test_losses_are_the_papers(name, own, prediction, zero_terminal):
    changes, weights = CASES[name]
    said = own.prediction if prediction == "model" else prediction
    objective = Diffusion(prediction=prediction, zero_terminal_snr=zero_terminal, **changes)
    objective.check(own)
    schedule, given = objective.schedule(own), batch()
    draws = draw_batch(objective, 0, 0, list("abcd"), given.latents)
    t = torch.tensor([0, 300, 650, 999])
    found = objective.losses(predict, schedule, given, draws.noise, t, draws.shown)
    weight = weights.get("eps" if said == "epsilon" else "v", lambda s: 1.0)
    expected = [oracle(given.latents[i], draws.noise[i], draws.shown[i], int(t[i]), said, zero_terminal, weight) * float(given.weight[i]) for i in range(4)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_huber_by_signal_and_min_snr_together():
    objective = Diffusion(loss={"kind": "huber", "c": 0.2, "schedule": "snr"})
    given, noise, t = batch(), rand(1, 4, 4, 6, 5), torch.tensor([0, 300, 650, 999])

    def huber(d, sigma):
        c = 0.8 / (1 + sigma) ** 2 + 0.2
        return 2 * c * (math.sqrt(d * d + c * c) - c)

    found = objective.losses(predict, EPS, given, noise, t)
    expected = [
        oracle(given.latents[i], noise[i], noise[i], int(t[i]), "epsilon", False, lambda s: min(s, 5) / s, huber) * float(given.weight[i]) for i in range(4)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_full_mask_is_no_mask_bit_for_bit_and_half_a_mask_is_half_the_picture():
    objective, noise, t = Diffusion(unmasked_weight=0.0), rand(1, 4, 4, 6, 5), torch.tensor([0, 300, 650, 999])
    plain = objective.losses(predict, EPS, batch(), noise, t)
    assert torch.equal(objective.losses(predict, EPS, batch(torch.ones(4, 1, 6, 5)), noise, t), plain)
    mask = torch.zeros(4, 1, 6, 5)
    mask[:, :, :3] = 1
    half = Batch(batch().latents[:, :, :3], None, None, batch().weight)
    torch.testing.assert_close(objective.losses(predict, EPS, batch(mask), noise, t), objective.losses(predict, EPS, half, noise[:, :, :3], t))


MEANINGLESS = {
    "epsilon and zero-terminal": ({"prediction": "epsilon", "zero_terminal_snr": True}, r"divide by an SNR of 0.*prediction = \"v_prediction\""),
    "epsilon, zero-terminal, min-SNR": ({"prediction": "epsilon", "zero_terminal_snr": True, "min_snr": 5.0}, "min-SNR divide by an SNR of 0"),
    "debiased and min-SNR": ({"debiased": True}, "weigh the same timesteps twice. Set min_snr = 0"),
    "adaptive without an offset": ({"adaptive_offset": 0.1}, "adapts noise_offset, which is 0"),
    "discount without a pyramid": ({"pyramid_discount": 0.8}, "of the layers of pyramid, which is 0"),
    "an empty range": ({"timesteps": {"low": 200, "high": 200}}, "no timestep is left"),
    "huber of 0": ({"loss": {"kind": "huber", "c": 0.0}}, "loss.c = 0.0: Input should be greater than 0"),
    "huber's c for squares": ({"loss": {"c": 0.1}}, 'there is no key "loss.c"'),
    "a misspelt key": ({"min_snrr": 5.0}, 'no key "min_snrr". Did you mean "min_snr"'),
    "a misspelt kind": ({"timesteps": {"kind": "cubik"}}, 'Did you mean "cubic"'),
}


@pytest.mark.parametrize(("tree", "reason"), MEANINGLESS.values(), ids=MEANINGLESS.keys())
def test_what_has_no_meaning_is_refused_with_the_reason(tree, reason):
    with pytest.raises(RecipeError, match=reason):
        Diffusion.from_tree(tree, "recipe.toml")


def test_what_only_the_model_can_tell_is_refused_by_check():
    with pytest.raises(RecipeError, match=r"objective.zero_terminal_snr is set, and the base predicts noise.*or objective.zero_terminal_snr = false\."):
        Diffusion(zero_terminal_snr=True).check(EPS)
    with pytest.raises(RecipeError, match=r"the base's scheduler has zero-terminal SNR.*Set objective.prediction = \"v_prediction\"\.$"):
        Diffusion().check(EPS.zero_terminal())
    with pytest.raises(RecipeError, match="has 10 timesteps"):
        Diffusion().check(Schedule.from_config(CONFIG | {"num_train_timesteps": 10}))
    for fine in (Diffusion(), Diffusion(zero_terminal_snr=True, prediction="v_prediction"), Diffusion(timesteps={"high": 200})):
        fine.check(EPS)
    Diffusion(zero_terminal_snr=True).check(V)


def test_remarks_tell_what_is_allowed_and_odd():
    assert Diffusion().remarks(EPS) == () and Diffusion().remarks(V) == ()
    odd = Diffusion(prediction="v_prediction", zero_terminal_snr=True, noise_offset=0.05).remarks(EPS)
    assert len(odd) == 3 and "is to learn v_prediction" in odd[0] and "Set objective.min_snr = 0" in odd[1] and "plain noise" in odd[2]
    assert Diffusion(zero_terminal_snr=True, min_snr=0.0).remarks(V) == ()


def test_what_is_learned_is_drawn_with_its_own_schedule():
    assert Diffusion().drawn_with(CONFIG) == CONFIG
    changed = Diffusion(prediction="v_prediction", zero_terminal_snr=True).drawn_with(CONFIG)
    assert changed == CONFIG | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    again = Schedule.from_config(changed)
    ours = Diffusion(prediction="v_prediction", zero_terminal_snr=True).schedule(EPS)
    assert torch.equal(again.alpha_bar, ours.alpha_bar) and again.prediction == ours.prediction
