"""What the U-Net reads: short prompts bit for bit as before, weights by A1111's arithmetic, long texts as their chunks."""

from __future__ import annotations

import dataclasses
import json
import random
import time

import pytest
import torch
from safetensors.torch import save_file

from darkroom.errors import PromptError
from darkroom.prompt import Span, read
from darkroom.sdxl.conditioning import condition, describe, level, read_embedding
from darkroom.sdxl.reader import readers_of
from darkroom.sdxl.text import zeroed
from darkroom.sdxl.weighting import chunks
from support.texts import conditioned, encoded, only, same

C1, C2 = 64, 96


@pytest.fixture
def refiner(model):
    """Encoder 2 alone, as a refiner has it."""
    return dataclasses.replace(model, tokenizer=None, text_encoder=None)


# --- plain


@pytest.mark.parametrize("text", ["a photo of a cat", "", "a " * 75, "naïve café 猫 :)", "a cat! a dog!", "(a"])
@pytest.mark.parametrize("clip_skip", [0, 1])
def test_a_short_plain_prompt_is_encode_bit_for_bit(model, text, clip_skip):
    assert same(conditioned(model, text, clip_skip=clip_skip), encoded(model, text, clip_skip))


def test_the_refiner_has_encoder_2_alone(refiner):
    text = conditioned(refiner, "a (cat:1.2)")
    assert text.states.shape == (1, 77, C2)
    assert same(conditioned(refiner, "a cat"), encoded(refiner, "a cat"))
    assert conditioned(refiner, "a (cat)++ b").states.shape == (1, 77, C2)


def test_clip_skip_takes_the_layer_that_diffusers_takes(model):
    ids = [t("a cat", padding="max_length", return_tensors="pt").input_ids for t in (model.tokenizer, model.tokenizer_2)]
    with torch.no_grad():
        hidden = [e(i, output_hidden_states=True).hidden_states for e, i in zip((model.text_encoder, model.text_encoder_2), ids, strict=True)]
    for skip in range(3):
        assert torch.equal(encoded(model, "a cat", skip).states, torch.cat([states[-(skip + 2)] for states in hidden], dim=-1))
    for skip in (-1, 3, 99):
        with pytest.raises(PromptError, match="3 layers"):
            condition(model, read("a cat"), 10, clip_skip=skip)


def test_a_long_prompt_is_its_chunks_one_behind_the_other(model):
    words = [f"{'cat' if number % 3 else 'dog'}" for number in range(160)]
    pieces = [" ".join(words[start : start + 75]) for start in (0, 75, 150)]
    wanted = [encoded(model, piece) for piece in pieces]
    got = conditioned(model, " ".join(words))
    assert torch.equal(got.states, torch.cat([text.states for text in wanted], dim=1))
    assert torch.equal(got.pooled, wanted[0].pooled)


def test_a_full_chunk_goes_back_to_a_comma_that_is_near(model):
    """A1111's backtrack: up to 20 tokens behind the last comma move on together."""
    tokens = readers_of(model)[0].tokens

    def sizes(text):
        return [len(chunk.ids) for chunk in chunks(tokens, ((Span(text, 1.0),),))]

    near = "a " * 60 + ", " + "b " * 30  # the comma is the 61st
    far = "a " * 50 + ", " + "b " * 40
    assert sizes(near) == [61, 30]
    assert sizes(far) == [75, 16]
    assert sizes("a " * 55 + ", " + "b " * 30) == [56, 30]
    assert sizes("a " * 54 + ", " + "b " * 30) == [75, 10]
    assert sizes("a " * 74 + ", b") == [75, 1]
    assert sizes("a " * 75 + ", b") == [75, 2]


def test_break_begins_a_new_chunk(model):
    got = conditioned(model, "a cat BREAK a dog on a mat")
    assert torch.equal(got.states, torch.cat([encoded(model, "a cat").states, encoded(model, "a dog on a mat").states], dim=1))
    assert torch.equal(got.pooled, encoded(model, "a cat").pooled)
    assert conditioned(model, "BREAK a").states.shape[1] == conditioned(model, "a BREAK BREAK").states.shape[1] == 154


# --- A1111's weights


def test_weights_are_a1111s_arithmetic(model):
    """Recomputed here from the encoders: every token's states times its weight, scaled back to the mean of the chunk, for each encoder."""
    got = conditioned(model, "a (red:1.3) cat, [on] a ((mat))")
    multipliers = torch.ones(77)
    for place, weight in {2: 1.3, 5: 1 / 1.1, 7: 1.1 * 1.1}.items():  # bos a red cat , on a mat
        multipliers[place] = weight
    columns = []
    with torch.no_grad():
        for tokenizer, encoder in ((model.tokenizer, model.text_encoder), (model.tokenizer_2, model.text_encoder_2)):
            ids = tokenizer("a red cat, on a mat", padding="max_length", return_tensors="pt").input_ids
            states = encoder(ids, output_hidden_states=True).hidden_states[-2]
            weighted = states * multipliers.reshape(1, 77, 1)
            columns.append(weighted * (states.mean() / weighted.mean()))
    torch.testing.assert_close(got.states, torch.cat(columns, dim=-1), rtol=0, atol=1e-6)
    assert torch.equal(got.pooled, encoded(model, "a red cat, on a mat").pooled), "the pooled text is not weighted"
    assert not torch.allclose(got.states, encoded(model, "a red cat, on a mat").states, atol=1e-3)


def test_marks_without_effect_leave_every_bit(model):
    assert same(conditioned(model, r"a (cat:1.0) \(big\)"), encoded(model, "a cat (big)"))


def test_a_weight_moves_only_its_own_chunk(model):
    got = conditioned(model, "a cat BREAK a (dog:1.5)")
    assert torch.equal(got.states[:, :77], encoded(model, "a cat").states)
    assert not torch.equal(got.states[:, 77:], encoded(model, "a dog").states)


# --- stages and several texts


def test_stages_follow_the_timeline(model):
    found = condition(model, read("a [cat:dog:0.5] AND a mat :0.4"), 10)
    assert [first for first, _ in found.stages] == [0, 5]
    for step, word in ((0, "cat"), (4, "cat"), (5, "dog"), (9, "dog")):
        (one, first), (two, second) = found.at(step)
        assert (one, two) == (1.0, 0.4)
        assert same(first, encoded(model, f"a {word}"))
        assert same(second, encoded(model, "a mat"))
    assert found.stages[0][1][1][1] is found.stages[1][1][1][1], "a text that stays is encoded once"


def test_texts_of_one_prompt_are_equally_long(model):
    found = condition(model, read("a cat AND " + "a dog " * 60), 4)
    ((_, short), (_, long)) = found.at(0)
    assert short.states.shape == long.states.shape == (1, 154, C1 + C2)
    assert torch.equal(short.states[:, 77:], encoded(model, "").states)


def test_level_fills_up_with_the_empty_text(model):
    short, long = condition(model, read("ugly"), 4), condition(model, read("a " * 200), 4)
    one, two = level(model, [short, long])
    assert two is long or same(only(two), only(long))
    assert one.length == two.length == 231
    assert torch.equal(only(one).states, torch.cat([encoded(model, "ugly").states, *[encoded(model, "").states] * 2], dim=1))
    assert level(model, [short, short]) == [short, short]
    zeros = one.map(zeroed)
    assert only(zeros).states.shape == only(two).states.shape
    assert only(zeros).states.abs().sum() == 0


# --- compel's failures, and what is told of a prompt

PIECES = ["cat", " a ", "dog", "(", ")", "(", ")", "++", "-", "+", "--", ".", ", ", '"', " ", "1.3", ".and(", ".blend(", "0.5", "\\(", ":", ".swap(", "!"]


def test_any_compel_prompt_is_weighted_or_told(model):
    draw = random.Random(5)
    well = 0
    for _ in range(80):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 14)))
        try:
            found = conditioned(model, text, "compel")
        except PromptError:
            continue
        well += 1
        assert torch.isfinite(found.states).all()
    assert well > 40


@pytest.mark.parametrize(("text", "told"), [
    ("cat.swap(dog)", "swap"), ('("a", "b").blend(1, -1)', "finite"), ('("a", "b").and() in a wood', "cannot read"), ('("a","b").blend(1)', "mismatched"),
    ("()--", "no words"), ("a withLora(x, 0.5)", "<lora:"), ("(" * 21 + "a" + ")" * 21 + "+", "20 brackets"),
    ("cat" + "+" * 200, "limit"), ("(a)99999", "limit"),
    ("cat" + "+" * 9000, "PromptError|cannot"),
])  # fmt: skip
def test_what_compel_cannot_do_is_told(model, text, told):
    start = time.process_time()
    with pytest.raises(PromptError, match=told):
        condition(model, read(text, "compel"), 4)
    assert time.process_time() - start < 3
    with pytest.raises(PromptError, match="clip_skip"):
        condition(model, read("a (cat)++"), 4, clip_skip=1)


def test_describe_says_what_is_read(model, tmp_path):
    save_file({"clip_l": torch.ones(3, C1), "clip_g": torch.ones(3, C2)}, tmp_path / "grumpy-style.safetensors")
    embedding_file = tmp_path / "grumpy-style.safetensors"
    prompt = read("a (thorindar:1.3) grumpy-style [cat:dog:0.4], <lora:thor:0.5>" + " b" * 80)
    facts = describe(model, prompt, 10, [read_embedding(embedding_file, model)])
    assert json.loads(json.dumps(facts)) == facts
    assert [stage["first_step"] for stage in facts["stages"]] == [0, 4]
    (text,) = facts["stages"][0]["texts"]
    assert text["parts"][0]["spans"][1] == {"text": "thorindar", "weight": 1.3, "count": 3, "tokens": ["thor", "ind", "ar</w>"]}
    assert text["parts"][0]["spans"][2]["tokens"][:3] == ["grumpy-style[1/3]", "grumpy-style[2/3]", "grumpy-style[3/3]</w>"]
    assert (text["tokens"], text["chunks"], text["length"]) == (1 + 3 + 3 + 1 + 1 + 80, [75, 14], 154)
    assert text["beyond"].split() == ["b"] * 14
    assert facts["adapters"] == [{"name": "thor", "text_weight": 0.5, "unet_weight": 0.5}]
    assert facts["embeddings"] == [{"name": "grumpy-style", "used": True}]
    assert text["length"] == condition(model, prompt, 10).length


@pytest.mark.parametrize("text", ['("a red cat", "a dog++ (blue)1.3").blend(0.3, 0.7)', '("a cat", "a dog").and(1, 0.5)', "a (ball)---- " + "b. " * 60])
def test_describe_counts_compels_own_chunks(model, text):
    facts = describe(model, read(text), 10)
    (found,) = facts["stages"][0]["texts"]
    assert found["length"] == condition(model, read(text), 10).length


def test_describe_shows_what_compel_understood(model):
    (text,) = describe(model, read('("a red cat", "a dog++ (blue)1.3").blend(0.3, 0.7)'), 10)["stages"][0]["texts"]
    assert [part["blend"] for part in text["parts"]] == [0.3, 0.7]
    assert [(span["text"], round(span["weight"], 4)) for part in text["parts"] for span in part["spans"]] == [
        ("a red cat", 1.0), ("a", 1.0), ("dog", 1.21), ("blue", 1.3),
    ]  # fmt: skip
