"""Conversions of random adapters of every method: the converted file gives the programs that are not ours the deltas that the first one gave them."""

from __future__ import annotations

import copy
import importlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from darkroom.sdxl.adapters.changes import Change, LowRank
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.level import levelled
from darkroom.sdxl.adapters.places import Catalogue, Key, Place
from darkroom.sdxl.adapters.show import facts
from support.lycoris import rand, randomise

CLOSE = {"rtol": 1e-4, "atol": 3e-5}
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
EVERY = ("kohya", "diffusers", "peft")


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


# ---- LyCORIS ------------------------------------------------------------------------------------------------------------------------------------------

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoConModule", {}), "LoCon tucker": ("LoConModule", {"use_tucker": True}),
    "DoRA": ("LoConModule", {"weight_decompose": True, "wd_on_out": True}), "DoRA of inputs": ("LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    "LoHa": ("LohaModule", {}), "LoHa tucker": ("LohaModule", {"use_tucker": True}), "LoKr": ("LokrModule", {}),
    "LoKr whole": ("LokrModule", {"full_matrix": True}), "LoKr both": ("LokrModule", {"decompose_both": True}), "GLoRA": ("GLoRAModule", {}),
    "(IA)^3 of outputs": ("IA3Module", {"train_on_input": False}), "(IA)^3 of inputs": ("IA3Module", {"train_on_input": True}),
    "diag-OFT": ("DiagOFTModule", {}), "diag-OFT held and rescaled": ("DiagOFTModule", {"constraint": 0.001, "rescaled": True}),
    "BOFT": ("ButterflyOFTModule", {"rescaled": True}), "full": ("FullModule", {}),
}  # fmt: skip
ELSEWHERE = ("LoRA", "DoRA")
"""What diffusers' and peft's layouts can say."""
OF_FULL = {"diff": "weight", "diff_b": "bias"}


def made(name: str, options: dict[str, Any], layer: nn.Module, seed: int | None) -> nn.Module:
    """A module of LyCORIS over the layer, with random numbers in it (None: as it starts)."""
    torch.manual_seed(0)
    module = getattr(importlib.import_module("lycoris.modules"), name)("x", layer, **options).eval()
    if seed is not None:
        with torch.no_grad():
            for number, parameter in enumerate(module.parameters()):
                parameter.copy_(rand(*parameter.shape, seed=seed + number) if parameter.numel() > 1 else torch.ones_like(parameter))
    return module


def saved(module: nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors as LyCORIS writes them."""
    if type(module).__name__ == "FullModule":
        return {key: getattr(module, name).detach().clone() for key, name in OF_FULL.items() if getattr(module, name) is not None}
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def loaded(module: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """The tensors of a file put into a fresh module."""
    tensors = {OF_FULL.get(key, key): value for key, value in tensors.items()} if type(module).__name__ == "FullModule" else tensors
    with torch.no_grad():
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for key, value in tensors.items():
            own[key].copy_(value)
    if "alpha" in tensors and hasattr(module, "scale") and hasattr(module, "lora_dim"):
        assert module.scale == pytest.approx(float(tensors["alpha"]) / module.lora_dim), "the file's alpha is not the one that it was made with"
    return module


def applied(layer: nn.Module, delta: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, delta, bias, layer.stride, layer.padding)
    return F.linear(x, delta, bias)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, suppress_health_check=QUIET)
@given(data=st.data())
def test_lycoris_draws_with_the_converted_file_as_with_its_own(
    method: str, data: st.DataObject, lycoris: Any, catalogue: Catalogue, model: Any, tmp_path: Path
) -> None:
    name, fixed = METHODS[method]
    kinds = ("conv",) if method == "LoCon tucker" else ("linear", "conv")
    fits = [p for p in catalogue.places.values() if p.kind in kinds and p.part == "unet" and p.shape[0] % 8 == 0 and ("BOFT" not in method or p.shape[0] == 64)]
    place = data.draw(st.sampled_from([p for p in fits if method != "LoCon tucker" or p.shape[-1] == 3]))
    layer = copy.deepcopy(model.parts[place.part].get_submodule(place.path))
    options = {"lora_dim": data.draw(st.integers(1, 4)) if "OFT" not in method else 4, "alpha": data.draw(st.sampled_from([0.5, 1.0, 3.0, 8.0]))} | fixed
    module = made(name, options, layer, data.draw(st.integers(0, 50)))
    spelled = data.draw(st.sampled_from([place.kohya, f"lora_unet_{place.path.replace('.', '_')}", f"lycoris_{place.path.replace('.', '_')}"]))
    path = tmp_path / "x.safetensors"
    save_file({f"{spelled}.{key}": value.contiguous() for key, value in saved(module).items()}, path)
    first = read(path, catalogue)
    for layout in [*data.draw(st.lists(st.sampled_from(EVERY if method in ELSEWHERE else ("kohya",)), max_size=3)), "kohya"]:
        write(path, read(path, catalogue), layout)
    tensors = {key.removeprefix(f"{place.kohya}."): value for key, value in load_file(path).items()}
    again = loaded(made(name, options, layer, None), tensors)
    x = rand(2, place.shape[1], 6, 6, seed=3) if place.kind == "conv" else rand(3, place.shape[1], seed=3)
    with torch.no_grad():
        plain, wanted, found = layer(x), module(x), again(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    for change in (first.changes[place.key], read(path, catalogue).changes[place.key]):
        torch.testing.assert_close(applied(layer, change.delta(layer.weight.detach()), change.bias, x), wanted - plain, **CLOSE)
    assert not torch.equal(wanted, plain)


@settings(max_examples=8, suppress_health_check=QUIET)
@given(data=st.data())
def test_lycoris_norms_are_those_of_the_converted_file(data: st.DataObject, lycoris: Any, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    place = data.draw(st.sampled_from([p for p in catalogue.places.values() if p.kind == "norm" and p.part == "unet"]))
    layer = copy.deepcopy(model.unet.get_submodule(place.path))
    module = importlib.import_module("lycoris.modules").NormModule("x", layer)
    randomise(module)
    path = tmp_path / "x.safetensors"
    save_file({f"lycoris_{place.path.replace('.', '_')}.{key}": value.detach().contiguous() for key, value in module.state_dict().items()}, path)
    write(path, read(path, catalogue), "kohya")
    tensors = {key.removeprefix(f"{place.kohya}."): value for key, value in load_file(path).items()}
    assert tensors.keys() == module.state_dict().keys() and all(torch.equal(tensors[key], value) for key, value in module.state_dict().items())
    weight, bias = module.get_merged_weight(1, place.shape, None)
    change = read(path, catalogue).changes[place.key]
    torch.testing.assert_close(layer.weight + change.delta(layer.weight), weight, **CLOSE)
    torch.testing.assert_close(layer.bias + change.bias, bias, **CLOSE)


# ---- peft and diffusers -------------------------------------------------------------------------------------------------------------------------------


Shape = tuple[str, str, int, float, int]
"""(part, path, rank, alpha, seed) of one drawn change."""


@st.composite
def drawn(draw: st.DrawFn, catalogue: Catalogue) -> list[Shape]:
    """Some linears and convolutions, each with a rank and an alpha of its own.

    Of a text encoder out_proj is always changed: diffusers 0.42 goes by it (test_what_diffusers_does_not_find_in_a_text_encoder_is_told).
    """
    keys = [key for key, place in catalogue.places.items() if place.kind in ("linear", "conv")]
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=8, unique=True))
    for part in sorted({part for part, _ in chosen} - {"unet"}):
        out = next(key for key in keys if key[0] == part and key[1].endswith("out_proj"))
        chosen += [out] * (out not in chosen)
    return [(*key, draw(st.integers(1, 5)), draw(st.sampled_from([0.5, 1.0, 3.0, 8.0])), draw(st.integers(0, 50)) + n) for n, key in enumerate(chosen)]


def adapter_of(shapes: list[Shape], dora: bool, catalogue: Catalogue) -> Adapter:
    changes: dict[Key, Change] = {}
    for part, path, rank, alpha, seed in shapes:
        changes[part, path] = lowrank(catalogue.places[part, path], rank, alpha, seed, dora)
    return Adapter(Path("made"), "", changes, {}, catalogue=catalogue)


def lowrank(place: Place, rank: int, alpha: float, seed: int, dora: bool) -> LowRank:
    ones = (1,) * (len(place.shape) - 2)
    scale = rand(place.shape[0], 1, *ones, seed=seed + 1).abs() + 0.5 if dora else None
    return LowRank(rand(rank, *place.shape[1:], seed=seed), rand(place.shape[0], rank, *ones, seed=seed + 2), alpha, dora_scale=scale)


def weight_of(model: Any, key: Key) -> torch.Tensor:
    return model.parts[key[0]].get_submodule(key[1]).weight.detach()


def through(adapter: Adapter, layouts: list[str], path: Path) -> None:
    """Written in one layout after another, each time from the file before."""
    found = adapter
    for layout in layouts:
        write(path, levelled(found) if layout == "kohya" and layouts[-1] == "kohya" else found, layout)
        found = read(path, adapter.catalogue)


def merged_by_peft(path: Path, model: Any) -> Iterator[tuple[Key, torch.Tensor]]:
    """What peft adds to every weight: its own config from the file's JSON, its own loader, its own merge."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    tensors, told = load_file(path), json.loads(Header.read(path).metadata["lora_adapter_metadata"])
    for part in {name.partition(".")[0] for name in tensors}:
        root = copy.deepcopy(model.parts[part])
        short = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{part}.")}
        if part == "text_encoder":  # current transformers drops what files keep
            short = {name.removeprefix("text_model."): value for name, value in short.items()}
        config = {key.removeprefix(f"{part}."): value for key, value in told.items() if key.startswith(f"{part}.")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(LoraConfig(**config), root)
            report = set_peft_model_state_dict(root, short)
        assert not report.unexpected_keys and not [key for key in report.missing_keys if "lora" in key]
        for name, module in root.named_modules():
            if hasattr(module, "merge") and hasattr(module, "lora_A"):
                module.merge()
                yield (part, name), module.base_layer.weight.detach() - weight_of(model, (part, name))


@settings(max_examples=15, suppress_health_check=QUIET)
@given(data=st.data())
def test_peft_merges_the_converted_file_to_our_deltas(data: st.DataObject, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    adapter = adapter_of(data.draw(drawn(catalogue)), data.draw(st.booleans()), catalogue)
    through(adapter, [*data.draw(st.lists(st.sampled_from(EVERY), max_size=3)), "peft"], tmp_path / "x.safetensors")
    found = dict(merged_by_peft(tmp_path / "x.safetensors", model))
    assert found.keys() == adapter.changes.keys()
    for key, change in adapter.changes.items():
        torch.testing.assert_close(found[key], change.delta(weight_of(model, key)), **CLOSE)


@settings(max_examples=8, suppress_health_check=QUIET)
@given(data=st.data())
@pytest.mark.parametrize("last", EVERY)
def test_stock_diffusers_adds_the_deltas_of_the_converted_file(
    last: str, data: st.DataObject, stock: Any, catalogue: Catalogue, model: Any, tmp_path: Path
) -> None:
    """diffusers drops DoRA from kohya's layout and levels alphas there, as `adapter show` says."""
    adapter = adapter_of(data.draw(drawn(catalogue)), last != "kohya" and data.draw(st.booleans()), catalogue)
    through(adapter, [*data.draw(st.lists(st.sampled_from(EVERY), max_size=2)), last], tmp_path / "x.safetensors")
    found = stock(tmp_path / "x.safetensors")
    for key, change in adapter.changes.items():
        torch.testing.assert_close(found[key], change.delta(weight_of(model, key)), **CLOSE, msg=lambda text, key=key: f"{key}: {text}")
    assert all(delta.abs().max() == 0 for key, delta in found.items() if key not in adapter.changes)


LAYER = "text_model.encoder.layers.0"
TEXTS = {"q": f"{LAYER}.self_attn.q_proj", "out": f"{LAYER}.self_attn.out_proj", "fc1": f"{LAYER}.mlp.fc1", "projection": "text_projection"}


@pytest.mark.parametrize("layout", EVERY)
@pytest.mark.parametrize("names", ["q", "out", "fc1", "projection", "q out", "q fc1", "out fc1", "fc1 projection", "q projection", "out projection"])
def test_what_diffusers_does_not_find_in_a_text_encoder_is_told(names: str, layout: str, stock: Any, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    """`adapter show` warns exactly where stock diffusers drops changes in silence or refuses the file. Where this fails, diffusers is mended."""
    chosen: list[Shape] = [("text_encoder_2", TEXTS[name], 2, 1.0, number) for number, name in enumerate(names.split())]
    adapter = adapter_of(chosen, dora=False, catalogue=catalogue)
    write(tmp_path / "x.safetensors", adapter, layout)
    warned = [text for text in facts(tmp_path / "x.safetensors", catalogue)["warnings"] if text.startswith("diffusers")]
    try:
        found = stock(tmp_path / "x.safetensors")
    except ValueError as error:
        assert "infer state dict type" in str(error)
        found = {}
    there = all(key in found and torch.allclose(found[key], change.delta(weight_of(model, key)), **CLOSE) for key, change in adapter.changes.items())
    assert there == (not warned)
