"""Layouts: understood whole or refused in words; from one layout to another and back without a bit lost."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Hada, Kron, LowRank
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.level import levelled, uneven
from darkroom.sdxl.adapters.places import Catalogue

QUERY = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
CROSS = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
CONV = ("unet", "mid_block.resnets.0.conv1")
TEXT = ("text_encoder", "encoder.layers.0.self_attn.q_proj")
TEXT_2 = ("text_encoder_2", "text_model.encoder.layers.1.mlp.fc1")


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def lora(catalogue: Catalogue, *keys: tuple[str, str], dtype: torch.dtype = torch.float32, dora: bool = False) -> Adapter:
    changes = {}
    for number, key in enumerate(keys or (QUERY, CROSS, CONV, TEXT, TEXT_2)):
        shape, rank = catalogue.places[key].shape, 1 + number % 3
        ones = (1,) * (len(shape) - 2)
        scale = rand(shape[0], 1, *ones).abs().to(dtype) if dora else None
        changes[key] = LowRank(rand(rank, *shape[1:]).to(dtype), rand(shape[0], rank, *ones).to(dtype), (0.1, 3.0, 0.5)[number % 3], dora_scale=scale)
    changes = {key: replace(change, alpha=float(torch.tensor(change.alpha))) for key, change in changes.items()}
    return Adapter(Path("made.safetensors"), "", changes, {"ss_steps": "7", "ss_base_model_version": "sdxl_base_v1-0"}, catalogue=catalogue)


def test_the_catalogue_is_the_true_sdxl() -> None:
    known = Catalogue.of_sdxl()
    assert known.coverage() == {"unet": 722, "text_encoder": 72, "text_encoder_2": 192} and known.words == {"clip_l": 768, "clip_g": 1280}
    numbers = {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    counts = dict.fromkeys(numbers, 0)
    for place in known.places.values():
        counts[place.part] += torch.Size(place.shape).numel() + place.bias * place.shape[0]
    assert counts == numbers
    assert Catalogue.of_sdxl() is known


def test_every_place_is_found_by_every_spelling() -> None:
    names = Catalogue.of_sdxl().names
    for name, key in {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0": ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"),
        "lora_unet_down_blocks_1_attentions_0_proj_in": ("unet", "down_blocks.1.attentions.0.proj_in"),
        "lycoris_down_blocks_1_attentions_0_proj_in": ("unet", "down_blocks.1.attentions.0.proj_in"),
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out": (
            "unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        "diffusion_model.input_blocks.4.1.proj_in": ("unet", "down_blocks.1.attentions.0.proj_in"),
        "base_model.model.mid_block.attentions.0.proj_in": ("unet", "mid_block.attentions.0.proj_in"),
        "lora_te1_text_model_encoder_layers_11_mlp_fc1": ("text_encoder", "encoder.layers.11.mlp.fc1"),
        "lora_te1_encoder_layers_11_mlp_fc1": ("text_encoder", "encoder.layers.11.mlp.fc1"),
        "text_encoder.encoder.layers.11.mlp.fc1": ("text_encoder", "encoder.layers.11.mlp.fc1"),
        "text_encoder.text_model.encoder.layers.11.mlp.fc1": ("text_encoder", "encoder.layers.11.mlp.fc1"),
        "text_encoders.clip_g.transformer.text_model.encoder.layers.31.mlp.fc2": ("text_encoder_2", "text_model.encoder.layers.31.mlp.fc2"),
        "lora_te2_text_projection": ("text_encoder_2", "text_projection"),
        "lora_unet_out_0": ("unet", "conv_norm_out"),
    }.items():  # fmt: skip
        assert names[name][0].key == key


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_order_of_layouts_loses_a_bit(catalogue: Catalogue, dtype: torch.dtype, dora: bool, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    write(first, lora(catalogue, dtype=dtype, dora=dora), "kohya")
    for number, order in enumerate(itertools.permutations(("kohya", "diffusers", "peft"))):
        path = first
        for layout in (*order, order[0], "kohya"):
            there = tmp_path / f"{number}_{layout}_{path.stem[:3]}.safetensors"
            write(there, read(path, catalogue), layout)
            path = there
        assert path.read_bytes() == first.read_bytes(), order


def test_alphas_and_layouts_are_read_as_written(catalogue: Catalogue, tmp_path: Path) -> None:
    adapter = lora(catalogue)
    for layout in ("kohya", "diffusers", "peft"):
        write(tmp_path / f"{layout}.safetensors", adapter, layout)
        found = read(tmp_path / f"{layout}.safetensors", catalogue)
        assert found.layout == layout and {key: c.alpha for key, c in found.changes.items()} == {key: c.alpha for key, c in adapter.changes.items()}
        assert found.metadata["ss_steps"] == "7" and ("lora_adapter_metadata" in found.metadata) == (layout != "kohya")


def test_equal_adapters_give_equal_bytes(catalogue: Catalogue, tmp_path: Path) -> None:
    for number, adapter in enumerate((lora(catalogue), lora(catalogue))):
        if number:
            adapter.changes = dict(reversed(adapter.changes.items()))
            adapter.metadata = dict(reversed(adapter.metadata.items()))
        write(tmp_path / f"{number}.safetensors", adapter, "kohya")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    metadata = list(Header.read(tmp_path / "0.safetensors").metadata)
    assert metadata == sorted(metadata)


def saved(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path / "x.safetensors", metadata)
    return path / "x.safetensors"


def kohya(catalogue: Catalogue, tmp_path: Path) -> dict[str, torch.Tensor]:
    write(tmp_path / "base.safetensors", lora(catalogue), "kohya")
    return load_file(tmp_path / "base.safetensors")


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_an_alpha_that_is_missing_or_zero_is_the_rank(alpha: float | None, catalogue: Catalogue, tmp_path: Path) -> None:
    tensors = kohya(catalogue, tmp_path)
    name = f"{catalogue.places[CONV].kohya}.alpha"
    tensors |= {name: torch.tensor(alpha)} if alpha is not None else {}
    if alpha is None:
        del tensors[name]
    assert read(saved(tmp_path, tensors), catalogue).changes[CONV].alpha == 3.0


@pytest.mark.parametrize(
    ("facts", "alpha"),
    [
        ({"unet.lora_alpha": 5}, 5.0),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {QUERY[1]: 2.5}}, 2.5),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {f"^{QUERY[1]}".replace(".", "\\."): 2.5}}, 2.5),
        ({"unet.lora_alpha": 5, "unet.alpha_pattern": {"attn1.to_q": 2.5}}, 2.5),
        ({"unet.lora_alpha": 6, "unet.r": 4, "unet.use_rslora": True}, 12.0),
        ({"text_encoder.lora_alpha": 5}, 4.0),
        ({"unet.lora_alpha": "5"}, AdapterError),
        ({"unet.alpha_pattern": {"(a+)+$": 1}}, AdapterError),
        ([], AdapterError),
    ],
)
def test_alphas_in_json(facts: object, alpha: float | type[Exception], catalogue: Catalogue, tmp_path: Path) -> None:
    place = catalogue.places[QUERY]
    tensors = {f"unet.{QUERY[1]}.lora_A.weight": rand(4, place.shape[1]), f"unet.{QUERY[1]}.lora_B.weight": rand(place.shape[0], 4)}
    path = saved(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(facts)})
    if isinstance(alpha, float):
        assert read(path, catalogue).changes[QUERY].alpha == alpha
    else:
        with pytest.raises(alpha, match="strength is unknown"):
            read(path, catalogue)


def unknown_key(tensors: dict[str, torch.Tensor]) -> None:
    tensors |= {f"lora_unet_attic_{number}.lora_up.weight": torch.ones(2, 2) for number in range(5)}


def no_up(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight"]


def other_rank(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_up.weight"] = torch.ones(96, 2)


def other_shape(tensors: dict[str, torch.Tensor]) -> None:
    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q.lora_down.weight"
    tensors[name] = torch.ones(1, 97)


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_middle_block_0_in_layers_2.lora_up.weight"][0, 0, 0, 0] = torch.nan


def alone(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_middle_block_0_in_layers_0.alpha"] = torch.tensor(1.0)


def integers(tensors: dict[str, torch.Tensor]) -> None:
    name = "lora_unet_middle_block_0_in_layers_2.lora_up.weight"
    tensors[name] = tensors[name].to(torch.int8)


def twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight"] = torch.ones(96, 1)


def two_methods(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lora_unet_middle_block_0_in_layers_2.diff"] = torch.ones(8, 8, 3, 3)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (unknown_key, r"5 of 20 keys name nothing in pocket \(lora_unet_attic_0.lora_up.weight, .* and 2 more\)"),
        (no_up, "both needed"), (other_rank, r"mid_block.*lora_up is \(96, 2\)"), (other_shape, r"\(1, 97\), and this base wants \((\d+), r\) x \(r, \1\)"),
        (nan, "in_layers_2.lora_up.weight holds NaN"), (alone, "alpha alone"), (integers, "int8"), (twice, "two spellings"), (two_methods, "no method"),
    ],
)  # fmt: skip
def test_what_is_not_understood_whole_is_refused(damage: Callable[..., None], reason: str, catalogue: Catalogue, tmp_path: Path) -> None:
    tensors = kohya(catalogue, tmp_path)
    damage(tensors)
    with pytest.raises(AdapterError, match=reason):
        read(saved(tmp_path, tensors), catalogue)


def test_an_lcm_lora_is_a_lora(tmp_path: Path) -> None:
    """LCM-LoRA lies in kohya's names in diffusers' spelling, alphas and all; Pony's are plain SDXL LoRAs."""
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": rand(64, 2048).half(), f"{name}.lora_up.weight": rand(640, 64).half(), f"{name}.alpha": torch.tensor(8.0)}
    found = read(saved(tmp_path, tensors, {"ss_base_model_version": "pony", "ss_v2": "False"}), Catalogue.of_sdxl())
    assert found.layout == "kohya-diffusers" and next(iter(found.changes.values())).rank == 64


def test_linear_layers_kept_as_convolutions_are_read(catalogue: Catalogue, tmp_path: Path) -> None:
    place = catalogue.places[QUERY]
    tensors = {f"{place.kohya}.lora_down.weight": rand(2, place.shape[1], 1, 1), f"{place.kohya}.lora_up.weight": rand(place.shape[0], 2, 1, 1)}
    change = read(saved(tmp_path, tensors), catalogue).changes[QUERY]
    assert change.down.shape == (2, place.shape[1]) and change.up.shape == (place.shape[0], 2)


def test_a_layout_without_an_equal_says_so(catalogue: Catalogue, tmp_path: Path) -> None:
    side, (out, inside), adapter = catalogue.places[QUERY].shape[0], catalogue.places[CONV].shape[:2], lora(catalogue)
    odd = {
        "LoHa": {QUERY: Hada(rand(side, 2), rand(2, side), rand(side, 2), rand(2, side), 2.0)},
        "LoKr": {QUERY: Kron(w1=rand(4, 4), w2=rand(side // 4, side // 4))},
        "lora_mid": {CONV: LowRank(rand(2, inside, 1, 1), rand(out, 2, 1, 1), 2.0, mid=rand(2, 2, 3, 3))},
        "each input": {QUERY: LowRank(rand(2, side), rand(side, 2), 2.0, dora_scale=rand(1, side))},
        "some modules": lora(catalogue, QUERY, dora=True).changes | lora(catalogue, CONV).changes,
    }
    for reason, changes in odd.items():
        for layout in ("diffusers", "peft"):
            with pytest.raises(AdapterError, match=rf'{reason}.*"kohya" keeps it'):
                write(tmp_path / "x.safetensors", replace(adapter, changes=changes), layout)
        write(tmp_path / "x.safetensors", replace(adapter, changes=changes), "kohya")
        assert read(tmp_path / "x.safetensors", catalogue).changes.keys() == changes.keys()


def test_bundled_embeddings_stay_with_kohya_alone(catalogue: Catalogue, tmp_path: Path) -> None:
    words = {"TOK": {clip: rand(2, width) for clip, width in catalogue.words.items()}}
    adapter = replace(lora(catalogue), embeddings=words)
    write(tmp_path / "x.safetensors", adapter, "kohya")
    assert torch.equal(read(tmp_path / "x.safetensors", catalogue).embeddings["TOK"]["clip_g"], words["TOK"]["clip_g"])
    with pytest.raises(AdapterError, match="bundles the embedding"):
        write(tmp_path / "y.safetensors", adapter, "peft")


def test_levelling_moves_alphas_into_up(catalogue: Catalogue) -> None:
    adapter = lora(catalogue)
    level = levelled(adapter)
    assert uneven(adapter.changes) == ["unet"] and uneven(level.changes) == []
    for key, change in adapter.changes.items():
        weight = torch.zeros(catalogue.places[key].shape)
        torch.testing.assert_close(level.changes[key].delta(weight), change.delta(weight), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("key", [TEXT, TEXT_2])
def test_alphas_of_text_encoders_are_found_with_and_without_text_model(key: tuple[str, str], prefix: str, catalogue: Catalogue, tmp_path: Path) -> None:
    short, shape = key[1].removeprefix("text_model."), catalogue.places[key].shape
    name = f"{key[0]}.text_model.{short}"
    pattern = json.dumps({f"{key[0]}.alpha_pattern": {f"{prefix}{short}": 2.5}})
    tensors = {f"{name}.lora_A.weight": rand(4, shape[1]), f"{name}.lora_B.weight": rand(shape[0], 4)}
    assert read(saved(tmp_path, tensors, {"lora_adapter_metadata": pattern}), catalogue).changes[key].alpha == 2.5
