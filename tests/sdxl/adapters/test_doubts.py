"""What is odd about a whole file is said in words, and nothing is said of a sound one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Change, Full, Glora, Hada, Ia3, Kron, LowRank, Norm, Oft
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.layouts import Adapter, write
from darkroom.sdxl.adapters.metadata import describe
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.adapters.show import facts, lines


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


def lora(catalogue: Catalogue) -> dict[Key, Change]:
    torch.manual_seed(3)
    return {key: LowRank(torch.randn(2, p.shape[1]), torch.randn(p.shape[0], 2), 1.0) for key, p in catalogue.places.items() if p.covered}


def warnings(catalogue: Catalogue, path: Path, changes: dict[Key, Change], said: dict[str, str] | None = None, norms: bool = True) -> list[str]:
    """What is warned of a file with the header that we write, and these words changed in it."""
    made = Adapter(path, "", changes, catalogue=catalogue)
    write(path, made, "kohya", describe(made, "Cat") | (said or {}))
    found = facts(path, catalogue, norms)
    assert [line for line in lines(found) if line.startswith("warning: ")] == [f"warning: {text}" for text in found["warnings"]]
    return found["warnings"]


def zeroed(change: Change) -> Change:
    return replace(change, up=torch.zeros_like(change.up))


def test_an_adapter_of_zeros_changes_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    (told,) = warnings(catalogue, tmp_path / "x.safetensors", {key: zeroed(change) for key, change in lora(catalogue).items()})
    assert told.startswith("This adapter changes nothing: every change in it is zero.")
    assert warnings(catalogue, tmp_path / "y.safetensors", lora(catalogue)) == []


def test_a_block_of_zeros_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    changes = lora(catalogue)
    count = 0
    for key in changes:
        if key[0] == "text_encoder_2" or key[1].startswith("mid_block."):
            changes[key], count = zeroed(changes[key]), count + 1
    told = warnings(catalogue, tmp_path / "x.safetensors", changes)
    assert {text.partition(" is not changed")[0] for text in told} == {"text_encoder_2", "unet.mid_block"} and all("changes are zero" in text for text in told)
    one = next(iter(lora(catalogue)))
    assert warnings(catalogue, tmp_path / "y.safetensors", lora(catalogue) | {one: zeroed(lora(catalogue)[one])}) == [], "one module of many is not odd"


def of_each_method(side: int) -> dict[str, tuple[Change, Change]]:
    """For each method a change that does something, and one that does nothing whatever the base is."""
    zero, one, low = torch.zeros(side, side), torch.ones(side, side), (torch.ones(2, side), torch.ones(side, 2))
    blocks = torch.randn(side // 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return {
        "LoRA": (LowRank(*low, 1.0), LowRank(low[0], low[1] * 0, 1.0)),
        "LoHa": (Hada(low[1], low[0], low[1] * 2, low[0] * 2, 1.0), Hada(low[1], low[0] * 0, low[1] * 2, low[0] * 2, 1.0)),
        "LoKr": (Kron(w1=one[:4, :4], w2=one[: side // 4, : side // 4]), Kron(w1=one[:4, :4], w2=zero[: side // 4, : side // 4])),
        "full": (Full(one), Full(zero, torch.zeros(side))), "bias": (Full(zero, torch.ones(side)), Full(zero, torch.zeros(side))),
        "(IA)^3": (Ia3(torch.ones(side), True), Ia3(torch.zeros(side), True)), "OFT": (Oft(blocks), Oft(blocks * 0)),
        "OFT stretched": (Oft(blocks * 0, rescale=torch.full((side, 1), 1.1)), Oft(blocks * 0, rescale=torch.ones(side, 1))),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["LoRA", "LoHa", "LoKr", "full", "bias", "(IA)^3", "OFT", "OFT stretched"])
def test_every_method_is_known_to_do_something_or_nothing(method: str, catalogue: Catalogue, tmp_path: Path) -> None:
    key = ("unet", "mid_block.attentions.0.proj_in")
    some, none = of_each_method(catalogue.places[key].shape[0])[method]
    weight = torch.randn(catalogue.places[key].shape, generator=torch.Generator().manual_seed(1))
    assert none.delta(weight).abs().max() < 1e-5 and (some.bias is not None or some.delta(weight).abs().max() > 1e-3)
    assert warnings(catalogue, tmp_path / "x.safetensors", {key: some}) == []
    assert "changes nothing" in warnings(catalogue, tmp_path / "y.safetensors", {key: none})[0]


def test_a_dora_is_never_said_to_do_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    """Whether its magnitudes are the base's own norms only the base can tell."""
    key = ("unet", "mid_block.attentions.0.proj_in")
    side = catalogue.places[key].shape[0]
    assert warnings(catalogue, tmp_path / "x.safetensors", {key: LowRank(torch.ones(1, side), torch.zeros(side, 1), 1.0, dora_scale=torch.ones(side, 1))}) == []


def test_a_strength_that_is_not_finite_is_told(catalogue: Catalogue, tmp_path: Path) -> None:
    key = ("unet", "mid_block.attentions.0.proj_in")
    side = catalogue.places[key].shape[0]
    huge = [torch.full(shape, 3e38) for shape in ((side, 1), (1, side), (side, 1), (1, side))]
    changes = lora(catalogue) | {key: Hada(*huge, 1.0)}
    (told,) = [text for text in warnings(catalogue, tmp_path / "x.safetensors", changes) if "finite" in text]
    assert told.startswith("unet.mid_block.attentions.0.proj_in: the change is not finite") and "earlier checkpoint" in told


def test_numbers_that_are_not_finite_in_the_file_itself_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    warnings(catalogue, tmp_path / "x.safetensors", lora(catalogue))
    tensors = load_file(tmp_path / "x.safetensors")
    tensors["lora_unet_middle_block_1_proj_in.lora_up.weight"][0, 0] = torch.inf
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match=r"lora_unet_middle_block_1_proj_in\.lora_up\.weight holds NaN or infinity"):
        facts(tmp_path / "x.safetensors", catalogue)


WRONG = {
    "ss_network_dim = 16, and the tensors have 2": {"ss_network_dim": "16"},
    "ss_network_alpha = 8.0, and the tensors have 1": {"ss_network_alpha": "8.0"},
    'ss_base_model_version = "sd_v1"': {"ss_base_model_version": "sd_v1"},
    'ss_base_model_version = "flux1"': {"ss_base_model_version": "flux1"},
    'modelspec.architecture = "flux-1-dev/lora"': {"modelspec.architecture": "flux-1-dev/lora"},
    'ss_v2 = "True"': {"ss_v2": "True"},
    'LyCORIS\' algorithm is "loha", and the tensors are LoRA': {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "LoHa"}'},
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_header_that_contradicts_its_tensors_is_told(reason: str, catalogue: Catalogue, tmp_path: Path) -> None:
    for norms in (True, False):
        (told,) = warnings(catalogue, tmp_path / "x.safetensors", lora(catalogue), WRONG[reason], norms)
        assert reason in told


@pytest.mark.parametrize("said", [
    {"ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}, {"ss_network_dim": "None", "ss_network_alpha": "None"}, {"ss_network_alpha": "0"},
    {"ss_network_args": "[]"}, {"ss_network_args": "{"}, {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "locon"}'},
    {"ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "dylora"}'}, {"ss_base_model_version": "pony"}, {"ss_network_dim": "nan"},
    {"ss_network_args": '{"algo": "something new"}'},
])  # fmt: skip
def test_what_may_be_true_is_not_doubted(said: dict[str, str], catalogue: Catalogue, tmp_path: Path) -> None:
    assert warnings(catalogue, tmp_path / "x.safetensors", lora(catalogue), said) == []


def test_networks_lora_has_no_loha(catalogue: Catalogue, tmp_path: Path) -> None:
    key = ("unet", "mid_block.attentions.0.proj_in")
    some, _ = of_each_method(catalogue.places[key].shape[0])["LoHa"]
    (told,) = warnings(catalogue, tmp_path / "x.safetensors", {key: some}, {"ss_network_module": "networks.lora", "ss_network_args": "{}"})
    assert "which has LoRA alone, and the tensors are LoHa" in told


def test_our_own_words_about_every_method_are_not_doubted(catalogue: Catalogue, tmp_path: Path) -> None:
    key, norm = ("unet", "mid_block.attentions.0.proj_in"), ("unet", "mid_block.attentions.0.norm")
    side = catalogue.places[key].shape[0]
    changes = [pair[0] for pair in of_each_method(side).values()]
    changes += [Glora(torch.ones(side, 1), torch.ones(1, side), torch.ones(side, 1), torch.ones(1, side), 1.0), Oft(torch.ones(2, side // 4, 4, 4))]
    for change in changes:
        assert warnings(catalogue, tmp_path / "x.safetensors", {key: change}) == []
    assert warnings(catalogue, tmp_path / "x.safetensors", {norm: Norm(torch.ones(catalogue.places[norm].shape))}) == []


def test_tensors_changed_behind_the_header_are_told(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    warnings(catalogue, path, lora(catalogue))
    metadata, tensors = Header.read(path).metadata, load_file(path)
    save_file({name: tensor * 2 for name, tensor in tensors.items() if not name.endswith("alpha")}, path, metadata)
    told = facts(path, catalogue)["warnings"]
    assert any("sshs_model_hash is not the hash of these tensors" in text for text in told)
    assert not any("sshs_model_hash" in text for text in facts(path, catalogue, norms=False)["warnings"]), "the header alone cannot tell"
