"""Rounded weights: how far off, how large, exact gradients of what they are, and the model afterwards bit for bit as before."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.methods import LoRA, LyCORIS
from darkroom.sdxl import quantised as module
from darkroom.sdxl.quantised import INSIDE, Rounded, lend, pack, packed_bytes, quantised, remembering, unpack

SCHEMES = ("fp8", "int8", "nf4")
SHAPES = {
    "attention": (640, 640), "cross-attention": (640, 2048), "feed-forward": (1280, 320), "convolution": (64, 32, 3, 3), "odd": (30, 7, 3, 3),
}  # fmt: skip
"""A row of the convolutions is no whole number of nf4's blocks, and the odd one is none at all."""
WORST = {"fp8": 0.029, "int8": 0.010, "nf4": 0.096}
"""Relative error of an output, with weights drawn from a normal distribution as SDXL's are nearly. fp8: 3 bits of mantissa, 2^-4 / sqrt 3 at most."""


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(shape, generator=generator(seed, "test", *shape)) / math.sqrt(math.prod(shape[1:]))).to(dtype)


def rounded(weight: torch.Tensor, scheme: module.Scheme) -> torch.Tensor:
    return unpack(pack(weight, scheme), scheme, weight.shape, weight.dtype)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_output_is_off_by_no_more_than_the_format_says(scheme, shape):
    weight = drawn(*shape)
    x = torch.randn(8, math.prod(shape[1:]), generator=generator(1, "input"))
    exact, found = x @ weight.flatten(1).T, x @ rounded(weight, scheme).flatten(1).T
    assert WORST[scheme] / 3 < off(found, exact) < WORST[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_no_error_of_its_own(scheme, dtype):
    weight = drawn(320, 640, dtype=dtype)
    found = rounded(weight, scheme)
    assert found.dtype == dtype
    assert off(found, weight) < WORST[scheme] * 1.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_is_exact_for_what_the_format_has(dtype):
    """A power of two as scale: what has three bits of mantissa in any binade near the largest comes back unchanged."""
    values = torch.tensor([[1.0, -1.125, 0.9375, 0.013671875, 0.0, -0.46875], [3e-3 * 2**-6, 0, 0, 0, 0, 0]])
    values[1, 0] = 0.875 * 2.0**-14
    assert torch.equal(rounded(values.to(dtype), "fp8"), values.to(dtype))


def test_int8_is_that_of_bitsandbytes():
    functional_8bit = pytest.importorskip("bitsandbytes").functional
    weight = drawn(320, 640, dtype=torch.float16)
    theirs, largest, _ = functional_8bit.int8_vectorwise_quant(weight)
    ours, scale = pack(weight, "int8")
    assert (theirs.int() - ours.int()).abs().max() <= 1 and (theirs != ours).float().mean() < 1e-3, "a tie may be rounded either way"
    torch.testing.assert_close(scale.flatten() * 127, largest.float(), rtol=1e-6, atol=0)


def test_nf4_is_what_the_paper_says():
    """Dettmers et al. 2023, appendix E: sixteen values, the nearest of them to a number over the largest of its block of 64."""
    pytest.importorskip("bitsandbytes")
    levels = torch.tensor([
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ], dtype=torch.float64)  # fmt: skip
    weight = drawn(64, 320)
    blocks = weight.double().reshape(-1, 64)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = levels[(blocks / largest)[..., None].sub(levels).abs().argmin(-1)] * largest
    torch.testing.assert_close(rounded(weight, "nf4").double().reshape(-1, 64), nearest, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_weight_of_zeros_stays_one(scheme):
    assert torch.equal(rounded(torch.zeros(64, 64), scheme), torch.zeros(64, 64))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_bytes_are_foretold(scheme, shape):
    assert sum(tensor.nbytes for tensor in pack(drawn(*shape), scheme)) == packed_bytes(shape, scheme, 2)


@pytest.fixture
def inside(model):
    """Paths of the layers that are rounded."""
    return [path for path, layer in model.unet.named_modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and INSIDE.fullmatch(path)]


def state(model):
    return {f"{part}.{name}": tensor for part, root in {**model.parts, "vae": model.vae}.items() for name, tensor in root.state_dict().items()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_model_is_itself_again(model, inside, scheme):
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in state(model).items()}
    kinds = [type(layer) for layer in model.unet.modules()]
    own = [id(parameter) for parameter in model.unet.parameters()]
    with pytest.raises(ZeroDivisionError), quantised(model, scheme):
        assert all(isinstance(model.unet.get_submodule(path), Rounded) for path in inside) and len(inside) > 100
        assert not any(isinstance(layer, Rounded) for layer in model.text_encoder_2.modules())
        1 / 0  # noqa: B018 - an error inside changes nothing
    after = state(model)
    assert list(before) == list(after)
    assert all(after[name].data_ptr() == place and torch.equal(after[name], tensor) for name, (place, tensor) in before.items())
    assert [type(layer) for layer in model.unet.modules()] == kinds and [id(parameter) for parameter in model.unet.parameters()] == own


def test_a_model_on_the_device_gives_its_room_and_gets_equal_weights_back(model, monkeypatch):
    """What a GPU does: `.cpu()` copies there. Here it is made to."""
    before = {name: tensor.clone() for name, tensor in state(model).items()}
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor.clone())
    with quantised(model, "fp8"):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())


def test_text_encoders_are_rounded_where_they_are_asked_for(model):
    with quantised(model, "int8", ("unet", "text_encoder", "text_encoder_2")):
        assert sum(isinstance(layer, Rounded) for layer in model.text_encoder_2.modules()) == 6 * model.text_encoder_2.config.num_hidden_layers
    assert not any(isinstance(layer, Rounded) for part in model.parts.values() for layer in part.modules())


def predicted(model, x):
    ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    text = drawn(1, 77, int(model.unet.config.cross_attention_dim), seed=2) * 20
    pooled = drawn(1, int(model.text_encoder_2.config.projection_dim), seed=3) * 10
    return model.unet(x, torch.tensor(500), text, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample


METHODS = {
    "lora": LoRA(rank=2, feed_forward=True, convolution=True), "dora": LoRA(rank=2, dora=True), "loha": LyCORIS(rank=2, convolution=True),
    "lokr": LyCORIS(algorithm="lokr", rank=2, factor=4),
}  # fmt: skip


def gradients(model, method):
    """What a method on the model as it is predicts, and the gradients of a loss."""
    attached = method.attach(model, 0)
    try:
        attached.load_state({name: tensor + 0.02 * drawn(*tensor.shape, 1, seed=5).view(tensor.shape) for name, tensor in attached.state().items()})
        parameters = [p for group in attached.groups(1.0) for p in group["params"]]
        out = predicted(model, drawn(1, 4, 16, 16, seed=4) * 10)
        out.square().mean().backward()
        return [out.detach(), *[p.grad.clone() for p in parameters]]
    finally:
        attached.detach()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_what_is_learned_is_exactly_what_the_rounded_model_teaches(model, inside, scheme, method):
    """Against a twin whose plain weights are the rounded ones: output and every gradient, to the last bit."""
    if method is not METHODS["lora"] and scheme != "fp8":
        pytest.skip("a method reads weights alike in every scheme")
    with quantised(model, scheme):
        found = gradients(model, method)
    own = {path: model.unet.get_submodule(path).weight.data for path in inside}
    try:
        for path, weight in own.items():
            model.unet.get_submodule(path).weight.data = rounded(weight, scheme)
        twin = gradients(model, method)
    finally:
        for path, weight in own.items():
            model.unet.get_submodule(path).weight.data = weight
    assert all(torch.equal(a, b) for a, b in zip(found, twin, strict=True)) and float(found[1].abs().max()) > 0
    assert not torch.equal(found[0], gradients(model, method)[0])


def test_autograd_keeps_no_weight(model):
    """Between forward and backward nothing of a rounded weight is held, neither itself nor a view."""
    layer = model.unet.down_blocks[1].attentions[0].transformer_blocks[0].ff.net[2]
    x = torch.randn(2, 5, layer.in_features, requires_grad=True)

    def kept_bytes():
        seen = {}

        def note(node):
            if node is None or node in seen:
                return
            seen[node] = [getattr(node, name) for name in dir(node) if name.startswith("_raw_saved")]
            for inner, _ in node.next_functions:
                note(inner)

        note(layer(x).grad_fn)
        return sum(len(raws) for raws in seen.values())

    with quantised(model, "fp8"):
        made = []
        real = type(layer)._made

        def counted(self):
            made.append(1)
            return real(self)

        type(layer)._made = counted
        try:
            out = layer(x)
            assert kept_bytes() > 0 and made
            made.clear()
            out.sum().backward()
            assert made == [1], "the backward pass makes the weight again, once"
        finally:
            type(layer)._made = real
    layer.weight.requires_grad_(False)
    torch.testing.assert_close(x.grad, rounded(layer.weight, "fp8").sum(0).expand_as(x), rtol=1e-5, atol=1e-6)


def test_a_lent_tensor_is_freed_and_made_again():
    weight, asked = drawn(6, 4), []

    def again():
        asked.append(1)
        return weight.clone()

    x = torch.randn(3, 4, requires_grad=True)
    with remembering():
        held = lend(again(), again)
        out = functional.linear(x, held[1:5])
        del held
        assert not [key for key, (seen, _) in module._lent.items() if seen() is None]
        out.sum().backward()
    assert len(asked) == 2
    torch.testing.assert_close(x.grad, weight[1:5].sum(0).expand(3, 4))
    assert not module._lent


def test_nf4_without_its_package_is_refused_in_words(model, monkeypatch):
    before = {name: tensor.clone() for name, tensor in state(model).items()}

    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(RecipeError, match=r'quantise = "nf4" is of the package bitsandbytes.*sdxl-darkroom\[gpu\].*"fp8"'), quantised(model, "nf4"):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())
