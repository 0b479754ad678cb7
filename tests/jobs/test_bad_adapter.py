"""Files that are no adapter for SDXL, or no whole one: the command line says what they are in one message, and writes nothing."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from darkroom.cli.main import run

SDXL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
OTHER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TE1 = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def lora(name: str, inputs: int, outputs: int, rank: int = 4) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_down.weight": torch.ones(rank, inputs), f"{name}.lora_up.weight": torch.ones(outputs, rank), f"{name}.alpha": torch.tensor(4.0)}


def good() -> dict[str, torch.Tensor]:
    """A sound file for SDXL 1.0."""
    return lora(SDXL, 2048, 640) | lora(TE1, 768, 3072)


def tensors(found: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file(found, path)


def written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def header(change: Callable[[dict[str, dict[str, object]]], object]) -> bytes:
    """The sound file with another header before the same tensors."""
    data = save(good())
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(data[8 : 8 + length])
    told = change(facts)
    text = told if isinstance(told, bytes) else json.dumps(facts).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def doubled(facts: dict[str, dict[str, object]]) -> bytes:
    name, fact = next(iter(facts.items()))
    text = json.dumps(facts).encode()
    return b"{" + json.dumps(name).encode() + b":" + json.dumps(fact).encode() + b"," + text[1:]


def nan() -> dict[str, torch.Tensor]:
    found = good()
    found[f"{SDXL}.lora_up.weight"][3, 1] = torch.nan
    return found


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "SD 1.5": (tensors(lora(OTHER, 768, 320) | lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 768, 3072)), r"an adapter for SD 1\.x, not for SDXL"),
    "SD 1.5, U-Net alone": (tensors(lora(OTHER, 768, 320)), r"an adapter for SD 1\.x, not for SDXL"),
    "SD 2": (tensors(lora(OTHER, 1024, 320)), r"an adapter for SD 2\.x, not for SDXL"),
    "FLUX, kohya's": (tensors(lora("lora_unet_double_blocks_0_img_attn_proj", 3072, 3072)), "an adapter for FLUX, not for SDXL"),
    "FLUX, diffusers'": (tensors({"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(4, 3072)}), "an adapter for FLUX"),
    "FLUX, ComfyUI's": (tensors({"diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight": torch.ones(4, 3072)}), "an adapter for FLUX"),
    "unknown": (tensors({"attic.weights": torch.ones(4, 4), "attic.more": torch.ones(2, 2)}), r"2 of 2 keys name nothing in SDXL 1\.0 \(attic\.more, attic\.w"),
    "one key too many": (tensors(good() | {"attic.weights": torch.ones(2)}), r"1 of 7 keys name nothing in SDXL 1\.0 \(attic\.weights\)"),
    "NaN": (tensors(nan()), rf"{SDXL}\.lora_up\.weight holds NaN or infinity.*earlier checkpoint"),
    "wrong ranks": (tensors(good() | {f"{SDXL}.lora_up.weight": torch.ones(640, 2)}), r"attn2\.to_k: lora_up is \(640, 2\), and \(640, 4\)"),
    "wrong shape": (tensors(good() | {f"{SDXL}.lora_up.weight": torch.ones(641, 4)}), "It was made for another base"),
    "a header that lies about its size": (written((1 << 40).to_bytes(8, "little") + save(good())[8:]), r"claims 1,099,511,627,776 bytes, and the file has"),
    "a header that lies about a tensor": (
        written(header(lambda facts: next(fact for fact in facts.values() if fact["shape"] == [4, 2048]).update(shape=[4, 4096]))),
        r"takes 32,768 bytes, and F32 \(4, 4096\) wants 65,536",
    ),
    "duplicate keys": (written(header(doubled)), r"its header names '.*' twice"),
    "truncated": (written(save(good())[:-1000]), r"cut short.*Fetch or train it again"),
    "truncated within its header": (written(save(good())[:100]), "its header claims"),
    "empty": (written(b""), "it has 0 bytes"),
    "a pickle by another name": (written(pickle.dumps({"a": list(range(50))}, protocol=2)), r"a pickle, which can run code when it is opened.*Convert it"),
    "a zip of torch's by another name": (written(b"PK\x03\x04" + bytes(100)), r"a pickle, which can run code when it is opened"),
    "a textual inversion for SD 1.x": (tensors({"emb_params": torch.ones(2, 768)}), r"A1111's layout for SD 1\.x and 2\.x"),
    "a checkpoint": (tensors({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4)}), "a whole checkpoint"),
}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command that must refuse."""
    assert run(["adapter", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_adapter_is_refused_in_words(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, reason = CASES[case]
    path = tmp_path / "x.safetensors"
    make(path)
    for command in (("show", str(path)), ("convert", str(path), "--to", "kohya"), ("convert", str(path), "--to", "peft", "--out", str(tmp_path / "y"))):
        message = told(capsys, *command)
        assert re.search(reason, message.replace("\n", " ")) and str(path) in message.replace("\n", ""), message
        assert message.rstrip().endswith(".")
    assert list(tmp_path.iterdir()) == [path], "nothing was written"


@pytest.mark.parametrize("name", ["x.pt", "x.ckpt", "x.bin", "x.PTH", "x.pkl"])
def test_pickles_are_refused_unread(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(b"not even looked at")
    assert "refused unread. Convert it to .safetensors where you trust it" in told(capsys, "show", str(tmp_path / name)).replace("\n", " ")


def test_a_map_without_text_model_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Current transformers drops the prefix: Darkroom says that no other program finds such names, and writes the right ones."""
    path = tmp_path / "x.safetensors"
    save_file(lora(TE1.replace("text_model_", ""), 768, 3072), path)
    assert run(["adapter", "show", str(path)]) == 0
    assert "warning: The names of the text encoders lack text_model." in capsys.readouterr().out
    assert run(["adapter", "convert", str(path), "--to", "kohya", "--out", str(tmp_path / "y.safetensors")]) == 0
    assert load_file(tmp_path / "y.safetensors").keys() == lora(TE1, 768, 3072).keys()
    capsys.readouterr()
    assert run(["adapter", "show", str(tmp_path / "y.safetensors")]) == 0
    assert "lack text_model" not in capsys.readouterr().out
