"""LyCORIS' methods: shapes, starts and formulas are lycoris-lora's own; what belongs to another algorithm is refused; draws belong to the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from darkroom.errors import RecipeError
from darkroom.methods import LoRA, LyCORIS, starts
from darkroom.methods.woven import changed
from darkroom.train.recipe import Recipe, load_recipe

MODULES = {"linear": nn.Linear(48, 96), "conv": nn.Conv2d(32, 48, 3, padding=1), "wide": nn.Linear(160, 40), "point": nn.Conv2d(16, 32, 1)}
CASES: dict[str, tuple[LyCORIS, str, dict[str, Any]]] = {
    "locon": (LyCORIS(algorithm="locon", rank=4, alpha=2.0), "LoConModule", {}),
    "dora": (LyCORIS(algorithm="locon", rank=4, alpha=2.0, dora=True), "LoConModule", {"weight_decompose": True}),
    "loha": (LyCORIS(algorithm="loha", rank=4, alpha=2.0), "LohaModule", {}),
    "lokr": (LyCORIS(algorithm="lokr", rank=2, alpha=2.0), "LokrModule", {}),
    "lokr factor": (LyCORIS(algorithm="lokr", rank=2, alpha=2.0, factor=8), "LokrModule", {"factor": 8}),
    "lokr both": (LyCORIS(algorithm="lokr", rank=1, decompose_both=True, factor=4), "LokrModule", {"decompose_both": True, "factor": 4}),
    "lokr whole": (LyCORIS(algorithm="lokr", rank=64), "LokrModule", {}),
    "ia3": (LyCORIS(algorithm="ia3"), "IA3Module", {}),
    "ia3 on input": (LyCORIS(algorithm="ia3", on_input=True), "IA3Module", {"train_on_input": True}),
    "diag-oft": (LyCORIS(algorithm="diag-oft", rank=8, constraint=0.01, rescale=True), "DiagOFTModule", {"constraint": 0.01, "rescaled": True}),
    "boft": (LyCORIS(algorithm="boft", rank=10), "ButterflyOFTModule", {}),
    "full": (LyCORIS(algorithm="full"), "FullModule", {}),
}


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("case", CASES)
class TestAgainstLyCORIS:
    def test_the_same_tensors_give_the_same_outputs(self, lycoris, case, name):
        """Every tensor of ours is one of theirs by name and shape; with equal values both modules give equal outputs."""
        method, theirs, options = CASES[case]
        module = MODULES[name].requires_grad_(False)
        thread = method.start(("unet", name), module, dice())
        other = getattr(lycoris.modules, theirs)("x", module, 1.0, lora_dim=method.rank, alpha=method.alpha, **options)
        shapes = {key: tuple(tensor.shape) for key, tensor in other.named_parameters()}
        mine = {thread.method.suffixes[key]: tensor for key, tensor in thread.learned.items()}
        renamed = {"diff": "weight", "dora_scale": "dora_scale"}
        assert {renamed.get(key, key): tuple(tensor.shape) for key, tensor in mine.items()} == {key: shape for key, shape in shapes.items() if key != "bias"}
        with torch.no_grad():
            for number, (key, tensor) in enumerate(mine.items()):
                value = torch.randn(tensor.shape, generator=dice(number)) * 0.1 + (1.0 if key in ("rescale",) else 0.0)
                value = tensor + value.abs() if key == "dora_scale" else value
                tensor.copy_(value)
                dict(other.named_parameters())[renamed.get(key, key)].copy_(value)
            x = torch.randn(2, 5, module.in_features) if isinstance(module, nn.Linear) else torch.randn(2, module.in_channels, 6, 6)
            torch.testing.assert_close(changed(module, thread.change(), x), other(x), rtol=1e-4, atol=1e-4)

    def test_a_start_is_drawn_as_theirs_is(self, lycoris, case, name):
        """What starts at a constant starts there; what is drawn has the same spread, over as many draws as give 2,000 numbers."""
        method, theirs, options = CASES[case]
        module = MODULES[name].requires_grad_(False)

        def their(seed):
            torch.manual_seed(seed)
            return dict(getattr(lycoris.modules, theirs)("x", module, 1.0, lora_dim=method.rank, alpha=method.alpha, **options).named_parameters())

        first, other = method.start(("unet", name), module, dice()), their(0)
        for key, tensor in first.learned.items():
            word = {"diff": "weight"}.get(first.method.suffixes[key], first.method.suffixes[key])
            reference = other[word].detach()
            if key == "dora_scale":
                torch.testing.assert_close(tensor.detach(), reference, rtol=1e-5, atol=1e-5)
            elif reference.unique().numel() == 1:
                assert torch.equal(tensor.detach(), reference.expand_as(tensor)), key
            else:
                draws = range(-(-2000 // tensor.numel()))
                ours = sum(float(method.start(("unet", name), module, dice(seed)).learned[key].detach().pow(2).mean()) for seed in draws) / len(draws)
                assert ours == pytest.approx(sum(float(their(seed)[word].detach().pow(2).mean()) for seed in draws) / len(draws), rel=0.15), key


@pytest.mark.parametrize("size", [1, 7, 48, 96, 127, 128, 160, 250, 320, 360, 640, 1280, 2560, 5120, 10240])
@pytest.mark.parametrize("wanted", [-1, 2, 4, 8, 10, 16])
def test_factors_are_lycoris_own(lycoris, size, wanted):
    from lycoris.functional.general import factorization, power2factorization

    assert starts.factors(size, wanted) == tuple(factorization(size, wanted))
    if wanted > 1:
        side, number = power2factorization(size, wanted)
        assert starts.power_of_two(size, wanted) == ((side, number) if number else (0, 0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("method.kind=lycoris", "method.algorithm=loha", "method.factor=4"), r"method\.factor says nothing to loha: it belongs to lokr"),
        (("method.kind=lycoris", "method.algorithm=full", "method.dora=true"), r"method\.dora says nothing to full"),
        (("method.kind=lycoris", "method.algorithm=dylora", "method.rank=5", "method.block=2"), r"method\.rank = 5 must be a multiple of method\.block = 2"),
        (("method.kind=lycoris", "method.algorithm=loah"), r"method\.algorithm = 'loah'"),
        (("method.kind=lora", "method.factor=4"), r'no key "method\.factor"'),
        (("method.kind=lycors",), r'method\.kind = "lycors".*Did you mean "lycoris"'),
    ],
)
def test_what_belongs_elsewhere_is_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("demo", settings)


def test_a_table_without_a_kind_is_a_lora():
    assert Recipe.from_tree({"method": {"rank": 3}}, "test").method == LoRA(rank=3)


@pytest.mark.parametrize("word", ["down_block.1", "mid_blocks", "input_blocks.4"])
def test_a_word_that_leads_nowhere_is_refused(model, word):
    for field in ("rates", "ranks"):
        with pytest.raises(RecipeError, match=rf'method\.{field}: "{word}" leads to no module'):
            LoRA(**{field: {word: 2}}).attach(model, 0)


def test_boft_says_which_rank_would_do(model):
    with pytest.raises(RecipeError, match=r"method\.rank = 4: .* has 160 outputs.*Set method\.rank to 10 or more"):
        LyCORIS(algorithm="boft", rank=4).attach(model, 0)


def test_rates_make_groups(model):
    method = LoRA(rank=2, text_encoders=True, text_rate=0.5, text_rate_2=0.25, rates={"mid_block": 3.0, "down_blocks": 0.0})
    attached = method.attach(model, 0)
    try:
        groups = {group["name"]: (group["lr"], len(group["params"])) for group in attached.groups(1e-3)}
        assert {name: pytest.approx(rate) for name, (rate, _) in groups.items()} == {"x1": 1e-3, "x3": 3e-3, "x0.5": 5e-4, "x0.25": 2.5e-4}
        assert not any(part == "unet" and path.startswith("down_blocks") for part, path, _ in attached.layers())
    finally:
        attached.detach()


def test_dylora_learns_one_block_of_a_drawn_rank_and_draws_with_all(model):
    """Valipour et al. 2023: the first b ranks are used, the last block of them has a gradient; the same batch gives the same b."""
    attached = LyCORIS(algorithm="dylora", rank=6, block=2, alpha=3.0).attach(model, 0)
    try:
        key = next(iter(attached.threads))
        with torch.no_grad():
            attached.threads[key].learned["up"].normal_(generator=dice())
        module, seen = attached.modules[key], set()
        x = torch.randn(1, 3, module.in_features, generator=dice(1))
        for batch in range(12):
            attached.prepare(batch)
            first = module(x)
            assert torch.equal(first, module(x))
            up, down = attached.threads[key].learned["up"], attached.threads[key].learned["down"]
            up.grad = down.grad = None
            first.sum().backward()
            learned = [column for column in range(6) if bool(down.grad[column].any())]
            used = learned[-1] + 1
            seen.add(used)
            assert learned == [used - 2, used - 1]
            wanted = x @ (module.weight + 3.0 / used * up[:, :used] @ down[:used]).T
            torch.testing.assert_close(first, wanted if module.bias is None else wanted + module.bias, rtol=1e-4, atol=1e-5)
        assert seen == {2, 4, 6}
        attached.prepare(None)
        wanted = x @ (module.weight + 3.0 / 6 * up @ down).T
        torch.testing.assert_close(module(x), wanted if module.bias is None else wanted + module.bias, rtol=1e-4, atol=1e-5)
    finally:
        attached.detach()


def test_dropout_leaves_whole_modules_out_of_a_batch(model):
    attached = LyCORIS(algorithm="full", dropout=0.5).attach(model, 0)
    try:
        left = []
        for batch in range(20):
            attached.prepare(batch)
            left += [attached._dropped(key) for key in attached.threads]
            assert [attached._dropped(key) for key in attached.threads] == left[-len(attached.threads) :]
        spread = (0.25 / len(left)) ** 0.5
        assert abs(sum(left) / len(left) - 0.5) < 4 * spread
        attached.prepare(None)
        assert not any(attached._dropped(key) for key in attached.threads)
    finally:
        attached.detach()


def test_half_precision_keeps_a_small_change():
    """W + delta in bfloat16 would round a change of 1e-4 of W away; op(x, W) + op(x, delta) does not."""
    module = nn.Linear(64, 64, bias=False).to(torch.bfloat16).requires_grad_(False)
    with torch.no_grad():
        module.weight.copy_((1 - torch.arange(64) % 2 * 2).expand(64, 64))  # +1 and -1 cancel over inputs of one
    thread = LyCORIS(algorithm="full").start(("unet", "x"), module, dice())
    with torch.no_grad():
        thread.learned["diff"].fill_(1e-4)
        x = torch.ones(1, 64, dtype=torch.bfloat16)
        assert float(torch.nn.functional.linear(x, (module.weight.float() + 1e-4).to(torch.bfloat16)).abs().max()) == 0, "rounded away"
        assert float(changed(module, thread.change(), x).float().mean()) == pytest.approx(64e-4, rel=0.02)
