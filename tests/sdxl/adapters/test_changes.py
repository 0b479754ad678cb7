"""Changes: what each method adds to a weight, against peft's own layers and against arithmetic by hand. LyCORIS is asked in tests/oracle."""

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from torch import nn

from darkroom.sdxl.adapters.changes import Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft, tensors_of


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def layer_of(conv: bool) -> nn.Module:
    torch.manual_seed(5)
    return nn.Conv2d(6, 10, 3, bias=False) if conv else nn.Linear(6, 10, bias=False)


def peft_layer(layer: nn.Module, config: object) -> nn.Module:
    found = get_peft_model(Net(layer), config).base_model.model.layer
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "base_layer" not in name:
                parameter.copy_(torch.rand_like(parameter) + 0.5 if "magnitude" in name else torch.randn_like(parameter) * 0.3)
    return found


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_are_pefts(conv: bool, dora: bool) -> None:
    layer = layer_of(conv)
    base = layer.weight.detach().clone()
    learned = peft_layer(layer, LoraConfig(r=4, lora_alpha=3, target_modules=["layer"], use_dora=dora))
    magnitude = learned.lora_magnitude_vector["default"].weight.detach().flatten().view(-1, *[1] * (base.ndim - 1)) if dora else None
    change = LowRank(learned.lora_A["default"].weight.detach(), learned.lora_B["default"].weight.detach(), 3.0, dora_scale=magnitude)
    learned.merge()
    torch.testing.assert_close(change.delta(base), learned.base_layer.weight.detach() - base, rtol=1e-5, atol=1e-6)
    assert change.method == ("DoRA" if dora else "LoCon" if conv else "LoRA")


@pytest.mark.parametrize("conv", [False, True])
def test_loha_is_pefts(conv: bool) -> None:
    layer = layer_of(conv)
    learned = peft_layer(layer, LoHaConfig(r=3, alpha=2, target_modules=["layer"]))
    parts = {name: getattr(learned, f"hada_{name}")["default"].detach() for name in ("w1_a", "w1_b", "w2_a", "w2_b")}
    change = Hada(**parts, alpha=2.0)
    torch.testing.assert_close(change.delta(learned.base_layer.weight.detach()), learned.get_delta_weight("default").detach(), rtol=1e-5, atol=1e-6)


def test_lokr_is_pefts() -> None:
    learned = peft_layer(nn.Linear(12, 20, bias=False), LoKrConfig(r=2, alpha=3, target_modules=["layer"], decompose_both=True, decompose_factor=4))
    change = Kron(w1=learned.lokr_w1["default"].detach(), w2_a=learned.lokr_w2_a["default"].detach(), w2_b=learned.lokr_w2_b["default"].detach(), alpha=3.0)
    torch.testing.assert_close(change.delta(learned.base_layer.weight.detach()), learned.get_delta_weight("default").detach(), rtol=1e-5, atol=1e-6)


def test_dora_that_has_learned_nothing_changes_nothing() -> None:
    weight = rand(10, 6, 3, 3)
    for magnitude in (weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1), weight.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, 1, 1)):
        change = LowRank(rand(2, 6, 3, 3), torch.zeros(10, 2, 1, 1), 2.0, dora_scale=magnitude)
        torch.testing.assert_close(change.delta(weight), torch.zeros_like(weight), rtol=0, atol=1e-5)


def test_oft_keeps_lengths_and_starts_as_nothing() -> None:
    weight = rand(16, 6)
    for blocks in (rand(4, 4, 4), rand(3, 4, 4, 4)):
        turned = weight + Oft(blocks).delta(weight)
        torch.testing.assert_close(turned.norm(dim=0), weight.norm(dim=0), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(turned, weight, atol=0.1)
        torch.testing.assert_close(Oft(torch.zeros_like(blocks)).delta(weight), torch.zeros_like(weight))


def test_ofts_alpha_holds_the_turn_back() -> None:
    weight, blocks = rand(16, 6), rand(4, 4, 4)
    assert Oft(blocks, 0.01).delta(weight).norm() < Oft(blocks, 0.1).delta(weight).norm() < Oft(blocks).delta(weight).norm()


def test_ia3_scales_inputs_or_outputs() -> None:
    weight, inputs, outputs = rand(3, 2), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(Ia3(inputs, True).delta(weight), weight * torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(Ia3(outputs, False).delta(weight), weight * torch.tensor([[1.0], [2.0], [3.0]]))


def test_full_and_norm_are_the_difference_itself() -> None:
    diff, bias = rand(3, 2), rand(3)
    assert torch.equal(Full(diff, bias).delta(rand(3, 2, seed=9)), diff) and torch.equal(Full(None, bias).bias, bias)
    assert torch.equal(Norm(bias, bias).delta(torch.ones(3)), bias) and Norm(bias).bias is None


def test_glora_adds_to_the_weight_and_to_its_inputs() -> None:
    weight = rand(3, 2)
    change = Glora(rand(2, 1), rand(1, 2), rand(3, 1), rand(1, 2, seed=3), 2.0)
    torch.testing.assert_close(change.delta(weight), 2 * (change.b1 @ change.b2 + weight @ change.a1 @ change.a2))


SIZED = [
    LowRank(rand(4, 6), rand(10, 4), 2.0),
    LowRank(rand(4, 6, 3, 3), rand(10, 4, 1, 1), 2.0),
    LowRank(rand(4, 6, 1, 1), rand(10, 4, 1, 1), 3.0, mid=rand(4, 4, 3, 3)),
    Hada(rand(10, 4), rand(4, 6), rand(10, 4, seed=1), rand(4, 6, seed=1), 2.0),
    Kron(w1=rand(2, 3), w2=rand(5, 2)),
    Kron(w1=rand(2, 3), w2_a=rand(5, 2), w2_b=rand(2, 18), alpha=3.0),
    Full(rand(10, 6)),
]


@pytest.mark.parametrize("change", SIZED, ids=lambda change: change.method)
def test_the_norm_is_that_of_the_whole_matrix(change: LowRank | Hada | Kron | Full) -> None:
    whole = change.delta(rand(10, 6) if change in (SIZED[0], SIZED[3], SIZED[4], SIZED[6]) else rand(10, 6, 3, 3))
    assert change.norm() == pytest.approx(float(whole.norm()), rel=1e-5)


def test_half_precision_is_reckoned_in_single() -> None:
    change = LowRank(rand(4, 6).half(), rand(10, 4).half(), 4.0)
    delta = change.delta(rand(10, 6).bfloat16())
    assert delta.dtype == torch.float32
    torch.testing.assert_close(delta, change.up.float() @ change.down.float())


def test_tensors_have_kohyas_suffixes() -> None:
    assert set(tensors_of(SIZED[2])) == {"lora_down.weight", "lora_up.weight", "lora_mid.weight"}
    assert set(tensors_of(SIZED[5])) == {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}
    assert int(tensors_of(Ia3(rand(3), True))["on_input"]) == 1
