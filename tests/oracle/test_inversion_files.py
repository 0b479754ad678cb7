"""Textual inversions that we write, in stock diffusers; and its own script's way of saving them, read by us."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from darkroom import pocket
from darkroom.sdxl.adapters.inversion_files import TWO, Word, read_words, write_word
from darkroom.sdxl.adapters.show import word_facts

WIDTHS = {"clip_l": 64, "clip_g": 96}


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture
def pipe() -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(Path(pocket.resolve("pocket")))


def encoders(pipe: Any) -> list[tuple[str, Any, Any]]:
    return [("clip_l", pipe.text_encoder, pipe.tokenizer), ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2)]


@pytest.mark.parametrize("count", [1, 3])
def test_stock_diffusers_loads_the_two_files(count: int, pipe: Any, tmp_path: Path) -> None:
    word = Word("<toy>", {clip: rand(count, width, seed=width) for clip, width in WIDTHS.items()})
    write_word(tmp_path, word, "diffusers")
    for (clip, encoder, tokenizer), name in zip(encoders(pipe), TWO, strict=True):
        pipe.load_textual_inversion(tmp_path, weight_name=name, text_encoder=encoder, tokenizer=tokenizer)
        tokens = ["<toy>", *(f"<toy>_{number}" for number in range(1, count))]
        assert pipe.maybe_convert_prompt("a <toy>", tokenizer).split()[1:] == tokens
        rows = encoder.get_input_embeddings().weight[torch.tensor(tokenizer.convert_tokens_to_ids(tokens))]
        assert torch.equal(rows, word.vectors[clip])


def test_stock_diffusers_has_no_way_with_one_file(pipe: Any, tmp_path: Path) -> None:
    """`adapter show` says so. Once this fails, the verdict may be another."""
    write_word(tmp_path / "toy.safetensors", Word("toy", {clip: rand(1, width) for clip, width in WIDTHS.items()}), "kohya")
    assert word_facts(tmp_path / "toy.safetensors", WIDTHS)["programs"]["diffusers"]["loads"] == "no"
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        pipe.load_textual_inversion(tmp_path, weight_name="toy.safetensors", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)


def test_what_diffusers_own_script_saves_is_read(pipe: Any, tmp_path: Path) -> None:
    """train_textual_inversion_sdxl.py, save_progress: rows of the table under the placeholder, one file for each encoder, with {"format": "pt"}."""
    rows = {}
    for (clip, encoder, tokenizer), name in zip(encoders(pipe), TWO, strict=True):
        tokenizer.add_tokens(["<toy>", "<toy>_1"])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        ids = tokenizer.convert_tokens_to_ids(["<toy>", "<toy>_1"])
        rows[clip] = encoder.get_input_embeddings().weight[min(ids) : max(ids) + 1].detach().cpu()
        save_file({"<toy>": rows[clip]}, tmp_path / name, metadata={"format": "pt"})
    (found,) = read_words(tmp_path, WIDTHS)
    assert found.name == "<toy>" and found.layout == "diffusers" and all(torch.equal(found.vectors[clip], rows[clip]) for clip in rows)
    write_word(tmp_path / "<toy>.safetensors", found, "kohya")
    assert all(torch.equal(tensor, rows[clip]) for clip, tensor in load_file(tmp_path / "<toy>.safetensors").items())
