"""Each optimizer is the one that its papers and libraries mean; what has no meaning, and what is not installed, is said."""

import math
import sys
from itertools import pairwise

import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.spec import Spec
from darkroom.train.optimizers import Adafactor, AdamW, AdamW8bit, DAdaptation, Lion, Lion8bit, Optimizer, Prodigy, ScheduleFree
from darkroom.train.optimizers.state import effective_rate, set_rates, settled

COUNT = 12


class Holder(Spec):
    optimizer: Optimizer = AdamW()


def gradient(step, shape=(5, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def start():
    return torch.nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64))


def stepped(spec, count=COUNT):
    """A float64 weight after `count` given gradients."""
    weight = start()
    optimizer = spec.build([{"params": [weight], "lr": spec.rate}])
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(count):
        weight.grad = gradient(step)
        set_rates(optimizer, rates, spec.factor(step, count))
        optimizer.step()
    return weight.detach().clone(), optimizer


def test_adamw_is_the_papers():
    spec = AdamW(rate=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6, schedule="cosine", warmup=3)
    w, m, v = start().detach(), 0.0, 0.0
    for k in range(COUNT):
        rate = 0.01 * ((k + 1) / 3 if k < 3 else 0.5 + 0.5 * math.cos(math.pi * (k - 3) / (COUNT - 3)))
        g = gradient(k)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        w = w - rate * 0.1 * w - rate * (m / (1 - 0.8 ** (k + 1))) / ((v / (1 - 0.95 ** (k + 1))).sqrt() + 1e-6)
    torch.testing.assert_close(stepped(spec)[0], w, rtol=1e-10, atol=1e-12)


def test_lion_is_the_papers():
    """Chen et al. 2023, algorithm 2."""
    pytest.importorskip("pytorch_optimizer")
    w, m = start().detach(), torch.zeros(5, 3, dtype=torch.float64)
    for k in range(COUNT):
        g = gradient(k)
        w = w - 0.01 * ((0.9 * m + 0.1 * g).sign() + 0.2 * w)
        m = 0.99 * m + 0.01 * g
    torch.testing.assert_close(stepped(Lion(rate=0.01, weight_decay=0.2))[0], w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("correct", [False, True])
def test_dadaptation_is_the_papers(correct):
    """Defazio and Mishchenko 2023, algorithm 5, with the authors' correction of the first steps."""
    pytest.importorskip("pytorch_optimizer")
    w, d, r = start().detach(), 1e-2, 0.0
    m = v = s = torch.zeros(5, 3, dtype=torch.float64)
    root = math.sqrt(0.999)
    for k in range(COUNT):
        g = gradient(k)
        step = d * (math.sqrt(1 - 0.999 ** (k + 1)) / (1 - 0.9 ** (k + 1)) if correct else 1)
        r = root * r + (1 - root) * step * float((g * (s / (v.sqrt() + 1e-8))).sum())
        m, v = 0.9 * m + 0.1 * step * g, 0.999 * v + 0.001 * g * g
        s = root * s + (1 - root) * step * g
        w = w - step * 0.1 * w - m / (v.sqrt() + 1e-8)
        d = max(d, r / ((1 - root) * float(s.abs().sum())))
    found, optimizer = stepped(DAdaptation(d0=1e-2, weight_decay=0.1, bias_correction=correct))
    torch.testing.assert_close(found, w, rtol=1e-4, atol=1e-6)
    assert effective_rate(optimizer) == pytest.approx(d, rel=1e-4)


def test_prodigy_finds_the_distance_and_its_arguments_arrive():
    pytest.importorskip("prodigyopt")
    spec = Prodigy(d_coef=0.5, d0=1e-4, growth_rate=1.2, beta3=0.9, slice_p=2, safeguard_warmup=False, bias_correction=False, decouple=False, weight_decay=0.1)
    weight, target = start(), torch.ones(5, 3, dtype=torch.float64)
    optimizer = spec.build([{"params": [weight], "lr": 1.0}])
    group = optimizer.param_groups[0]
    assert {k: group[k] for k in ("d_coef", "d0", "growth_rate", "beta3", "slice_p")} == {
        "d_coef": 0.5,
        "d0": 1e-4,
        "growth_rate": 1.2,
        "beta3": 0.9,
        "slice_p": 2,
    }
    assert (group["safeguard_warmup"], group["use_bias_correction"], group["decouple"], group["weight_decay"]) == (False, False, False, 0.1)
    found = []
    for _ in range(40):
        weight.grad = weight.detach() - target
        optimizer.step()
        found.append(effective_rate(optimizer))
    assert found == sorted(found) and found[-1] > 10 * found[0]
    grown = [rate for rate in found if rate > spec.d0]  # its first leap has no limit
    assert all(b <= a * 1.2000001 for a, b in pairwise(grown))


@pytest.mark.parametrize("made", [Prodigy, DAdaptation])
def test_a_fixed_rate_left_in_a_recipe_is_told(made):
    assert any("should be about 1. Set optimizer.rate = 1" in text for text in made(rate=1e-4).remarks(100))
    assert made().remarks(100) == ()


def test_no_limit_is_no_limit():
    pytest.importorskip("prodigyopt")
    assert Prodigy().build([{"params": [start()], "lr": 1.0}]).param_groups[0]["growth_rate"] == math.inf


def test_adafactor_is_the_papers_with_a_rate_of_its_own():
    """Shazeer and Stern 2018, algorithm 4, without relative steps: what sd-scripts recommends."""
    w, row, column = start().detach(), torch.zeros(5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for k in range(COUNT):
        g, decay = gradient(k), 1 - (k + 1) ** -0.8
        square = g * g + 1e-30
        row, column = decay * row + (1 - decay) * square.mean(1), decay * column + (1 - decay) * square.mean(0)
        update = g / (row[:, None] * column[None, :] / row.mean()).sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt()) / 0.5)
        w = w - 0.01 * update
    torch.testing.assert_close(stepped(Adafactor(rate=0.01, clip_threshold=0.5))[0], w, rtol=1e-7, atol=1e-9)


def test_adafactors_relative_step_is_logged():
    _, optimizer = stepped(Adafactor(rate=1, relative_step=True, warmup_init=True))
    assert effective_rate(optimizer) == pytest.approx(1e-6 * COUNT)


def test_schedule_free_warms_up_as_its_authors_do_and_settles_on_the_average():
    schedulefree = pytest.importorskip("schedulefree")
    found, optimizer = stepped(ScheduleFree(rate=0.01, warmup=4, r=1.0, weight_decay=0.1))
    weight = start()
    theirs = schedulefree.AdamWScheduleFree([weight], lr=0.01, warmup_steps=4, r=1.0, weight_decay=0.1)
    theirs.train()
    for step in range(COUNT):
        weight.grad = gradient(step)
        theirs.step()
    assert torch.equal(found, weight.detach())
    theirs.eval()
    ours = optimizer.param_groups[0]["params"][0]
    with settled(optimizer):
        assert torch.equal(ours, weight) and not torch.equal(ours, found)
    assert torch.equal(ours, found)


def test_an_error_while_settled_brings_the_learned_weights_back():
    pytest.importorskip("schedulefree")
    found, optimizer = stepped(ScheduleFree(rate=0.01))
    with pytest.raises(KeyError), settled(optimizer):
        raise KeyError
    assert torch.equal(optimizer.param_groups[0]["params"][0], found) and optimizer.param_groups[0]["train_mode"]


@pytest.mark.parametrize(("made", "bits"), [(AdamW8bit, AdamW), (Lion8bit, Lion)])
def test_eight_bits_step_nearly_as_thirty_two(made, bits):
    for package in ("bitsandbytes", "pytorch_optimizer"):
        pytest.importorskip(package)

    def learned(spec):
        weight = torch.nn.Parameter(torch.zeros(64, 80))
        optimizer = spec.build([{"params": [weight], "lr": spec.rate}])
        for step in range(10):
            weight.grad = gradient(step, (64, 80)).float()
            optimizer.step()
        assert ("state1" in optimizer.state[weight]) == (spec.kind.endswith("8bit"))
        return weight.detach()

    few, many = learned(made(rate=1e-3, weight_decay=0.0)), learned(bits(rate=1e-3, weight_decay=0.0))
    assert float((few - many).abs().mean()) < 0.1 * float(many.abs().mean())
    assert not torch.equal(few, many)


REFUSED = {
    "warmup_init alone": ({"kind": "adafactor", "warmup_init": True}, "warmup_init is a part of relative_step, which is off"),
    "a rate beside relative steps": ({"kind": "adafactor", "relative_step": True}, "the rate follows from the step alone. Set rate = 1"),
    "a schedule beside relative steps": ({"kind": "adafactor", "relative_step": True, "rate": 1, "warmup": 5}, "schedule and warmup would do nothing"),
    "schedule-free with a schedule": ({"kind": "schedule_free", "schedule": "cosine"}, "needs none, and the average would be wrong"),
    "schedule-free without a first beta": ({"kind": "schedule_free", "betas": [0.0, 0.9]}, "the first must be above 0"),
    "a rate that cannot grow": ({"kind": "prodigy", "growth_rate": 0.9}, "could never grow"),
    "AdamW's rate for a negative": ({"kind": "adamw", "rate": -1e-4}, "optimizer.rate = -0.0001: Input should be greater than 0"),
    "another's argument": ({"kind": "adamw", "d_coef": 2.0}, 'no key "optimizer.d_coef"'),
    "cycles without restarts": ({"cycles": 3}, "cycles = 3: does nothing"),
}


@pytest.mark.parametrize(("tree", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_meaning_is_refused_with_the_reason(tree, reason):
    with pytest.raises(RecipeError, match=reason):
        Holder.from_tree({"optimizer": tree}, "recipe.toml")


@pytest.mark.parametrize("spec", [Prodigy(), DAdaptation(), Adafactor(rate=1, relative_step=True)], ids=lambda spec: spec.kind)
def test_parts_with_rates_of_their_own_are_refused_where_one_rate_is_found(spec):
    with pytest.raises(RecipeError, match=r"parts have their own \(a factor of 0.5 beside 1\).*method.text_rate = 1"):
        spec.build([{"params": [start()], "lr": 1.0}, {"params": [start()], "lr": 0.5}])


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        (AdamW8bit(), "bitsandbytes", "gpu"),
        (Lion8bit(), "bitsandbytes", "gpu"),
        (Lion(), "pytorch_optimizer", "optim"),
        (DAdaptation(), "pytorch_optimizer", "optim"),
        (Prodigy(), "prodigyopt", "optim"),
        (ScheduleFree(), "schedulefree", "optim"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_is_not_installed_is_said(monkeypatch, spec, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RecipeError, match=rf'optimizer.kind = "{spec.kind}" is of the package {package}.*pip install "sdxl-darkroom\[{extra}\]"'):
        spec.build([{"params": [start()], "lr": spec.rate}])


def test_building_one_prints_nothing(capsys):
    pytest.importorskip("prodigyopt")
    Prodigy(weight_decay=0.1).build([{"params": [start()], "lr": 1.0}])
    assert capsys.readouterr().out == ""
