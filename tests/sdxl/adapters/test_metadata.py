"""Metadata: the hashes of sd-scripts, the fields of modelspec, the side-car of A1111."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Hada, LowRank
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.metadata import describe, hashes, read_sidecar, sidecar
from darkroom.sdxl.adapters.places import Catalogue

KEYS = (("unet", "mid_block.attentions.0.proj_in"), ("unet", "mid_block.attentions.0.proj_out"))


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def lora(catalogue: Catalogue, *ranks: int) -> Adapter:
    shapes = {key: catalogue.places[key].shape for key in KEYS}
    changes = {key: LowRank(rand(rank, shapes[key][1]), rand(shapes[key][0], rank), 1.0) for key, rank in zip(KEYS, ranks, strict=False)}
    return Adapter(Path("made.safetensors"), "", changes, {}, catalogue=catalogue)


def test_hashes_are_sd_scripts(catalogue: Catalogue, tmp_path: Path) -> None:
    """library/train_util.py: all after the header, and 64 KiB at 1 MiB of the file with its ss_ keys alone."""
    tensors = {"a": rand(600, 600), "b": rand(5).half()}
    metadata = {"ss_steps": "7", "modelspec.title": "x"}
    alone = save(tensors, {"ss_steps": "7"})
    start = 8 + int.from_bytes(alone[:8], "little")
    found = hashes(tensors, metadata)
    assert found["sshs_model_hash"] == hashlib.sha256(alone[start:]).hexdigest() == found["modelspec.hash_sha256"].removeprefix("0x")
    assert found["sshs_legacy_hash"] == hashlib.sha256(alone[0x100000:0x110000]).hexdigest()[:8] != hashlib.sha256(b"").hexdigest()[:8]
    write(tmp_path / "x.safetensors", lora(catalogue, 2), "kohya")
    adapter = read(tmp_path / "x.safetensors", catalogue)
    header = Header.read(tmp_path / "x.safetensors")
    body = hashlib.sha256((tmp_path / "x.safetensors").read_bytes()[header.start :]).hexdigest()
    assert adapter.metadata["sshs_model_hash"] == body and adapter.short == body[:12] and adapter.sha256 == header.sha256


def test_the_description_is_what_readers_look_for(catalogue: Catalogue) -> None:
    found = describe(lora(catalogue, 1), "My cat", trigger=["TOK cat"], negative=True, card={"author": "me"}, training={"steps": 7, "tag_frequency": {"a": {}}})
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora" and found["modelspec.sai_model_spec"] == "1.0.1"
    must = {"sai_model_spec", "architecture", "implementation", "title", "resolution"}
    assert {f"modelspec.{key}" for key in must} <= found.keys() and found["modelspec.is_negative_embedding"] == "true"
    assert found["ss_base_model_version"].startswith("sdxl_") and found["ss_network_module"] == "networks.lora" and found["ss_network_dim"] == "1"
    assert found["ss_steps"] == "7" and json.loads(found["ss_tag_frequency"]) == {"a": {}} and all(isinstance(value, str) for value in found.values())
    assert describe(lora(catalogue, 1, 2), "x")["ss_network_dim"] == "Dynamic"
    hada = Adapter(Path(), "", {KEYS[0]: Hada(rand(4, 2), rand(2, 4), rand(4, 2), rand(2, 4), 2.0)}, catalogue=catalogue)
    found = describe(hada, "x")
    assert found["ss_network_module"] == "lycoris.kohya" and json.loads(found["ss_network_args"]) == {"algo": "loha"}
    with pytest.raises(AdapterError, match="The fields are description"):
        describe(lora(catalogue, 2), "x", card={"colour": "red"})


def test_the_side_car_is_a1111s(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    (tmp_path / "cat.json").write_text('{"notes": "mine", "unknown": 1}')
    assert sidecar(path, ["TOK", "cat"], 0.8) == tmp_path / "cat.json"
    assert read_sidecar(path) == {"notes": "mine", "unknown": 1, "sd version": "SDXL", "activation text": "TOK, cat", "preferred weight": 0.8}
    sidecar(tmp_path / "bad.safetensors", ["BAD"], negative=True)
    assert json.loads((tmp_path / "bad.json").read_text()) == {"sd version": "SDXL", "negative text": "BAD", "preferred weight": 0.0}
    (tmp_path / "cat.json").write_text("[1]")
    with pytest.raises(AdapterError, match="no JSON object"):
        sidecar(path)
