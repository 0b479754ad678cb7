"""Textual inversion files: one reader of every layout, one writer, not a bit lost between them; what is not understood whole is refused."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.inversion_files import TWO, WIDTHS, Word, holds_words, read_words, write_word
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.places import Catalogue

KEY = ("unet", "mid_block.attentions.0.proj_in")


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def lora() -> Adapter:
    known = Catalogue.of_sdxl()
    return Adapter(Path("made"), "", {KEY: LowRank(rand(1, 1280), rand(1280, 1, seed=1), 1.0)}, {"ss_steps": "7"}, catalogue=known)


def turned(word: Word, layout: str, folder: Path) -> Word:
    """Written in a layout and read again."""
    folder.mkdir()
    if layout == "bundled":
        write(folder / "lora.safetensors", replace(lora(), embeddings={word.name: word.vectors}), "kohya")
        assert read(folder / "lora.safetensors", Catalogue.of_sdxl()).changes.keys() == {KEY}
        path = folder / "lora.safetensors"
    else:
        path = folder if layout == "diffusers" else folder / f"{word.name}.safetensors"
        assert write_word(path, word, layout) == ([path] if layout == "kohya" else [folder / name for name in TWO])
    (found,) = read_words(path)
    assert found.layout == layout
    return found


def same(one: Word, two: Word) -> bool:
    kinds = {clip: (one.vectors[clip].dtype, two.vectors[clip].dtype) for clip in WIDTHS}
    return one.name == two.name and all(a == b for a, b in kinds.values()) and all(torch.equal(one.vectors[clip], two.vectors[clip]) for clip in WIDTHS)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_no_order_of_layouts_loses_a_bit(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("turn")
    dtype, count = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])), data.draw(st.integers(1, 4))
    name = data.draw(st.sampled_from(["<cat>", "cat", "grumpy-style", "bad.v2", "Größe"]))
    word = Word(name, {"clip_l": rand(count, 768).to(dtype), "clip_g": rand(count, 1280, seed=1).to(dtype)})
    found = word
    for number, layout in enumerate(data.draw(st.lists(st.sampled_from(["kohya", "diffusers", "bundled"]), min_size=1, max_size=6))):
        found = turned(found, layout, tmp_path / str(number))
        assert same(found, word)


def test_every_order_gives_the_bytes_of_the_first(tmp_path: Path) -> None:
    word = Word("<cat>", {"clip_l": rand(3, 768), "clip_g": rand(3, 1280, seed=1)})
    files = set()
    for number, order in enumerate(itertools.permutations(("kohya", "diffusers", "bundled"))):
        found = word
        for layout in (*order, "kohya"):
            found = turned(found, layout, tmp_path / f"{number}-{layout}-{len(list(tmp_path.iterdir()))}")
        files.add(found.files[0].read_bytes())
    assert len(files) == 1


def test_the_files_are_those_of_their_programs(tmp_path: Path) -> None:
    word = Word("<cat>", {"clip_l": rand(2, 768), "clip_g": rand(2, 1280, seed=1)}, metadata={"modelspec.author": "me", "sshs_model_hash": "old"})
    write_word(tmp_path / "two", word, "diffusers")
    write_word(tmp_path / "<cat>.safetensors", word, "kohya")
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == ["learned_embeds.safetensors", "learned_embeds_2.safetensors"]
    first, second = (load_file(tmp_path / "two" / name) for name in TWO)
    assert first.keys() == second.keys() == {"<cat>"} and first["<cat>"].shape == (2, 768) and second["<cat>"].shape == (2, 1280)
    assert load_file(tmp_path / "<cat>.safetensors").keys() == {"clip_l", "clip_g"}
    said = Header.read(tmp_path / "<cat>.safetensors").metadata
    must = ("sai_model_spec", "architecture", "implementation", "title", "resolution", "hash_sha256")
    assert all(f"modelspec.{key}" in said for key in must) and said["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"
    assert said["modelspec.author"] == "me" and said["modelspec.trigger_phrase"] == "<cat>" and said["sshs_model_hash"] != "old"


def test_one_vector_may_lie_flat(tmp_path: Path) -> None:
    """transformers' tables give one row as (C,)."""
    save_file({"clip_l": rand(768), "clip_g": rand(1280)}, tmp_path / "cat.safetensors")
    (found,) = read_words(tmp_path / "cat.safetensors")
    assert {clip: tuple(vectors.shape) for clip, vectors in found.vectors.items()} == {"clip_l": (1, 768), "clip_g": (1, 1280)}


def test_a_word_may_be_called_otherwise(tmp_path: Path) -> None:
    word = Word("<cat>", {"clip_l": rand(1, 768), "clip_g": rand(1, 1280)}, metadata={"modelspec.title": "<cat>"})
    write_word(tmp_path / "dog.safetensors", word.called("dog"), "kohya")
    (found,) = read_words(tmp_path / "dog.safetensors")
    assert found.name == "dog" and (found.metadata["modelspec.title"], found.metadata["modelspec.trigger_phrase"]) == ("dog", "dog")


@pytest.mark.parametrize("name", ["../cat", "a/b", "a\\b", "..", ".cat", "", "x" * 201])
def test_no_word_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    word = Word(name, {"clip_l": rand(1, 768), "clip_g": rand(1, 1280)}, (Path("lora.safetensors"),))
    with pytest.raises(AdapterError, match=r"cannot be a file's name.*--word"):
        write_word(tmp_path / f"{name}.safetensors", word, "kohya")


REFUSED = {
    "as many": {"clip_l": rand(2, 768), "clip_g": rand(1, 1280)},
    r"clip_l \(2, 64\) float32, and this base wants \(n, 768\)": {"clip_l": rand(2, 64), "clip_g": rand(2, 1280)},
    "another base model": {"clip_l": rand(0, 768), "clip_g": rand(0, 1280)},
    "floats": {"clip_l": rand(1, 768).long(), "clip_g": rand(1, 1280)},
    "holds NaN": {"clip_l": rand(1, 768) / 0, "clip_g": rand(1, 1280)},
    "no vectors for clip_g": {"clip_l": rand(2, 768)},
    "SD 1.x has but one": {"<cat>": rand(2, 768)},
    "width of 768 or 1280": {"<cat>": rand(2, 1024)},
    "A1111's layout for SD 1": {"emb_params": rand(2, 768)},
    r"string_to_param\.\* is A1111's layout": {"string_to_param.*": rand(2, 768)},
    "output embedding": {"clip_l": rand(1, 768), "clip_g": rand(1, 1280), "clip_l_out": rand(1, 768)},
    "holds extra beside clip_l": {"clip_l": rand(1, 768), "clip_g": rand(1, 1280), "extra": rand(1)},
    "holds 2 tensors": {"<cat>": rand(2, 768), "<dog>": rand(2, 768)},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_understood_whole_is_refused(reason: str, tmp_path: Path) -> None:
    save_file(REFUSED[reason], tmp_path / "cat.safetensors")
    with pytest.raises(AdapterError, match=reason):
        read_words(tmp_path / "cat.safetensors")


def test_a_name_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    word = Word("cat", {"clip_l": rand(2, 768), "clip_g": rand(2, 1280)})
    with pytest.raises(AdapterError, match=re.escape("Write it to cat.safetensors, or call it otherwise with --word")):
        write_word(tmp_path / "dog.safetensors", word, "kohya")
    with pytest.raises(AdapterError, match="no such file"):
        read_words(tmp_path / "nothing.safetensors")


def test_textual_inversions_are_told_from_adapters(tmp_path: Path) -> None:
    save_file({"clip_l": rand(1, 768), "clip_g": rand(1, 1280)}, tmp_path / "cat.safetensors")
    save_file({"<bad.v2>": rand(1, 768)}, tmp_path / "learned_embeds.safetensors")
    write(tmp_path / "lora.safetensors", replace(lora(), embeddings={"cat": {"clip_l": rand(1, 768), "clip_g": rand(1, 1280)}}), "kohya")
    save_file({"lora_unet_middle_block_1_proj_in.diff": rand(1280, 1280)}, tmp_path / "one.safetensors")
    found = {file.stem: holds_words(file) for file in tmp_path.glob("*.safetensors")}
    assert found == {"cat": True, "learned_embeds": True, "lora": False, "one": False} and holds_words(tmp_path)
    assert json.loads(json.dumps(Header.read(tmp_path / "cat.safetensors").metadata)) == {}
