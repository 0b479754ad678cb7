"""`darkroom adapter convert` and `show`: LoRAs and textual inversions into other programs' layouts, and out of and into one another."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.cli.main import run
from darkroom.errors import AdapterError, OutputError
from darkroom.jobs.adapter import Conversion, convert_adapter, show_adapter
from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.inversion_files import Word, write_word
from darkroom.sdxl.adapters.layouts import Adapter, write
from darkroom.sdxl.adapters.metadata import describe
from darkroom.sdxl.adapters.places import Catalogue

KEY = ("unet", "mid_block.attentions.0.proj_in")


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture
def word(tmp_path: Path) -> Path:
    path = tmp_path / "<toy>.safetensors"
    write_word(path, Word("<toy>", {"clip_l": rand(2, 768), "clip_g": rand(2, 1280, seed=1)}), "kohya")
    return path


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    made = Adapter(Path("made"), "", {KEY: LowRank(rand(2, 1280), rand(1280, 2, seed=1), 1.0)}, catalogue=Catalogue.of_sdxl())
    write(tmp_path / "lora.safetensors", made, "kohya", describe(made, "Toy", trigger=["TOK toy"]))
    return tmp_path / "lora.safetensors"


def test_a_word_goes_to_diffusers_and_back(word: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adapter", "convert", str(word), "--to", "diffusers", "--out", str(tmp_path / "two")]) == 0
    assert 'kohya -> diffusers, the word "<toy>" (2 vectors)' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["learned_embeds.safetensors", "learned_embeds_2.safetensors"]
    done = convert_adapter(Conversion(tmp_path / "two", "kohya"))
    back = tmp_path / "two-kohya" / "<toy>.safetensors"
    assert done["files"] == [str(back)] and back.read_bytes() == word.read_bytes()
    again = convert_adapter(Conversion(tmp_path / "two" / "learned_embeds_2.safetensors", "kohya", tmp_path / "dog.safetensors", word="dog"))
    assert again["words"] == {"dog": 2} and load_file(tmp_path / "dog.safetensors")["clip_g"].equal(load_file(word)["clip_g"])


def test_a_word_goes_into_a_lora_and_out_again(word: Path, lora: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.safetensors"
    done = convert_adapter(Conversion(word, "kohya", both, bundle=lora))
    assert done["modules"] == 1 and done["words"] == {"<toy>": 2}
    assert {"bundle_emb.<toy>.clip_l", "bundle_emb.<toy>.clip_g"} < load_file(both).keys()
    with pytest.raises(AdapterError, match="bundles the embedding"):
        convert_adapter(Conversion(both, "peft"))
    out = tmp_path / "apart.safetensors"
    done = convert_adapter(Conversion(both, "kohya", out, unbundle=True))
    assert out.read_bytes() == lora.read_bytes(), "the LoRA is as it was, to the last byte"
    assert done["files"] == [str(tmp_path / "apart-words" / "<toy>.safetensors")]
    assert (tmp_path / "apart-words" / "<toy>.safetensors").read_bytes() == word.read_bytes()
    convert_adapter(Conversion(both, "peft", tmp_path / "peft.safetensors", unbundle=True))
    assert (tmp_path / "peft-words" / "learned_embeds_2.safetensors").is_file()
    other = convert_adapter(Conversion(word, "kohya", tmp_path / "three.safetensors", bundle=both, word="dog"))
    assert other["words"] == {"dog": 2}
    done = convert_adapter(Conversion(tmp_path / "three.safetensors", "diffusers", tmp_path / "four.safetensors", unbundle=True))
    names = [str(Path(name).relative_to(tmp_path / "four-words").parent) for name in done["files"]]
    assert names == ["<toy>", "<toy>", "dog", "dog"], "several words have a folder each"


def test_the_side_car_says_words_and_weight(lora: Path, tmp_path: Path) -> None:
    convert_adapter(Conversion(lora, "kohya", tmp_path / "copy.safetensors", sidecar=0.7))
    assert json.loads((tmp_path / "copy.json").read_text()) == {"sd version": "SDXL", "activation text": "TOK toy", "preferred weight": 0.7}


REFUSED = {
    "peft has no file": lambda word, lora, folder: Conversion(word, "peft"),
    "--unbundle is for adapters": lambda word, lora, folder: Conversion(word, "kohya", unbundle=True),
    "--sidecar is for adapters": lambda word, lora, folder: Conversion(word, "kohya", sidecar=1.0),
    "--bundle is for a textual inversion": lambda word, lora, folder: Conversion(lora, "kohya", bundle=lora),
    "--word is for a textual inversion": lambda word, lora, folder: Conversion(lora, "kohya", word="dog"),
    "nothing to take out": lambda word, lora, folder: Conversion(lora, "kohya", unbundle=True),
    "several files are to be written": lambda word, lora, folder: Conversion(word, "diffusers", folder / "x.safetensors"),
    "the file's name is the word": lambda word, lora, folder: Conversion(word, "kohya", folder / "x.safetensors"),
    "bundles the embedding": lambda word, lora, folder: Conversion(word, "diffusers", folder / "x.safetensors", bundle=lora),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_meaning_is_refused_and_nothing_is_written(reason: str, word: Path, lora: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdapterError, match=reason):
        convert_adapter(REFUSED[reason](word, lora, tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_word_is_bundled_once_and_nothing_is_overwritten(word: Path, lora: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.safetensors"
    convert_adapter(Conversion(word, "kohya", both, bundle=lora))
    with pytest.raises(AdapterError, match=r"bundles the word .* already"):
        convert_adapter(Conversion(word, "kohya", tmp_path / "x.safetensors", bundle=both))
    for asked in (Conversion(lora, "kohya", both), Conversion(word, "kohya", word), Conversion(word, "diffusers", tmp_path)):
        with pytest.raises(OutputError, match="is there already"):
            convert_adapter(asked)


def test_a_word_is_shown_against_the_vocabulary(model: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"clip_l": model.text_encoder, "clip_g": model.text_encoder_2}
    tables = {clip: encoder.get_input_embeddings().weight.detach() for clip, encoder in tables.items()}
    tensors = {clip: torch.stack([table[100], torch.zeros(table.shape[1])]) for clip, table in tables.items()}
    save_file(tensors, tmp_path / "toy.safetensors")
    assert run(["adapter", "show", str(tmp_path / "toy.safetensors"), "--base", "pocket"]) == 0
    told = capsys.readouterr().out
    assert '"toy": 2 vectors, clip_l 64 wide, clip_g 96 wide, float32' in told and "times the vocabulary's mean" in told
    assert told.count("warning:") == 2 and "1 of 2 vectors of clip_g all zero" in told
    fact = show_adapter(tmp_path / "toy.safetensors", "pocket")["words"]["toy"]
    for clip, table in tables.items():
        norms = table.norm(dim=-1)
        assert fact["norms"][clip] == [pytest.approx(float(norms[100]), rel=1e-6), 0]
        assert fact["against_vocabulary"][clip] == pytest.approx(float(norms[100] / 2 / norms.mean()), rel=1e-5)


def test_a_word_is_shown_without_its_base(word: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["adapter", "show", str(word), "--json"]) == 0
    fact = json.loads(capsys.readouterr().out)
    assert fact["words"]["<toy>"]["widths"] == {"clip_l": 768, "clip_g": 1280} and fact["vocabulary"] is None and fact["warnings"] == []
    assert fact["programs"]["diffusers"]["loads"] == "no" and fact["programs"]["ComfyUI"]["loads"] == "yes"
    assert run(["adapter", "show", str(word)]) == 0
    assert "Name its base with --base" in capsys.readouterr().out
