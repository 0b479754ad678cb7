"""Steps within the backward pass: the same bits as steps after it, less memory, and no step that cannot be taken so."""

import dataclasses
import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from torch import nn

from darkroom.errors import RecipeError, RunError
from darkroom.jobs.train import prepare
from darkroom.methods import FullTuning
from darkroom.train.fused import OneByOne, by_chance, draws
from darkroom.train.loop import Trainer, checkpointing
from darkroom.train.optimizers import Optimizer
from darkroom.train.optimizers.state import load_into, settled, state_of
from darkroom.train.recipe import load_recipe
from darkroom.train.rules import refusals

MEMBERS = {get_args(each)[0].model_fields["kind"].default: get_args(each)[0] for each in get_args(get_args(Optimizer)[0])}
PACKAGES = {"adamw8bit": "bitsandbytes", "lion8bit": "bitsandbytes", "lion": "pytorch_optimizer", "schedule_free": "schedulefree"}
TOGETHER = {"prodigy", "dadaptation"}
ALONE = {
    **{kind: made() for kind, made in MEMBERS.items() if kind not in TOGETHER},
    "adafactor, relative": MEMBERS["adafactor"](rate=1, relative_step=True, warmup_init=True, scale_parameter=True),
    "adafactor, beta1": MEMBERS["adafactor"](beta1=0.9, weight_decay=0.01),
    "schedule_free, weighted": MEMBERS["schedule_free"](r=1.0),
}


def needs(optimizer):
    if optimizer.kind in PACKAGES:
        pytest.importorskip(PACKAGES[optimizer.kind], reason="of an extra: pip install sdxl-darkroom[optim,gpu]")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 96), nn.LayerNorm(96), nn.Linear(96, 96), nn.Linear(96, 8, bias=False))


def groups(net, optimizer):
    """Two rates, where the optimizer knows rates of their own."""
    if getattr(optimizer, "relative_step", False):
        return [{"params": list(net.parameters()), "lr": optimizer.rate}]
    return [{"params": list(net[:2].parameters()), "lr": 1e-2}, {"params": list(net[2:].parameters()), "lr": 1e-3}]


def backward(net, number):
    x = torch.randn(8, 96, generator=torch.Generator().manual_seed(number))
    net(x).square().mean().backward()


@pytest.mark.parametrize("optimizer", ALONE.values(), ids=ALONE.keys())
class TestEveryOptimizerThatCan:
    def test_the_same_bits_as_all_at_once(self, optimizer):
        needs(optimizer)
        nets, made = [network(), network()], []
        for net in nets:
            made.append(optimizer.build(groups(net, optimizer)))
        alone = OneByOne(made[1], seed=0)
        for number in range(4):
            backward(nets[0], number)
            made[0].step()
            made[0].zero_grad()
            with alone.within(number):
                backward(nets[1], number)
            assert all(parameter.grad is None for parameter in nets[1].parameters())
        for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(a, b)
        (left, facts), (right, same) = state_of(made[0]), state_of(made[1])
        assert facts == same and left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
        with settled(made[0]), settled(made[1]):
            assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))

    def test_goes_on_from_either_kind_of_checkpoint(self, optimizer):
        """The file layout is one: a run may turn fused on or off at a resume."""
        needs(optimizer)
        found = []
        for first, then in ((False, True), (True, False), (True, True)):
            net = network()
            made = optimizer.build(groups(net, optimizer))
            take(net, made, range(2), first)
            tensors, facts = state_of(made)
            again = optimizer.build(groups(net, optimizer))
            load_into(again, tensors, facts)
            take(net, again, range(2, 4), then)
            found.append([parameter.detach().clone() for parameter in net.parameters()])
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def take(net, optimizer, numbers, fused):
    alone = OneByOne(optimizer, seed=0)
    for number in numbers:
        if fused:
            with alone.within(number):
                backward(net, number)
        else:
            backward(net, number)
            optimizer.step()
            optimizer.zero_grad()


def test_hooks_are_gone_after_the_step():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with OneByOne(optimizer, 0).within(0):
        backward(net, 0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    backward(net, 1)
    assert all(torch.equal(a, b) and b.grad is not None for a, b in zip(before, net.parameters(), strict=True))


def test_the_norm_is_that_of_all_gradients_and_each_is_clipped_as_torch_clips():
    net, other = network(), network()
    alone = OneByOne(torch.optim.SGD(net.parameters(), lr=1.0), 0, most=1e-3)
    with alone.within(0):
        backward(net, 0)
    backward(other, 0)
    gradients = [parameter.grad.clone() for parameter in other.parameters()]
    assert alone.norm() == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other.parameters(), math.inf)), rel=1e-6)
    for parameter, gradient in zip(other.parameters(), gradients, strict=True):
        parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_([parameter], 1e-3)
    torch.optim.SGD(other.parameters(), lr=1.0).step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def peak(work):
    """The most bytes that torch held at a time, by its own account of every allocation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_gradients_are_never_all_held():
    side, layers = 512, 8
    found = {}
    for fused in (False, True):
        net = nn.Sequential(*[nn.Linear(side, side, bias=False) for _ in range(layers)])
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        alone, x = OneByOne(optimizer, 0), torch.randn(1, side)

        def step(net=net, optimizer=optimizer, alone=alone, x=x, fused=fused):
            if fused:
                with alone.within(0):
                    net(x).sum().backward()
            else:
                net(x).sum().backward()
                optimizer.step()
                optimizer.zero_grad()

        found[fused] = peak(step)
    weight = 4 * side * side
    assert found[False] >= layers * weight, "a plain step holds every gradient"
    assert found[True] <= found[False] - (layers - 2) * weight, f"{found[True]} bytes rather than {found[False]}"


class TestRoundingByChance:
    def test_the_mean_is_kept(self):
        value = torch.full((1 << 18,), 1 + 0.3 * 2**-7)  # three tenths of the way from 1 to the next bf16
        rounded = by_chance(value, seed=5).float()
        assert set(rounded.unique().tolist()) == {1.0, 1 + 2**-7}
        up = float((rounded > 1).float().mean())
        assert up == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / value.numel()))
        assert float(by_chance(-value, 5).float().mean()) == pytest.approx(-float(value[0]), abs=1e-4)

    def test_what_bf16_can_say_stays(self):
        value = torch.tensor([0.0, -0.0, 1.0, -2.5, 3e38, 1e-38, math.inf, -math.inf]).bfloat16().float()
        for seed in range(20):
            assert torch.equal(by_chance(value, seed).float(), value)

    def test_a_pure_function_of_the_seed(self):
        value = torch.randn(64, 3, 3)
        assert torch.equal(by_chance(value, 7), by_chance(value.clone(), 7))
        assert not torch.equal(by_chance(value, 7), by_chance(value, 8))
        assert not torch.equal(by_chance(value, 7), by_chance(value, 7 + (1 << 40))), "both halves of the seed count"

    def test_draws_are_even_and_seeds_unlike(self):
        found = [draws(1 << 16, seed, torch.device("cpu")) for seed in (1, 2, 3 << 33)]
        for each in found:
            assert int(each.min()) >= 0 and int(each.max()) < 1 << 16
            counts = torch.bincount(each >> 8, minlength=256).double()
            assert float(((counts - 256).square() / 256).sum()) < 255 + 5 * math.sqrt(2 * 255)  # chi-square, five standard deviations
        together = torch.stack(found).double()
        assert float((torch.corrcoef(together) - torch.eye(3)).abs().max()) < 5 / math.sqrt(1 << 16)
        assert abs(float(torch.corrcoef(torch.stack([together[0][1:], together[0][:-1]]))[0, 1])) < 5 / math.sqrt(1 << 16)

    def test_small_steps_are_not_lost(self):
        """A thousand steps of a thousandth of what bf16 can tell at 1: rounded to nearest, the weight would never move."""
        weight = nn.Parameter(torch.ones(256, dtype=torch.bfloat16))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        alone = OneByOne(optimizer, seed=0)
        for number in range(1000):
            weight.grad = torch.full_like(weight, 2**-17)
            alone.after(number)
        assert weight.dtype == torch.bfloat16
        assert float(weight.detach().float().mean()) == pytest.approx(1 - 1000 * 2**-17, abs=1e-3)


@pytest.fixture
def recipe(cats):
    def make(*settings):
        usual = ("train.length=2 steps", "device=cpu", "data.batch_size=2", "data.resolution=32", "optimizer.rate=1e-4", "optimizer.warmup=0",
                 "train.gradient_checkpointing=false")  # fmt: skip
        return load_recipe("full", usual + settings, data={"images": str(cats), "subject": "TOK cat"})

    return make


def learned(recipe):
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        with checkpointing(recipe, model):
            figures = [trainer.step(number) for number in range(2)]
        return trainer.state(), figures
    finally:
        attached.detach()


@pytest.mark.parametrize(
    "settings",
    [
        ("train.max_grad_norm=0",),
        ("train.max_grad_norm=0.01", "train.clip=each", "optimizer.kind=adamw"),
        ("train.max_grad_norm=0", "method.text_encoders=true", "train.gradient_checkpointing=true"),
        ("train.max_grad_norm=0.01", "train.clip=each", "train.precision=bf16", "method.weights=bf16"),
    ],
    ids=["plain", "clipped", "text, checkpointed", "bf16"],
)
def test_a_training_learns_the_same_bits(recipe, settings):
    ((left, facts), figures), ((right, same), others) = (learned(recipe(*settings, f"train.fused={fused}")) for fused in ("false", "true"))
    assert left.keys() == right.keys() and facts == same
    assert all(torch.equal(left[name], right[name]) for name in left)
    for mine, other in zip(figures, others, strict=True):
        assert mine["loss"] == other["loss"] and mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("train.accumulate=2",), "train.accumulate = 2 batches are never added up.*train.accumulate = 1"),
        (("train.max_grad_norm=1",), 'train.max_grad_norm = 1 would limit.*train.clip = "each".*max_grad_norm = 0'),
        (("health.bad_losses=2",), "health.bad_losses = 1"),
        (("train.precision=fp16",), 'train.precision = "bf16"'),
        *((("optimizer.kind=" + kind, "optimizer.rate=1"), "finds its rate from all of them together") for kind in sorted(TOGETHER)),
        (("method.ema=0.9", "optimizer.kind=schedule_free"), "keeps an average of the weights already"),
        (("method.weights=bf16", "train.precision=fp32"), 'what learns must compute in bf16. Set train.precision = "bf16"'),
        (("method.weights=bf16", "train.fused=false", "optimizer.kind=dadaptation", "optimizer.rate=1"), 'method.weights = "bf16" steps one tensor at a time'),
        (("method.ema_on_host=true",), "method.ema = 0 is none"),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_reason(recipe, settings, reason):
    with pytest.raises(RecipeError, match=reason):
        recipe(*settings)


def test_fp16_of_an_old_card_is_refused_too(recipe):
    """precision = "auto" may turn out to be fp16."""
    asked = recipe()
    model, plan = prepare(asked)
    half = dataclasses.replace(model, dtype=torch.float16)
    attached = asked.method.attach(model, 0)
    try:
        with pytest.raises(RecipeError, match=r"train\.fused = false"):
            Trainer(asked, plan, half, attached)
    finally:
        attached.detach()


def test_a_gradient_that_is_no_number_stops_the_training(recipe):
    asked = recipe()
    model, plan = prepare(asked)
    attached = asked.method.attach(model, 0)
    try:
        trainer = Trainer(asked, plan, model, attached)
        attached.learned[0].parameter.data.fill_(math.inf)
        with pytest.raises(RunError, match="diverged"):
            trainer.step(0)
    finally:
        attached.detach()


@pytest.mark.parametrize(("said", "reason"), [({"quantise": "fp8"}, "or learn an adapter"), ({"swap_blocks": 2}, "train.fused saves memory here")])
def test_a_whole_model_can_neither_be_rounded_nor_sent_away(said, reason):
    train = SimpleNamespace(**{"quantise": "no", "swap_blocks": 0, "fused": False, "sharding": "no", "precision": "auto", **said})
    found = list(refusals(SimpleNamespace(method=FullTuning(), train=train, optimizer=MEMBERS["adamw"]())))
    assert len(found) == 1 and reason in found[0]
