"""Text is encoded as diffusers' pipeline encodes it, bit for bit."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from darkroom import pocket
from darkroom.sdxl.text import count_tokens, encode, zeroed


@pytest.fixture(scope="module")
def pipe():
    return StableDiffusionXLPipeline.from_pretrained(pocket.folder())


@pytest.mark.parametrize("prompt", ["a photo of a cat", "", "a " * 120, "naïve café 猫 :)"])
def test_equals_the_pipeline(model, pipe, prompt):
    with torch.no_grad():
        states, _, pooled, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False)
        ours = encode(model, [prompt])
    assert torch.equal(ours.states, states)
    assert torch.equal(ours.pooled, pooled)


def test_zeroed_is_not_the_empty_text(model):
    with torch.no_grad():
        empty = encode(model, [""])
    assert empty.states.abs().sum() > 0
    assert zeroed(empty).states.abs().sum() == 0


def test_tokens_are_clips(model):
    assert model.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert model.tokenizer_2("a", padding="max_length").input_ids[3:] == [0] * 74
    assert count_tokens(model, "a photo of a cat") == 5
    assert count_tokens(model, "cat " * 200) == 200
