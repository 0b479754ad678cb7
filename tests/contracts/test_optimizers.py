"""Every optimizer keeps its contract: it learns, goes on exactly from a checkpoint with every schedule, keeps what it said it would, refuses what it
does not know."""

import json
import math
import tomllib
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from darkroom.errors import RecipeError, RunError
from darkroom.spec import Spec
from darkroom.train.optimizers import AdamW, Optimizer
from darkroom.train.optimizers.state import effective_rate, load_into, set_rates, settled, state_of
from darkroom.train.rates import Schedule

MEMBERS = {get_args(each)[0].model_fields["kind"].default: get_args(each)[0] for each in get_args(get_args(Optimizer)[0])}
SCHEDULES = {
    "constant": {"warmup": 2},
    "linear": {},
    "cosine": {"warmup": 0.3, "floor": 0.1},
    "cosine_with_restarts": {"cycles": 2},
    "polynomial": {"power": 2.0},
    "rex": {},
}
PACKAGES = {"adamw8bit": "bitsandbytes", "lion8bit": "bitsandbytes", "lion": "pytorch_optimizer", "dadaptation": "pytorch_optimizer", "prodigy": "prodigyopt",
            "schedule_free": "schedulefree"}  # fmt: skip
VARIANTS = {
    **{kind: made() for kind, made in MEMBERS.items()},
    "adafactor, relative": MEMBERS["adafactor"](rate=1, relative_step=True, warmup_init=True, scale_parameter=True),
    "adafactor, beta1": MEMBERS["adafactor"](beta1=0.9, weight_decay=0.01),
    "prodigy, sliced": MEMBERS["prodigy"](slice_p=11, growth_rate=1.5, beta3=0.9),
    "schedule_free, weighted": MEMBERS["schedule_free"](r=1.0),
}
STEPS = 7


class Holder(Spec):
    optimizer: Optimizer = AdamW()


def needs(optimizer):
    if optimizer.kind in PACKAGES:
        pytest.importorskip(PACKAGES[optimizer.kind], reason="of an extra: pip install sdxl-darkroom[optim,gpu]")


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def optimizer(request):
    needs(request.param)
    return request.param


def alone(optimizer):
    """Whether it sets one rate for all."""
    return optimizer.kind in ("prodigy", "dadaptation") or getattr(optimizer, "relative_step", False)


class Toy:
    """A training in small: two groups with rates of their own, a tensor large enough for 8 bits, one that starts at 0 as LoRA's does."""

    def __init__(self, optimizer, accumulate=1, total=STEPS):
        self.spec, self.accumulate, self.total = optimizer, accumulate, total
        dice = torch.Generator().manual_seed(0)
        self.down = torch.nn.Parameter(torch.randn(72, 64, generator=dice) / 8)
        self.up = torch.nn.Parameter(torch.zeros(6, 72))
        self.bias = torch.nn.Parameter(torch.randn(6, generator=dice))
        self.truth = torch.randn(64, 6, generator=dice) / 8
        second = optimizer.rate if alone(optimizer) else optimizer.rate / 2
        self.optimizer = optimizer.build([{"params": [self.down, self.up], "lr": optimizer.rate}, {"params": [self.bias], "lr": second}])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def loss(self, seed):
        x = torch.randn(16, 64, generator=torch.Generator().manual_seed(seed))
        return ((x @ self.down.T).tanh() @ self.up.T + self.bias - x @ self.truth).square().mean()

    def step(self, number):
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(self.accumulate):
            (self.loss(number * self.accumulate + part) / self.accumulate).backward()
        set_rates(self.optimizer, self.rates, self.spec.factor(number, self.total))
        self.optimizer.step()

    @property
    def weights(self):
        return {name: getattr(self, name).detach().clone() for name in ("down", "up", "bias")}

    def saved(self):
        """As bytes, the way a run folder keeps it."""
        tensors, facts = state_of(self.optimizer)
        return save({**{f"weights.{k}": v for k, v in self.weights.items()}, **{f"optimizer.{k}": v for k, v in tensors.items()}}), json.dumps(facts)

    def load(self, tensors, facts):
        found = load(tensors)
        with torch.no_grad():
            for name in ("down", "up", "bias"):
                getattr(self, name).copy_(found[f"weights.{name}"])
        load_into(self.optimizer, {k.removeprefix("optimizer."): v for k, v in found.items() if k.startswith("optimizer.")}, json.loads(facts))


def paces(optimizer):
    """The optimizer with every schedule that it takes, by name."""
    takes = {"schedule_free": {"constant"}}.get(optimizer.kind, SCHEDULES.keys())
    takes = set() if getattr(optimizer, "relative_step", False) else takes  # not even a warm-up
    found = {}
    for name, changes in SCHEDULES.items():
        tree = {**optimizer.model_dump(), "schedule": name, **changes}
        if name in takes:
            found[name] = type(optimizer).model_validate(tree)
        else:
            with pytest.raises(ValidationError, match="schedule"):
                type(optimizer).model_validate(tree)
    return found


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_schedule_is_tried():
    assert SCHEDULES.keys() == set(get_args(Schedule))


class TestEveryOptimizer:
    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_a_checkpoint_goes_on_exactly(self, optimizer, accumulate):
        for name, paced in {"as it is": optimizer, **paces(optimizer)}.items():
            whole, first, second = Toy(paced, accumulate), Toy(paced, accumulate), Toy(paced, accumulate)
            for number in range(STEPS):
                whole.step(number)
            for number in range(3):
                first.step(number)
            second.load(*first.saved())
            for number in range(3, STEPS):
                second.step(number)
            assert equal(whole.weights, second.weights), name
            assert whole.saved() == second.saved(), name

    def test_a_checkpoint_of_no_step_is_a_fresh_start(self, optimizer):
        fresh, loaded = Toy(optimizer), Toy(optimizer)
        loaded.load(*Toy(optimizer).saved())
        for number in range(3):
            fresh.step(number)
            loaded.step(number)
        assert equal(fresh.weights, loaded.weights)

    def test_thirty_steps_lower_the_loss(self, optimizer):
        changes = {} if alone(optimizer) else {"rate": 1e-2}
        toy = Toy(optimizer.model_copy(update=changes), total=30)
        with torch.no_grad():
            before = sum(float(toy.loss(seed)) for seed in range(1000, 1010))
        for number in range(30):
            toy.step(number)
        with settled(toy.optimizer), torch.no_grad():
            assert sum(float(toy.loss(seed)) for seed in range(1000, 1010)) < before
        assert not equal(toy.weights, Toy(optimizer).weights)

    def test_looking_at_the_settled_weights_changes_no_later_step(self, optimizer):
        looked, plain = Toy(optimizer), Toy(optimizer)
        with settled(looked.optimizer):
            pass
        for number in range(STEPS):
            looked.step(number)
            with settled(looked.optimizer):
                pass
            plain.step(number)
        assert looked.saved() == plain.saved()

    def test_its_forecast_of_memory_is_what_it_keeps(self, optimizer):
        toy = Toy(optimizer)
        toy.step(0)
        toy.step(1)
        for parameter in (toy.down, toy.bias):  # not the one that starts at 0, of which Prodigy keeps less
            kept = {key: value for key, value in toy.optimizer.state[parameter].items() if isinstance(value, torch.Tensor) and key != "step"}
            assert optimizer.state_bytes(tuple(parameter.shape)) == sum(value.numel() * value.element_size() for value in kept.values())

    def test_state_of_another_is_refused(self, optimizer):
        other = VARIANTS["adafactor" if optimizer.kind == "adamw" else "adamw"]
        tensors, facts = state_of(Toy(optimizer).optimizer)
        with pytest.raises(RunError, match=r"belongs to another recipe or base\. Start a new run"):
            load_into(Toy(other).optimizer, tensors, facts)

    def test_survives_toml(self, optimizer):
        holder = Holder(optimizer=optimizer)
        assert Holder.from_tree(tomllib.loads(holder.to_toml()), "test") == holder

    def test_an_unknown_argument_is_refused(self, optimizer):
        with pytest.raises(RecipeError, match=r'no key "optimizer\.weight_decai".*Did you mean "weight_decay"'):
            Holder.from_tree({"optimizer": {**optimizer.model_dump(exclude_none=True), "weight_decai": 0.1}}, "test")

    def test_every_field_is_described(self, optimizer):
        assert all(info.description for name, info in type(optimizer).model_fields.items() if name != "kind")

    def test_the_rate_in_the_log_is_one_that_was_learned_with(self, optimizer):
        total = 150 if alone(optimizer) else 30  # those that find their own take a hundred steps to do so
        toy = Toy(optimizer, total=total)
        for number in range(total):
            toy.step(number)
        found = effective_rate(toy.optimizer)
        assert math.isfinite(found) and found > 0
        if not alone(optimizer):
            assert found == toy.rates[0] * optimizer.factor(total - 1, total)
        if optimizer.kind in ("prodigy", "dadaptation"):
            assert optimizer.d0 * 10 < found, "it never found a rate"


def test_a_table_without_a_kind_is_adamw():
    assert Holder.from_tree({"optimizer": {"rate": 1e-3}}, "test").optimizer == AdamW(rate=1e-3)
    with pytest.raises(RecipeError, match=r'optimizer\.kind = "prodgy": there is no such kind\. Did you mean "prodigy"'):
        Holder.from_tree({"optimizer": {"kind": "prodgy"}}, "test")
