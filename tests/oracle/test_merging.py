"""Merging, extracting and resizing against programs that are not ours: peft's add_weighted_adapter, stock diffusers, LyCORIS' extraction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from darkroom import pocket
from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.combine import combine, resize
from darkroom.sdxl.adapters.extract import Extraction, extract
from darkroom.sdxl.adapters.into import Dressed
from darkroom.sdxl.adapters.layouts import Adapter
from darkroom.sdxl.adapters.matrices import Cut, Whole, apart, cut
from darkroom.sdxl.adapters.places import Catalogue, Place
from darkroom.sdxl.adapters.share import Share
from darkroom.sdxl.unread import Unread, write_model
from support.adapters import chosen, made, saved
from support.lycoris import rand

F32 = torch.float32


# ---- peft ---------------------------------------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 18, bias=False)
        self.conv = nn.Conv2d(6, 10, 3, bias=False)


SHAPES = {"linear": (18, 24), "conv": (10, 6, 3, 3)}
CATALOGUE = Catalogue({("text_encoder", n): Place("text_encoder", n, "conv" if n == "conv" else "linear", s, False, n) for n, s in SHAPES.items()}, 2, "net")


@pytest.fixture
def two() -> tuple[Any, list[Adapter]]:
    """A net with two LoRAs of peft's on it, of other ranks and alphas, and the same two as ours."""
    model = get_peft_model(Net(), LoraConfig(r=4, lora_alpha=2, target_modules=["linear", "conv"]), adapter_name="a")
    model.add_adapter("b", LoraConfig(r=3, lora_alpha=6, target_modules=["linear", "conv"]))
    adapters = []
    for number, (name, alpha) in enumerate((("a", 2.0), ("b", 6.0))):
        changes = {}
        for path in SHAPES:
            layer = getattr(model.base_model.model, path)
            with torch.no_grad():
                for seed, side in enumerate((layer.lora_A, layer.lora_B)):
                    side[name].weight.copy_(rand(*side[name].weight.shape, seed=10 * number + seed))
            changes["text_encoder", path] = LowRank(layer.lora_A[name].weight.detach().clone(), layer.lora_B[name].weight.detach().clone(), alpha)
        adapters.append(Adapter(Path(name), name, changes, catalogue=CATALOGUE))
    return model, adapters


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2), (1.5, 0.4)])
def test_concatenation_is_pefts_cat(weights: tuple[float, float], two: tuple[Any, list[Adapter]]) -> None:
    model, adapters = two
    model.add_weighted_adapter(["a", "b"], list(weights), "sum", combination_type="cat")
    found = combine([Share(one, by) for one, by in zip(adapters, weights, strict=True)], "concat", Cut(), F32)
    for path, shape in SHAPES.items():
        layer = getattr(model.base_model.model, path)
        ours = found.changes["text_encoder", path]
        assert ours.rank == layer.r["sum"] == 7
        torch.testing.assert_close(ours.delta(torch.zeros(shape)), layer.get_delta_weight("sum").detach(), rtol=1e-5, atol=1e-6)


def test_svd_is_as_near_as_pefts(two: tuple[Any, list[Adapter]]) -> None:
    model, adapters = two
    model.add_weighted_adapter(["a", "b"], [0.7, 0.2], "sum", combination_type="svd", svd_rank=3)
    shares = [Share(adapters[0], 0.7), Share(adapters[1], 0.2)]
    found = combine(shares, "svd", Cut(3), F32)
    for path, shape in SHAPES.items():
        key = ("text_encoder", path)
        exact = sum(by * one.changes[key].delta(torch.zeros(shape)) for one, by in zip(adapters, (0.7, 0.2), strict=True))
        ours = found.changes[key].delta(torch.zeros(shape))
        theirs = getattr(model.base_model.model, path).get_delta_weight("sum").detach()
        assert torch.linalg.matrix_rank(ours.flatten(1), rtol=1e-5) == 3
        assert float((ours - exact).norm()) == pytest.approx(float((theirs - exact).norm()), rel=1e-4)


# ---- LyCORIS ------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "number", "by"), [("fixed", 5, Cut(5)), ("ratio", 0.6, Cut(ratio=1 / 0.6)), ("fixed", 1, Cut(1))])
def test_extraction_is_as_near_as_lycoris(mode: str, number: float, by: Cut, lycoris: Any) -> None:
    from lycoris.utils import extract_linear

    delta = rand(40, 30) + rand(40, 2) @ rand(2, 30) * 20
    (down, _, left), kind = extract_linear(delta, mode, number)
    kept = cut(Whole(delta.double()), by)
    assert kind == "low rank" and kept.rank == down.shape[0]
    assert apart(Whole(delta.double()), kept) == pytest.approx(float(left.norm()), rel=1e-4)


# ---- stock diffusers ----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> Unread:
    return Unread.open(pocket.folder(), name="pocket")


PARTS = ("unet", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def stock() -> Iterator[Any]:
    """What stock diffusers' weights become with files and weights: {(part, name): tensor}."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import logging as talk

    talk.set_verbosity_error()

    def fused(*worn: tuple[Path, float], folder: Path | None = None) -> dict[tuple[str, str], torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = StableDiffusionXLPipeline.from_pretrained(folder or pocket.folder())
            for number, (path, _) in enumerate(worn):
                pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=f"x{number}")
            if worn:
                pipe.set_adapters([f"x{number}" for number in range(len(worn))], [weight for _, weight in worn])
                pipe.fuse_lora(components=list(PARTS), adapter_names=[f"x{number}" for number in range(len(worn))])
                pipe.unload_lora_weights()
        return {(part, name): tensor for part in PARTS for name, tensor in getattr(pipe, part).state_dict().items()}

    yield fused


def same(one: dict[tuple[str, str], torch.Tensor], two: dict[tuple[str, str], torch.Tensor], close: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(tensor.float(), two[key].float(), rtol=0, atol=close, msg=lambda text, key=key: f"{key}: {text}")


def test_merged_and_joined_files_are_what_stock_diffusers_fuses(base: Unread, stock: Any, tmp_path: Path) -> None:
    """Two LoRAs fused by diffusers; the folder that we merge; one file that joins them, loaded by diffusers; and the LoRA extracted from the folder."""
    everywhere = [place for place in base.catalogue.places.values() if place.kind == "linear" and place.part != "unet"]  # see the test below
    keys = sorted({place.key for place in [*chosen(base.catalogue), *everywhere]})
    adapters = [made(base.catalogue, "LoRA", seed, rank, keys, f"n{seed}") for seed, rank in ((1, 2), (2, 3))]
    paths = [saved(tmp_path / f"{one.path.name}", one) for one in adapters]
    expected = stock((paths[0], 0.7), (paths[1], -0.4))
    shares = [Share(adapters[0], 0.7), Share(adapters[1], -0.4)]

    write_model(base.model, Dressed(base.tensor, base.catalogue, shares, F32).tensor, tmp_path / "merged", F32, {})
    same(stock(folder=tmp_path / "merged"), expected)

    joined = combine(shares, "concat", Cut(), F32)
    same(stock((saved(tmp_path / "joined.safetensors", Adapter(tmp_path, "", joined.changes, catalogue=base.catalogue)), 1.0)), expected)

    taken = extract(Unread.open(tmp_path / "merged"), base, Extraction(Cut(5)), F32)
    same(stock((saved(tmp_path / "taken.safetensors", Adapter(tmp_path, "", taken.made.changes, catalogue=base.catalogue)), 1.0)), expected)

    smaller = resize(Adapter(tmp_path, "", joined.changes, catalogue=base.catalogue), Cut(rank=4, energy=0.8), F32)
    assert len({one.rank for one in smaller.changes.values()}) > 1, "several ranks in one file, one alpha: what diffusers 0.42 reads right"
    small = stock((saved(tmp_path / "small.safetensors", Adapter(tmp_path, "", smaller.changes, catalogue=base.catalogue)), 1.0))
    bare = stock()
    for key, change in smaller.changes.items():
        name = (key[0], f"{key[1]}.weight")
        torch.testing.assert_close(small[name] - bare[name], change.delta(bare[name]), rtol=0, atol=1e-5)


def test_diffusers_misreads_kohyas_text_encoders_without_out_proj(base: Unread, stock: Any, tmp_path: Path) -> None:
    """0.42 knows the spelling of a text encoder by its out_proj alone, and drops q, k and v where none is there. If this fails, diffusers is mended."""
    places = [place.key for place in base.catalogue.places.values() if place.part == "text_encoder"]
    queries, others = ([key for key in places if key[1].endswith(ends)] for ends in (("q_proj",), ("out_proj", "mlp.fc1")))
    bare = stock()

    def moved(*keys: tuple[str, str]) -> set[tuple[str, str]]:
        worn = stock((saved(tmp_path / "x.safetensors", made(base.catalogue, "LoRA", keys=list(keys))), 1.0))
        return {key for key in keys if not torch.equal(bare[key[0], f"{key[1]}.weight"], worn[key[0], f"{key[1]}.weight"])}

    without = [key for key in others if key[1].endswith("fc1")]
    assert moved(*queries, *without) == set(without)
    assert moved(*queries, *others) == {*queries, *others}
    with pytest.raises(ValueError, match="infer state dict type"):
        moved(*queries)
