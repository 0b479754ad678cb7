"""What is said of a file before it is used: true, complete, and quick for a large one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import Change, Hada, Ia3, LowRank
from darkroom.sdxl.adapters.layouts import Adapter, write
from darkroom.sdxl.adapters.metadata import describe, sidecar
from darkroom.sdxl.adapters.places import Catalogue, Key
from darkroom.sdxl.adapters.programs import PROGRAMS, Facts, verdicts
from darkroom.sdxl.adapters.show import facts, lines


@pytest.fixture
def catalogue(model: object) -> Catalogue:
    return Catalogue.of(model)


def lora(catalogue: Catalogue, alpha: float = 1.0, dora: bool = False) -> dict[Key, Change]:
    torch.manual_seed(3)
    return {
        key: LowRank(torch.randn(2, place.shape[1]), torch.randn(place.shape[0], 2), alpha, dora_scale=torch.rand(place.shape[0], 1) if dora else None)
        for key, place in catalogue.places.items()
        if place.covered
    }


def shown(catalogue: Catalogue, path: Path, changes: dict[Key, Change], layout: str = "kohya", **options: object) -> dict[str, object]:
    write(path, Adapter(path, "", changes, {}, catalogue=catalogue), layout, options.pop("metadata", None))
    return facts(path, catalogue, **options)


def test_a_lora_that_covers_everything(catalogue: Catalogue, tmp_path: Path) -> None:
    changes = lora(catalogue)
    metadata = describe(Adapter(Path(), "", changes, catalogue=catalogue), "Cat", trigger=["TOK cat"], training={"seed": 5})
    found = shown(catalogue, tmp_path / "x.safetensors", changes, metadata=metadata)
    count, whole = len(changes), catalogue.coverage()
    assert json.loads(json.dumps(found)) == found
    assert found["methods"] == {"LoRA": count} and found["ranks"] == {"2": count} and found["alphas"] == {"1": count} and found["dtypes"] == {"F32": 3 * count}
    assert found["coverage"] == {"modules": whole, "of": whole, "beyond": 0, "text": f"{count} of {' + '.join(map(str, whole.values()))}"}
    assert found["trigger_words"] == ["TOK cat"] and found["training"]["ss_seed"] == "5" and not found["negative"]
    assert all(verdict == {"loads": "yes", "why": ""} for verdict in found["programs"].values())
    told = "\n".join(lines(found))
    assert f"covers {found['coverage']['text']} modules" in told and "LoRA" in told and "TOK cat" in told and "seed: 5" in told


def test_norms_are_those_of_the_blocks(catalogue: Catalogue, tmp_path: Path) -> None:
    changes = lora(catalogue)
    found = shown(catalogue, tmp_path / "x.safetensors", changes)["norms"]
    assert {"unet.down_blocks.1", "unet.mid_block", "unet.up_blocks.0", "text_encoder", "text_encoder_2"} <= found.keys()
    for block in ("unet.mid_block", "text_encoder"):
        whole = [c.delta(torch.zeros(catalogue.places[key].shape)) for key, c in changes.items() if f"{'.'.join(key)}.".startswith(f"{block}.")]
        assert found[block] == {
            "norm": pytest.approx(float(torch.stack([d.square().sum() for d in whole]).sum().sqrt()), rel=1e-4),
            "modules": len(whole),
            "unknown": 0,
        }
    unknown = shown(catalogue, tmp_path / "y.safetensors", lora(catalogue, dora=True))["norms"]["unet.mid_block"]
    assert unknown["unknown"] == unknown["modules"] > 0 and unknown["norm"] == 0


def test_the_header_alone_says_the_same_but_for_norms(catalogue: Catalogue, tmp_path: Path) -> None:
    whole = shown(catalogue, tmp_path / "x.safetensors", lora(catalogue, alpha=0.5))
    assert facts(tmp_path / "x.safetensors", catalogue, norms=False) == whole | {"norms": None, "sha256": None}


def sparse(path: Path, rank: int) -> int:
    """A LoRA of this rank over the U-Net of SDXL 1.0 with a true header, its zeros on no disk; its size."""
    at, header = 0, {}
    for key, place in Catalogue.of_sdxl().places.items():
        if place.covered and key[0] == "unet":
            for suffix, shape in (("lora_down", [rank, place.shape[1]]), ("lora_up", [place.shape[0], rank])):
                size = shape[0] * shape[1] * 2
                header[f"{place.kohya}.{suffix}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
                at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + at)
    return path.stat().st_size


MEASURED = """
import json, resource, sys, time
from pathlib import Path
import diffusers, torch, transformers
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from darkroom.jobs.adapter import show_adapter
from darkroom.sdxl.adapters import show
from darkroom.sdxl.inversion import vocabulary
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path, norms in json.loads(sys.argv[1]):
    before, start = peak(), time.process_time()
    found = show_adapter(Path(path), norms=norms)
    print(json.dumps({"seconds": time.process_time() - start, "mib": (peak() - before) / 1024, "found": found}))
"""


def measured(*asked: tuple[Path, bool | None]) -> list[dict[str, Any]]:
    """What `adapter show` says of each file, its seconds of a processor and how much memory at most, in one process that has the libraries imported."""
    program = [sys.executable, "-c", MEASURED, json.dumps([(str(path), norms) for path, norms in asked])]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()[-len(asked) :]]


def test_two_gigabytes_are_shown_at_once_and_norms_take_little_memory(tmp_path: Path) -> None:
    """The first by default, the names and shapes of the whole model made too; of the second, 200 MB large, a few modules are held at a time."""
    assert sparse(tmp_path / "large.safetensors", 512) > 2 << 30 and sparse(tmp_path / "small.safetensors", 40) > 190 << 20
    large, small = measured((tmp_path / "large.safetensors", None), (tmp_path / "small.safetensors", None))
    assert large["found"]["coverage"]["text"] == "722 of 722 + 72 + 192" and large["found"]["ranks"] == {"512": 722} and large["found"]["norms"] is None
    assert large["seconds"] < 1 and large["mib"] < 100
    assert small["found"]["warnings"][0].startswith("This adapter changes nothing") and len(small["found"]["norms"]) == 5
    assert small["mib"] < 100


def test_words_come_from_the_side_car_and_the_captions_too(catalogue: Catalogue, tmp_path: Path) -> None:
    frequency = json.dumps({"1_cat": {"TOK cat": 9, "sofa": 3}, "2_cat": {"sofa": 8}})
    assert shown(catalogue, tmp_path / "x.safetensors", lora(catalogue), metadata={"ss_tag_frequency": frequency})["trigger_words"] == ["sofa", "TOK cat"]
    sidecar(tmp_path / "x.safetensors", ["TOK"])
    assert facts(tmp_path / "x.safetensors", catalogue, norms=False)["trigger_words"] == ["TOK"]
    for broken in ("[]", "{", '{"a": {"b": "c"}}'):
        shown(catalogue, tmp_path / "y.safetensors", lora(catalogue), metadata={"ss_tag_frequency": broken}, norms=False)


def test_what_will_not_load_is_told(catalogue: Catalogue, tmp_path: Path) -> None:
    def programs(changes: dict[Key, Change], layout: str = "kohya") -> dict[str, str]:
        found = shown(catalogue, tmp_path / "x.safetensors", changes, layout, norms=False)["programs"]
        return {name: f"{verdict['loads']}: {verdict['why']}" for name, verdict in found.items()}

    key = ("unet", "mid_block.attentions.0.proj_in")
    side = catalogue.places[key].shape[0]
    hada = Hada(torch.ones(side, 1), torch.ones(1, side), torch.ones(side, 1), torch.ones(1, side), 1.0)
    assert programs({key: hada})["diffusers"] == "no: it does not read LoHa" and "lycoris.kohya" in programs({key: hada})["sd-scripts"]
    assert programs({key: Ia3(torch.ones(side), True)})["ComfyUI"].startswith("no") and programs({key: Ia3(torch.ones(side), True)})["A1111"] == "yes: "
    assert programs(lora(catalogue, dora=True))["diffusers"].startswith("partly: it drops dora_scale")
    peft = programs(lora(catalogue, alpha=1.0), "peft")
    assert peft["diffusers"].startswith("yes") and peft["A1111"].startswith("no") and "alphas from JSON" in peft["ComfyUI"]
    assert "alphas from JSON" not in programs(lora(catalogue, alpha=2.0), "peft")["ComfyUI"]
    uneven = lora(catalogue)
    uneven[key] = LowRank(torch.ones(1, side), torch.ones(side, 1), 0.25)
    assert "level them" in programs(uneven)["diffusers"]


@pytest.mark.parametrize("layout", ["kohya", "kohya-diffusers", "diffusers", "peft", "lycoris", "comfy", "dotted", "mixed (kohya, peft)"])
def test_every_verdict_has_a_reason(layout: str) -> None:
    for methods in ({"LoRA"}, {"DoRA"}, {"LoHa", "(IA)^3"}):
        for flags in ({}, {"tucker": True}, {"bundled": True}, {"short_text": True}, {"uneven": True}):
            found = verdicts(Facts(layout, frozenset(methods), **flags))
            assert tuple(found) == PROGRAMS and all(verdict.why for verdict in found.values() if verdict.loads != "yes")


def test_the_short_text_names_are_found_out(catalogue: Catalogue, tmp_path: Path) -> None:
    """Current transformers drops `text_model.`; a file with names made so is read by no other program."""
    place = catalogue.places["text_encoder", "encoder.layers.0.mlp.fc1"]
    name = "lora_te1_encoder_layers_0_mlp_fc1"
    tensors = {f"{name}.lora_down.weight": torch.ones(1, place.shape[1]), f"{name}.lora_up.weight": torch.ones(place.shape[0], 1)}
    save_file(tensors, tmp_path / "x.safetensors")
    found = facts(tmp_path / "x.safetensors", catalogue)
    assert found["layout"] == "kohya" and all("lack text_model" in found["programs"][program]["why"] for program in ("A1111", "ComfyUI", "sd-scripts"))


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    save_file({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 768)}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match=r"SD 1\.x"):
        facts(tmp_path / "x.safetensors", norms=False)
