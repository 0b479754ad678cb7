"""Textual inversion files: turned over from layout to layout without a bit lost, or refused."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.inversion_files import TWO, read_words, write_words


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_inversions_turn_over_without_a_bit_lost(dtype: torch.dtype, tmp_path: Path) -> None:
    words = {"<cat>": {"clip_l": rand(3, 768).to(dtype), "clip_g": rand(3, 1280, seed=1).to(dtype)}}
    places = {"clip": tmp_path / "<cat>.safetensors", "diffusers": tmp_path / "two", "bundled": tmp_path / "bundle.safetensors"}
    for order in itertools.permutations(places):
        found = words
        for layout in order:
            write_words(places[layout], found, layout)
            found = read_words(places[layout])
            assert found.keys() == words.keys() and all(torch.equal(found["<cat>"][clip], words["<cat>"][clip]) for clip in ("clip_l", "clip_g"))
            assert found["<cat>"]["clip_l"].dtype == dtype
    assert sorted(file.name for file in places["diffusers"].iterdir()) == sorted(TWO)
    assert set(load_file(places["diffusers"] / TWO[0])) == {"<cat>"}


def test_inversions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = {"cat": {"clip_l": rand(2, 768), "clip_g": rand(2, 1280)}}
    with pytest.raises(AdapterError, match=re.escape("Write it to cat.safetensors")):
        write_words(tmp_path / "dog.safetensors", good, "clip")
    with pytest.raises(AdapterError, match="2 words"):
        write_words(tmp_path / "two", good | {"dog": good["cat"]}, "diffusers")
    for vectors, reason in (
        ({"clip_l": rand(2, 768), "clip_g": rand(1, 1280)}, "as many"),
        ({"clip_l": rand(2, 64), "clip_g": rand(2, 1280)}, r"wants \(n, 768\)"),
    ):
        write_words(tmp_path / "cat.safetensors", {"cat": vectors}, "clip")
        with pytest.raises(AdapterError, match=reason):
            read_words(tmp_path / "cat.safetensors")
    save_file({"<cat>": rand(2, 768)}, tmp_path / "half.safetensors")
    with pytest.raises(AdapterError, match="Give the folder"):
        read_words(tmp_path / "half.safetensors")
    with pytest.raises(AdapterError, match="no such file"):
        read_words(tmp_path / "nothing.safetensors")
