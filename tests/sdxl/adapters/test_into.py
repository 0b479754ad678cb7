"""What is merged into a base is what the runtime stack wears: every method, several at once, by place; and the rounding is measured as it is."""

import math
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from darkroom import pocket
from darkroom.errors import AdapterError, ModelError, RecipeError
from darkroom.methods.stack import Wear, worn
from darkroom.sdxl.adapters.changes import Full
from darkroom.sdxl.adapters.into import Dressed
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.share import Share, words
from darkroom.sdxl.checkpoint import read_single_file
from darkroom.sdxl.model import load
from darkroom.sdxl.unread import write_model
from support.adapters import ALONE, ON_BASE, made, norms
from support.lycoris import rand

F32 = torch.float32
CLOSE = 1e-5


def dressed(base, *shares, dtype=F32):
    return Dressed(base.tensor, base.catalogue, shares, dtype)


def far(one, two):
    return float((one - two).norm() / two.norm())


def inputs(model):
    dice = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 49000, (1, 77), generator=dice)
    width = model.unet.config.cross_attention_dim
    latents = torch.randn(1, 4, 16, 16, generator=dice)
    context = torch.randn(1, 77, width, generator=dice)
    added = {"text_embeds": torch.randn(1, model.text_encoder_2.config.projection_dim, generator=dice), "time_ids": torch.full((1, 6), 64.0)}
    return tokens, (latents, torch.tensor([500.0]), context, None, None, None, None, added)


def outputs(model, states=None):
    """What U-Net and both text encoders give: of the model as it is, or with other tensors in it."""
    tokens, unet = inputs(model)

    def run(part, module, *arguments):
        return functional_call(module, states[part], arguments) if states else module(*arguments)

    with torch.no_grad():
        return [
            run("unet", model.unet, *unet).sample, run("text_encoder", model.text_encoder, tokens).last_hidden_state,
            run("text_encoder_2", model.text_encoder_2, tokens).text_embeds,
        ]  # fmt: skip


def states(found, model):
    return {part: {name: found.tensor(part, name).float() for name in module.state_dict()} for part, module in model.parts.items()}


@pytest.mark.parametrize("method", [*ALONE, *ON_BASE])
def test_one_adapter_of_every_method_is_what_is_worn(method, base, model):
    adapter = made(base.catalogue, method)
    with worn(model, [Wear(adapter, 0.7, 0.4)]):
        expected = outputs(model)
    bare = outputs(model)
    found = outputs(model, states(dressed(base, Share(adapter, 0.7, 0.4)), model))
    for one, two, plain in zip(found, expected, bare, strict=True):
        assert far(one, two) < CLOSE
        assert far(two, plain) > 100 * CLOSE, "the adapter does something, or the test says nothing"


def test_several_at_once_are_what_is_worn_in_any_order_and_in_a_file(base, model, tmp_path):
    """LoRA, DoRA, LoHa, OFT, full differences and norms on the same modules: the stack reckons every delta from the bare weight."""
    adapters = [made(base.catalogue, method, seed) for seed, method in enumerate(("LoRA", "DoRA", "LoHa", "diag-OFT", "full", "LoRA"))]
    adapters.append(norms(base.catalogue))
    weights = (0.8, 1.0, -0.5, 0.6, 0.3, 1.2, 0.7)
    with worn(model, [Wear(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True)]):
        expected = outputs(model)
    shares = [Share(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True)]
    for order in (shares, shares[::-1]):
        found = dressed(base, *order)
        write_model(base.model, found.tensor, tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors", F32, {})
    for file in sorted(tmp_path.iterdir()):
        merged = read_single_file(file, torch.device("cpu"), F32, pocket.folder())
        assert all(far(one, two) < CLOSE for one, two in zip(outputs(merged), expected, strict=True))
    assert found.rounding.error < 1e-4 and 0.01 < found.change.error < 1


def test_a_folder_holds_the_same(base, model, tmp_path):
    adapter = made(base.catalogue, "LoRA")
    write_model(base.model, dressed(base, Share(adapter)).tensor, tmp_path / "x", F32, {"modelspec.merged_from": "a, b"})
    with worn(model, [Wear(adapter)]):
        expected = outputs(model)
    assert all(far(one, two) < CLOSE for one, two in zip(outputs(load(tmp_path / "x", torch.device("cpu"), F32)), expected, strict=True))
    assert "merged_from" in (tmp_path / "x" / "darkroom.json").read_text()


def test_each_place_has_its_factor(base):
    """input_blocks.5 alone, doubled; the narrower word goes before the wider one."""
    adapter = made(base.catalogue, "LoRA")
    blocks = {"unet": 0.0, "input_blocks": 0.5, "input_blocks.5": 2.0, "text_encoder": 0.0, "text_encoder_2": -1.0}
    found = dressed(base, Share(adapter, 0.5, 0.25, blocks))
    for key, change in adapter.changes.items():
        weight = base.weight(key).float()
        word = words(base.catalogue, key)[0]
        by = {"input_blocks.5": 0.5 * 2, "text_encoder_2": 0.25 * -1}.get(word, 0.5 * 0.5 if word.startswith("input_blocks") else 0.0)
        torch.testing.assert_close(found.tensor(key[0], f"{key[1]}.weight").float(), weight + by * change.delta(weight), rtol=0, atol=1e-6)


def test_embeddings_and_biases_are_changed_too(base):
    key, bias = ("text_encoder", "embeddings.token_embedding"), ("unet", "mid_block.attentions.0.proj_in")
    table, shift = rand(*base.catalogue.places[key].shape), rand(base.catalogue.places[bias].shape[0])
    found = dressed(base, Share(Adapter(Path("x"), "", {key: Full(table), bias: Full(None, shift)}, catalogue=base.catalogue), 0.5))
    for (part, name), change in (((key[0], f"{key[1]}.weight"), table), ((bias[0], f"{bias[1]}.bias"), shift)):
        torch.testing.assert_close(found.tensor(part, name), base.tensor(part, name).float() + 0.5 * change, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.tensor(bias[0], f"{bias[1]}.weight"), base.weight(bias).float(), rtol=0, atol=0)


def test_what_no_adapter_touches_is_the_bases_own(base):
    adapter = made(base.catalogue, "LoRA", keys=[("unet", "mid_block.attentions.0.proj_in")])
    found = dressed(base, Share(adapter))
    assert torch.equal(found.tensor("unet", "conv_in.weight"), base.tensor("unet", "conv_in.weight"))
    assert found.tensor("vae", "encoder.conv_in.weight").dtype == base.dtype
    assert torch.equal(found.tensor("unet", "mid_block.attentions.0.proj_in.bias"), base.tensor("unet", "mid_block.attentions.0.proj_in.bias"))


@pytest.mark.parametrize("dtype", [F32, torch.float16, torch.bfloat16])
def test_the_rounding_is_measured_as_it_is(dtype, base):
    """In float64, from the formulas alone: weights of a layer, its low-rank change, and the cast."""
    adapter = made(base.catalogue, "LoRA")
    found = dressed(base, Share(adapter, 0.8), dtype=dtype)
    off = size = own = 0.0
    for key, change in adapter.changes.items():
        found.tensor(key[0], f"{key[1]}.weight")
        weight = base.weight(key).double()
        delta = 0.8 * (change.up.double().flatten(1) @ change.down.double().flatten(1)).view(weight.shape) * change.alpha / change.rank
        exact = weight + delta
        off += float((exact.float().to(dtype).double() - exact).square().sum())
        size += float(delta.square().sum())
        own += float(weight.square().sum())
    assert found.rounding.error == pytest.approx(math.sqrt(off / size), rel=2e-2)
    assert found.change.error == pytest.approx(math.sqrt(size / own), rel=1e-5)
    assert found.modules == len(adapter.changes)
    assert set(found.rounding.blocks()) == {words(base.catalogue, key)[0] for key in adapter.changes}


def test_what_cannot_be_is_refused(base, tmp_path):
    adapter = made(base.catalogue, "LoRA")
    for shares, kind, word in (
        ((), RecipeError, "no adapter was given"), ((Share(adapter, math.nan),), RecipeError, "nan is no number"),
        ((Share(adapter, 1.0, math.inf),), RecipeError, "text weight inf is no number"), ((Share(adapter), Share(adapter, 2.0)), RecipeError, "same file"),
        ((Share(adapter, blocks={"midle_block": 1.0}),), RecipeError, 'Did you mean "middle_block"'),
        ((Share(adapter, blocks={"unet": math.nan}),), RecipeError, "is no number"), ((Share(adapter, 0.0),), AdapterError, "change nothing"),
    ):  # fmt: skip
        with pytest.raises(kind, match=word):
            dressed(base, *shares)
    huge = made(base.catalogue, "LoRA", keys=[("unet", "mid_block.attentions.0.proj_in")])
    with pytest.raises(ModelError, match="float16 ends at 65504"):
        write_model(base.model, dressed(base, Share(huge, 1e8), dtype=torch.float16).tensor, tmp_path / "x.safetensors", torch.float16, {})
    assert not list(tmp_path.iterdir())
