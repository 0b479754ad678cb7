"""Ours against the libraries whose languages and files these are: compel's CompelForSDXL, and diffusers' load_textual_inversion."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from darkroom.prompt import read
from darkroom.sdxl.compel import parse, phrases
from darkroom.sdxl.conditioning import condition, level, read_embedding
from darkroom.sdxl.reader import readers_of

compel = pytest.importorskip("compel")


def fresh_pipe():
    from diffusers import StableDiffusionXLPipeline

    from darkroom import pocket

    return StableDiffusionXLPipeline.from_pretrained(pocket.folder())


@pytest.fixture(scope="module")
def pipe():
    return fresh_pipe()


def only(conditioning):
    ((_, ((_, text),)),) = conditioning.stages
    return text


def ours(model, text, language="auto", **rest):
    return only(condition(model, read(text, language), 10, **rest))


@pytest.mark.parametrize("text", [
    "a photo of a cat", "a (cat)++ on a mat--", "a (red)1.5 cat and (a dog)0.4, (both)----", '("a red cat", "a dog++").blend(0.3, 0.7)',
    '("a cat", "a dog in a wood").and()', '("a", "b", "c").blend(1, 2, 3, no_normalize)', "(a (very)+ old cat)1.2, naïve 猫 \\(big\\)", "",
    "a cat++ in the snow. " * 20, "(a cat)++, " * 60, 'a "big cat"- here', "(a " + "cat " * 120 + ")1.3 and (a dog)0.7", "a cat! a (dog!)++",
])  # fmt: skip
def test_states_are_compels(model, pipe, text):
    wanted = compel.CompelForSDXL(pipe)(text)
    got = ours(model, text, "compel")
    assert got.states.shape == wanted.embeds.shape
    assert torch.equal(got.states, wanted.embeds)


def test_pooled_is_that_of_the_words(model, pipe):
    """compel pools the raw text with its marks; ours are those of the bare words, as diffusers pools them."""
    got = ours(model, "a (cat)++ on a mat--")
    _, _, pooled, _ = pipe.encode_prompt("a cat on a mat", do_classifier_free_guidance=False)
    assert torch.equal(got.pooled, pooled)
    assert not torch.equal(compel.CompelForSDXL(pipe)("a (cat)++ on a mat--").pooled_embeds, pooled), "compel has changed: say so in the docstring"
    plain = "a cat on a mat"
    assert torch.equal(ours(model, plain, "compel").pooled, compel.CompelForSDXL(pipe)(plain).pooled_embeds)


def test_weighted_and_is_compels_for_each_encoder(model):
    """CompelForSDXL itself fails on .and() with weights (its second half is a pair by then); one Compel an encoder does not."""
    text = '("a cat", "a dog").and(1, 0.5)'
    kind = compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    pairs = ((model.tokenizer, model.text_encoder), (model.tokenizer_2, model.text_encoder_2))
    wanted = [compel.Compel(tokenizer=t, text_encoder=e, returned_embeddings_type=kind, truncate_long_prompts=False)(text) for t, e in pairs]
    assert torch.equal(ours(model, text).states, torch.cat(wanted, dim=-1))
    assert wanted[0].shape[1] == 154


def test_negatives_are_filled_up_as_compel_does(model, pipe):
    text, negative = "a cat++ in the snow. " * 20, "ugly--"
    wanted = compel.CompelForSDXL(pipe)(text, negative_prompt=negative)
    both = level(model, [condition(model, read(words), 10) for words in (text, negative)])
    assert torch.equal(only(both[0]).states, wanted.embeds)
    assert torch.equal(only(both[1]).states, wanted.negative_embeds)


@pytest.mark.parametrize(
    ("text", "weight"), [("(cat)++++", 1.4641), ("(cat)--", 0.81), ("(cat)1.5", 1.5), ("((cat)+)+", 1.21), ("(cat).attend(++)", 1.21), ("cat-", 0.9)]
)
def test_weights_are_compels(model, text, weight):
    _, parsed = parse(readers_of(model), text)
    ((span,),) = (phrase.spans for phrase in phrases(parsed))
    assert span.text == "cat"
    assert span.weight == pytest.approx(weight)


def test_a_remembering_parser_parses_the_same(model):
    """Our scoped packrat changes compel's speed and nothing else, and is gone afterwards."""
    import pyparsing

    readers, before = readers_of(model), pyparsing.ParserElement._packratEnabled  # matplotlib turns it on for good
    for text in ("a (b (c)+ d)-- e", '("a", "b c++").blend(1, 2)', "((a", "a)++ (b", '"a (b)++ c"1.2 d.', "a, b.c (d, e.)+"):
        assert repr(parse(readers, text)[1]) == repr(compel.PromptParser().parse_conjunction(text))
    assert pyparsing.ParserElement._packratEnabled == before


@pytest.mark.parametrize(("count", "text"), [(1, "a photo of <toy>, on a mat"), (3, "a photo of <toy>, on a mat"), (3, "<toy>"), (3, "<toy> and <toy>!")])
def test_textual_inversion_is_diffusers(model, tmp_path, count, text):
    generator = torch.Generator().manual_seed(count)
    folder = tmp_path / "toy"
    folder.mkdir()
    pipe = fresh_pipe()
    for name, tokenizer, encoder in (("learned_embeds", pipe.tokenizer, pipe.text_encoder), ("learned_embeds_2", pipe.tokenizer_2, pipe.text_encoder_2)):
        vectors = torch.randn(count, encoder.config.hidden_size, generator=generator)
        save_file({"<toy>": vectors}, folder / f"{name}.safetensors")
        pipe.load_textual_inversion({"<toy>": vectors}, text_encoder=encoder, tokenizer=tokenizer)
    with torch.no_grad():
        states, _, pooled, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
    embedding = read_embedding(folder, model)
    assert embedding.count == count
    got = ours(model, text, embeddings=[embedding])
    assert torch.equal(got.states, states)
    assert torch.equal(got.pooled, pooled)
    with_compel = ours(model, text.replace("<toy>", "(<toy>)++", 1), "compel", embeddings=[embedding])
    assert torch.equal(with_compel.pooled, pooled)
    assert not torch.allclose(with_compel.states, states, atol=1e-3)


def test_weighted_inversion_is_compels(model, tmp_path):
    """compel on a pipeline with the vectors in its table, and a word that compel's grammar would take apart without our stand-in."""
    from compel import DiffusersTextualInversionManager

    mine = fresh_pipe()
    generator = torch.Generator().manual_seed(9)
    vectors = {"clip_l": torch.randn(2, 64, generator=generator), "clip_g": torch.randn(2, 96, generator=generator)}
    save_file(vectors, tmp_path / "bad.v2.safetensors")
    save_file(vectors, tmp_path / "toyword.safetensors")
    mine.load_textual_inversion({"toyword": vectors["clip_l"]}, text_encoder=mine.text_encoder, tokenizer=mine.tokenizer)
    mine.load_textual_inversion({"toyword": vectors["clip_g"]}, text_encoder=mine.text_encoder_2, tokenizer=mine.tokenizer_2)
    wanted = compel.CompelForSDXL(mine, textual_inversion_manager=DiffusersTextualInversionManager(mine))("a (toyword)1.3 cat")
    for name in ("toyword", "bad.v2"):
        got = ours(model, f"a ({name})1.3 cat", embeddings=[read_embedding(tmp_path / f"{name}.safetensors", model)])
        torch.testing.assert_close(got.states, wanted.embeds, rtol=0, atol=1e-6)
