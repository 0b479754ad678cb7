"""New words: read from every layout of the field, in every language, and the model left as it was."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from darkroom.errors import AdapterError
from darkroom.prompt import Span, read
from darkroom.sdxl.conditioning import condition, read_embedding, read_embeddings
from darkroom.sdxl.reader import readers_of
from darkroom.sdxl.weighting import chunks
from support.texts import conditioned, encoded, same

C1, C2 = 64, 96


@pytest.fixture
def refiner(model):
    """Encoder 2 alone, as a refiner has it."""
    return dataclasses.replace(model, tokenizer=None, text_encoder=None)


@pytest.fixture
def embedding_file(tmp_path):
    generator = torch.Generator().manual_seed(3)
    tensors = {"clip_l": torch.randn(3, C1, generator=generator), "clip_g": torch.randn(3, C2, generator=generator)}
    save_file(tensors, tmp_path / "grumpy-style.safetensors")
    return tmp_path / "grumpy-style.safetensors"


def test_new_words_take_their_place_and_leave_no_trace(model, embedding_file):
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in model.parts.items() if name != "unet"}
    words = (len(model.tokenizer), len(model.tokenizer_2))
    embedding = read_embedding(embedding_file, model)
    assert (embedding.name, embedding.count) == ("grumpy-style", 3)
    plain = conditioned(model, "a grumpy-style cat", embeddings=[embedding])
    assert not torch.equal(plain.states, encoded(model, "a grumpy-style cat").states)
    assert same(conditioned(model, "a Grumpy-style cat", embeddings=[embedding]), encoded(model, "a Grumpy-style cat")), "case counts"
    assert same(conditioned(model, "a grumpy-styled cat", embeddings=[embedding]), encoded(model, "a grumpy-styled cat")), "whole words only"
    for name, part in before.items():
        assert all(torch.equal(value, model.parts[name].state_dict()[key]) for key, value in part.items())
        assert not model.parts[name].get_input_embeddings()._forward_hooks
    assert words == (len(model.tokenizer), len(model.tokenizer_2))
    assert same(conditioned(model, "a grumpy-style cat"), encoded(model, "a grumpy-style cat"))


def test_the_table_could_hold_the_vectors_as_well(model, embedding_file):
    """Three ids of the vocabulary, given the vectors in a copy of both encoders, read the same; also with SDXL's own eos_token_id of 2."""
    embedding = read_embedding(embedding_file, model)
    text = "zebra yacht pizza"
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) == 3
    for eos in (49407, 2):
        other = dataclasses.replace(model, text_encoder=copy.deepcopy(model.text_encoder), text_encoder_2=copy.deepcopy(model.text_encoder_2))
        for part in ("text_encoder", "text_encoder_2"):
            encoder = other.parts[part]
            holder = [module for module in encoder.modules() if hasattr(module, "eos_token_id")]
            assert holder, "transformers keeps the id elsewhere now"
            for module in holder:
                module.eos_token_id = eos
            with torch.no_grad():
                encoder.get_input_embeddings().weight[torch.tensor(ids)] = embedding.vectors[part]
        assert same(conditioned(other, "a grumpy-style cat", embeddings=[embedding]), encoded(other, f"a {text} cat")), eos


def test_new_words_are_read_in_every_language_and_never_split(model, embedding_file):
    embeddings = [read_embedding(embedding_file, model)]
    plain = conditioned(model, "a grumpy-style cat", embeddings=embeddings)
    assert same(conditioned(model, "a (grumpy-style:1.0) cat", "a1111", embeddings=embeddings), plain)
    compel = conditioned(model, "a grumpy-style cat", "compel", embeddings=embeddings)
    torch.testing.assert_close(compel.states, plain.states)
    assert torch.equal(compel.pooled, plain.pooled)
    heavy = conditioned(model, "a (grumpy-style)++ cat", embeddings=embeddings)
    changed = (heavy.states - plain.states).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [2, 3, 4]
    long = chunks(readers_of(model, embeddings)[1].tokens, ((Span("a " * 73 + "grumpy-style " * 2, 1.2),),))
    assert [len(chunk.ids) for chunk in long] == [73, 6]
    assert set(long[1].weights) == {1.2}


def test_layouts_of_the_field_are_read(model, refiner, embedding_file, tmp_path):
    one = read_embedding(embedding_file, model)
    pair = tmp_path / "pair"
    pair.mkdir()
    for file, part in (("learned_embeds", "text_encoder"), ("learned_embeds_2", "text_encoder_2")):
        save_file({"<toy>": one.vectors[part][:1].clone()}, pair / f"{file}.safetensors")
        save_file({"<toy>": one.vectors[part][1:2].clone()}, pair / f"{file}-steps-500.safetensors")
    for path in (pair, pair / "learned_embeds.safetensors", pair / "learned_embeds_2.safetensors"):
        found = read_embedding(path, model)
        assert found.name == "<toy>"
        assert all(torch.equal(found.vectors[part], one.vectors[part][:1]) for part in one.vectors)
    earlier = read_embedding(pair / "learned_embeds-steps-500.safetensors", model)
    assert torch.equal(earlier.vectors["text_encoder_2"], one.vectors["text_encoder_2"][1:2])
    halves = {f"bundle_emb.{name}.{clip}": one.vectors[part].clone() for name in ("b", "<a>") for clip, part in
              (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2"))}  # fmt: skip
    save_file({**halves, "lora_unet_x.alpha": torch.ones(1)}, tmp_path / "lora.safetensors")
    assert [found.name for found in read_embeddings(tmp_path / "lora.safetensors", model)] == ["<a>", "b"]
    assert list(read_embedding(embedding_file, refiner).vectors) == ["text_encoder_2"]
    assert conditioned(refiner, "a grumpy-style cat", embeddings=[read_embedding(embedding_file, refiner)]).states.shape == (1, 77, C2)


def bad(tmp_path, name="x.safetensors", **tensors):
    save_file(tensors, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(("tensors", "told"), [
    ({"clip_l": torch.zeros(1, C1)}, "both halves"), ({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)}, "another base"),
    ({"clip_l": torch.zeros(1, C1), "clip_g": torch.zeros(2, C2)}, "as many"), ({"clip_l": torch.zeros(76, C1), "clip_g": torch.zeros(76, C2)}, "75"),
    ({"clip_l": torch.full((1, C1), float("nan")), "clip_g": torch.zeros(1, C2)}, "NaN"), ({"emb_params": torch.zeros(1, 768)}, "for another base"),
    ({"toy": torch.zeros(1, C1)}, "both halves"), ({"a": torch.zeros(1, C1), "b": torch.zeros(1, C2)}, "no embedding"),
    ({"clip_l": torch.zeros(0, C1), "clip_g": torch.zeros(0, C2)}, "another base"), 
    ({"bundle_emb.toy story.clip_l": torch.zeros(1, C1), "bundle_emb.toy story.clip_g": torch.zeros(1, C2)}, "one word"),
    ({"clip_l": torch.zeros(1, C1).long(), "clip_g": torch.zeros(1, C2)}, "floats"), ({"bundle_emb.x.clip_l_out": torch.zeros(1, C1)}, "output"),
])  # fmt: skip
def test_files_that_cannot_be_used_are_told(model, tmp_path, tensors, told):
    with pytest.raises(AdapterError, match=told):
        read_embedding(bad(tmp_path, **tensors), model)


def test_places_that_cannot_be_used_are_told(model, tmp_path, embedding_file):
    (tmp_path / "bad.pt").write_bytes(b"x")
    (tmp_path / "cut.safetensors").write_bytes(embedding_file.read_bytes()[:-50])
    (tmp_path / "empty").mkdir()
    good = {"clip_l": torch.zeros(1, C1), "clip_g": torch.zeros(1, C2)}
    for path, told in (("bad.pt", "pickle"), ("cut.safetensors", "whole"), ("none.safetensors", "no such"), ("empty", "holds no"), ("", "not clear")):
        with pytest.raises(AdapterError, match=told):
            read_embedding(tmp_path / path, model)
    for name in ("a b", "a(b)", "x:1", "BREAK", "--"):
        with pytest.raises(AdapterError, match="one word"):
            read_embedding(bad(tmp_path, f"{name}.safetensors", **good), model)
    with pytest.raises(AdapterError, match="both would be"):
        condition(model, read("a"), 4, embeddings=[read_embedding(embedding_file, model)] * 2)
