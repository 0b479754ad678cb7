"""Adapter files against programs that are not ours: LyCORIS' own modules and files, stock diffusers, and random adapters of every method."""

from __future__ import annotations

import copy
import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Change, Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.level import levelled
from darkroom.sdxl.adapters.places import Catalogue, Place
from support.lycoris import rand, randomise

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


# ---- LyCORIS: the files -------------------------------------------------------------------------------------------------------------------------------

FILES: dict[str, dict[str, Any]] = {
    "lora": {}, "locon": {"use_tucker": True, "conv_dim": 2}, "loha": {"use_tucker": True}, "lokr": {"factor": 4}, "full": {}, "diag-oft": {"rescaled": True},
    "boft": {"constraint": 0.01, "linear_dim": 16}, "ia3": {"preset": "ia3"}, "glora": {}, "dylora": {"block_size": 1},
}  # fmt: skip


@pytest.mark.parametrize("algo", FILES)
def test_what_lycoris_writes_is_read_with_equal_deltas(algo: str, lycoris: Any, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    options = {"train_norm": algo in ("lora", "full"), "linear_dim": 4, "linear_alpha": 4} | FILES[algo]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lycoris.create_lycoris(copy.deepcopy(model.unet), 1.0, algo=algo, **options)
        network.apply_to()
    randomise(network)
    for module in network.loras:
        if hasattr(module, "up_list"):  # DyLoRA keeps its parts in lists
            randomise(module.up_list)
    network.save_weights(tmp_path / "x.safetensors", None, {"ss_network_module": "lycoris.kohya"})
    found = read(tmp_path / "x.safetensors", catalogue)
    assert found.layout == "lycoris" and len(found.changes) == len(network.loras) > 20
    names = {f"lycoris_{place.path.replace('.', '_')}": key for key, place in catalogue.places.items() if place.part == "unet"}
    for module in network.loras:
        key = names[module.lora_name]
        weight = model.unet.get_submodule(key[1]).weight.detach()
        delta = found.changes[key].delta(weight)
        assert delta.shape == weight.shape
        if algo == "dylora":  # it trains one rank at a time and has no weight of its own; its file is a LoRA
            assert isinstance(found.changes[key], LowRank)
        else:
            with torch.no_grad():
                torch.testing.assert_close(weight + delta, module.get_merged_weight(1, weight.shape, None)[0].detach(), **CLOSE)
    there = tmp_path / "kohya.safetensors"
    write(there, found, "kohya")
    again = read(there, catalogue)
    assert again.layout == "kohya" and all(torch.equal(again.changes[k].delta(w := weight_of(model, k)), c.delta(w)) for k, c in found.changes.items())


def test_t_lora_is_refused_in_words(lycoris: Any, catalogue: Catalogue, tmp_path: Path) -> None:
    module = importlib.import_module("lycoris.modules").TLoraModule("x", nn.Linear(8, 8), lora_dim=2)
    save_file(
        {f"lora_unet_middle_block_1_proj_in.{key}": value.detach().contiguous() for key, value in module.state_dict().items()}, tmp_path / "x.safetensors"
    )
    with pytest.raises(AdapterError, match="T-LoRA of LyCORIS"):
        read(tmp_path / "x.safetensors", catalogue)


def weight_of(model: Any, key: tuple[str, str]) -> torch.Tensor:
    return model.parts[key[0]].get_submodule(key[1]).weight.detach()


# ---- stock diffusers ----------------------------------------------------------------------------------------------------------------------------------


def lowrank(place: Place, rank: int, alpha: float, dora: bool = False, dtype: torch.dtype = torch.float32) -> LowRank:
    ones = (1,) * (len(place.shape) - 2)
    scale = (rand(place.shape[0], 1, *ones, seed=9).abs() + 0.5).to(dtype) if dora else None
    return LowRank(rand(rank, *place.shape[1:]).to(dtype), rand(place.shape[0], rank, *ones, seed=1).to(dtype), alpha, dora_scale=scale)


def whole_lora(catalogue: Catalogue, dora: bool = False, even: bool = True) -> Adapter:
    """Every linear and convolution, ranks of all sizes, one alpha for each part or several."""
    places = [place for place in catalogue.places.values() if place.kind in ("linear", "conv")]
    alphas = {"unet": 0.5, "text_encoder": 1.5, "text_encoder_2": 2.0}
    changes = {p.key: lowrank(p, 1 + n % 4, alphas[p.part] if even else (0.5, 1.5, 2.0)[n % 3], dora) for n, p in enumerate(places)}
    return Adapter(Path("made.safetensors"), "", changes, {"ss_steps": "7"}, catalogue=catalogue)


@pytest.mark.parametrize(
    ("layout", "dora", "even"),
    [("kohya", False, True), ("diffusers", False, False), ("peft", False, False), ("diffusers", True, False), ("peft", True, False)],
)
def test_stock_diffusers_adds_what_we_say(layout: Any, dora: bool, even: bool, stock: Any, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    adapter = whole_lora(catalogue, dora, even)
    write(tmp_path / "x.safetensors", adapter, layout)
    added = stock(tmp_path / "x.safetensors")
    for key, change in adapter.changes.items():
        torch.testing.assert_close(added[key], change.delta(weight_of(model, key)), **CLOSE, msg=lambda text, key=key: f"{key}: {text}")
    assert all(delta.abs().max() == 0 for key, delta in added.items() if key not in adapter.changes)


def test_kohya_with_several_alphas_must_be_levelled_for_diffusers(stock: Any, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    """diffusers 0.42 gives attention layers the commonest alpha. If the first half fails, diffusers is mended and `level` may go."""
    adapter = whole_lora(catalogue, even=False)
    write(tmp_path / "x.safetensors", adapter, "kohya")
    added = stock(tmp_path / "x.safetensors")
    wrong = [key for key, change in adapter.changes.items() if not torch.allclose(added[key], change.delta(weight_of(model, key)), **CLOSE)]
    assert wrong and all("attn" in path or "mlp" in path for _, path in wrong)
    write(tmp_path / "y.safetensors", levelled(adapter), "kohya")
    added = stock(tmp_path / "y.safetensors")
    for key, change in adapter.changes.items():
        torch.testing.assert_close(added[key], change.delta(weight_of(model, key)), **CLOSE)


# ---- random adapters of every method ------------------------------------------------------------------------------------------------------------------


@st.composite
def changes(draw: st.DrawFn, place: Place) -> Change:
    """A change of any method that goes on this place."""
    out, inside, kernel = place.shape[0], (*place.shape, 1)[1], place.shape[2:]
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    alpha, seed = draw(st.sampled_from([0.5, 1.0, 3.0, 8.0])), draw(st.integers(0, 99))
    flat, r = inside * (torch.Size(kernel).numel() if kernel else 1), draw(st.integers(1, 5))

    def t(*shape: int) -> torch.Tensor:
        nonlocal seed
        seed += 1
        return rand(*shape, seed=seed).to(dtype)

    if place.kind in ("norm", "embedding"):
        return draw(st.sampled_from([Full(t(*place.shape)), *([Norm(t(out), t(out) if place.bias else None)] if place.kind == "norm" else [])]))
    magnitude = draw(st.sampled_from([None, t(out, 1, *[1] * len(kernel)).abs(), t(1, inside, *[1] * len(kernel)).abs()]))
    tucked = kernel == (3, 3) and draw(st.booleans())
    ones = (1,) * len(kernel)
    match draw(st.sampled_from(["low", "hada", "kron", "glora", "ia3", "oft", "boft", "full"])):
        case "low" if tucked:
            return LowRank(t(r, inside, 1, 1), t(out, r, 1, 1), alpha, t(r, r, 3, 3), magnitude)
        case "low":
            return LowRank(t(r, inside, *kernel), t(out, r, *ones), alpha, dora_scale=magnitude)
        case "hada" if tucked:
            return Hada(t(r, out), t(r, inside), t(r, out), t(r, inside), alpha, t(r, r, 3, 3), t(r, r, 3, 3), magnitude)
        case "hada":
            return Hada(t(out, r), t(r, flat), t(out, r), t(r, flat), alpha, dora_scale=magnitude)
        case "kron":
            a, b = (max(d for d in (1, 2, 4) if size % d == 0) for size in (out, inside))
            one = draw(st.sampled_from([{"w1": t(a, b)}, {"w1_a": t(a, r), "w1_b": t(r, b)}]))
            rest = {"w2_a": t(out // a, r), "w2_b": t(r, flat // b)}
            two = (
                {"w2_a": t(r, out // a), "w2_b": t(r, inside // b), "t2": t(r, r, 3, 3)}
                if tucked
                else draw(st.sampled_from([{"w2": t(out // a, inside // b, *kernel)}, rest]))
            )
            whole = "w1" in one and "w2" in two
            return Kron(**one, **two, alpha=1.0 if whole else alpha, dora_scale=magnitude)
        case "glora":
            return Glora(t(inside, r, *ones), t(r, inside, *ones), t(out, r, *ones), t(r, inside, *kernel), alpha)
        case "ia3":
            return draw(st.sampled_from([Ia3(t(inside) if not kernel else t(1, inside, 1, 1), True), Ia3(t(out) if not kernel else t(1, out, 1, 1), False)]))
        case "boft" if out % 8 == 0:
            return Oft(t(2, out // 4, 4, 4), draw(st.sampled_from([0.0, 0.5])), draw(st.sampled_from([None, t(out, 1, *ones)])))
        case "oft" | "boft" if out % 4 == 0:
            return Oft(t(out // 4, 4, 4), draw(st.sampled_from([0.0, 0.5])), draw(st.sampled_from([None, t(out, 1, *ones)])))
        case _:
            return Full(t(*place.shape), t(out) if place.bias else None)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_adapter_comes_back_with_equal_deltas(data: st.DataObject, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(catalogue.places)), min_size=1, max_size=4, unique=True))
    made = {key: data.draw(changes(catalogue.places[key])) for key in keys}
    adapter = Adapter(Path("made.safetensors"), "", made, {}, catalogue=catalogue)
    path, again = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    write(path, adapter, "kohya")
    found = read(path, catalogue)
    assert found.changes.keys() == made.keys()
    for key, change in made.items():
        weight, there = weight_of(model, key), found.changes[key]
        assert type(there) is type(change) and there.method == change.method and there.rank == change.rank and there.alpha == change.alpha
        assert torch.equal(there.delta(weight), change.delta(weight)) and (there.bias is None) == (change.bias is None)
        assert change.bias is None or torch.equal(there.bias, change.bias)
    write(again, found, "kohya")
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_lora_goes_round_every_layout(data: st.DataObject, catalogue: Catalogue, tmp_path: Path) -> None:
    places = [place for place in catalogue.places.values() if place.kind in ("linear", "conv")]
    chosen = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6, unique_by=lambda place: place.key))
    dora, dtype = data.draw(st.booleans()), data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    numbers = st.floats(0.0625, 512, width=32)
    made: dict[tuple[str, str], Change] = {p.key: lowrank(p, data.draw(st.integers(1, 6)), data.draw(numbers), dora, dtype) for p in chosen}
    found = Adapter(Path("made.safetensors"), "", made, {}, catalogue=catalogue)
    for layout in data.draw(st.lists(st.sampled_from(["kohya", "diffusers", "peft"]), min_size=1, max_size=5)):
        write(tmp_path / "x.safetensors", found, layout)
        found = read(tmp_path / "x.safetensors", catalogue)
    assert found.changes.keys() == made.keys()
    for key, change in made.items():
        there = found.changes[key]
        assert isinstance(there, LowRank) and isinstance(change, LowRank) and there.alpha == change.alpha
        assert torch.equal(there.up, change.up) and torch.equal(there.down, change.down) and there.up.dtype == dtype
        assert not dora or torch.equal(there.dora_scale, change.dora_scale)


def test_a_change_that_fits_elsewhere_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    """Each method's tensors, made for a layer one wider, name the module and the shapes."""
    place = catalogue.places["unet", "mid_block.attentions.0.proj_in"]
    wide = replace(place, shape=(place.shape[0] + 4, place.shape[1] + 4))
    o, i = wide.shape
    others: list[Change] = [
        lowrank(wide, 2, 1.0), Hada(rand(o, 2), rand(2, i), rand(o, 2), rand(2, i), 1.0), Kron(w1=rand(4, 4), w2=rand(o // 4, i // 4)),
        Glora(rand(i, 2), rand(2, i), rand(o, 2), rand(2, i), 1.0), Ia3(rand(i), True), Oft(rand(o // 4, 4, 4)), Oft(rand(2, o // 4, 4, 4)), Full(rand(o, i)),
        lowrank(place, 2, 1.0, dora=True), Full(rand(*place.shape), rand(place.shape[0] + 1)), Norm(rand(place.shape[0])),
    ]  # fmt: skip
    others[8] = replace(others[8], dora_scale=rand(o, 1))
    for change in others:
        write(tmp_path / "x.safetensors", Adapter(Path("made"), "", {place.key: change}, {}, catalogue=catalogue), "kohya")
        with pytest.raises(AdapterError, match=r"unet\.mid_block\.attentions\.0\.proj_in: "):
            read(tmp_path / "x.safetensors", catalogue)


SUFFIXES = (
    "lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "dora_scale", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "lokr_w1",
    "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "weight", "on_input", "oft_blocks", "rescale", "diff", "diff_b", "w_norm", "b_norm", "a1.weight",
    "a2.weight", "b1.weight", "b2.weight", "lora_A.weight", "lora_B.weight", "lora_magnitude_vector",
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_shapes_under_any_names_are_understood_or_refused(data: st.DataObject, catalogue: Catalogue, model: Any, tmp_path: Path) -> None:
    place = catalogue.places[data.draw(st.sampled_from(sorted(catalogue.places)))]
    sizes = st.sampled_from([0, 1, 2, 4, *place.shape])
    shapes = st.one_of(st.just(list(place.shape)), st.lists(sizes, max_size=4))
    suffixes = data.draw(st.lists(st.sampled_from(SUFFIXES), min_size=1, max_size=4, unique=True))
    save_file({f"{place.kohya}.{suffix}": torch.ones(data.draw(shapes)) for suffix in suffixes}, tmp_path / "x.safetensors")
    try:
        found = read(tmp_path / "x.safetensors", catalogue)
    except AdapterError:
        return
    weight = weight_of(model, place.key)
    assert found.changes[place.key].delta(weight).shape == weight.shape
