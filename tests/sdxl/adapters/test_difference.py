"""Two adapters are compared by what they do, whatever they are called, written as, and made of."""

import math
from dataclasses import replace

import pytest
import torch

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.changes import LowRank
from darkroom.sdxl.adapters.combine import resize
from darkroom.sdxl.adapters.difference import compare, verdict
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.matrices import Cut
from darkroom.sdxl.adapters.share import words
from support.adapters import ALONE, ON_BASE, change, chosen, made

F32 = torch.float32


def other(adapter, changes):
    return Adapter(adapter.path, "other", changes, dict(adapter.metadata), catalogue=adapter.catalogue)


@pytest.mark.parametrize("method", [*ALONE, *ON_BASE])
def test_figures_are_those_of_the_deltas(method, base, catalogue):
    """Against the changes' own formulas, flattened into one long vector for each place."""
    a, b = made(catalogue, method, 1), made(catalogue, "LoRA", 2)
    found = compare(a, b, base.weight)
    vectors = {}
    for key in a.changes.keys() | b.changes.keys():
        for block in ("all", words(catalogue, key)[0]):
            sides = vectors.setdefault(block, ([], []))
            for adapter, held in zip((a, b), sides, strict=True):
                weight = base.weight(key).float()
                one = adapter.changes.get(key)
                bias = torch.zeros(weight.shape[0]) if one is None or one.bias is None else one.bias
                held.append(torch.cat([(torch.zeros_like(weight) if one is None else one.delta(weight)).flatten(), bias]).double())
    for block, (one, two) in vectors.items():
        fact = found.overall if block == "all" else found.blocks[block]
        one, two = torch.cat(one), torch.cat(two)
        assert fact["a"] == pytest.approx(float(one.norm()), rel=1e-5) and fact["b"] == pytest.approx(float(two.norm()), rel=1e-5)
        assert fact["difference"] == pytest.approx(float((one - two).norm() / max(one.norm(), two.norm())), rel=1e-5)
        assert fact["cosine"] == pytest.approx(float(one @ two / (one.norm() * two.norm())), abs=1e-5)
        assert fact["strength"] == pytest.approx(float(one @ two / (one @ one)), abs=1e-5)


def test_a_layout_makes_no_difference(catalogue, tmp_path):
    adapter = made(catalogue, "LoRA")
    for layout in ("kohya", "diffusers", "peft"):
        write(tmp_path / f"{layout}.safetensors", adapter, layout, {})
    one = read(tmp_path / "kohya.safetensors", catalogue)
    for layout in ("diffusers", "peft"):
        found = compare(one, read(tmp_path / f"{layout}.safetensors", catalogue))
        assert found.overall["difference"] == 0 and found.sentence == "The same adapter, exactly."


def test_rank_and_alpha_make_no_difference(catalogue):
    adapter = made(catalogue, "LoRA")
    wide = {key: LowRank(torch.cat([c.down, c.down]), torch.cat([c.up, c.up], 1), 2 * c.alpha * 0.25) for key, c in adapter.changes.items()}
    found = compare(adapter, other(adapter, wide))
    assert found.overall["cosine"] == pytest.approx(1) and found.overall["strength"] == pytest.approx(0.5)
    assert found.sentence.startswith("The same direction at another strength: B is 0.5 times A")


def test_rounding_is_told_from_training(catalogue):
    adapter = made(catalogue, "LoRA", rank=4)
    half = {key: replace(c, up=c.up.half(), down=c.down.half()) for key, c in adapter.changes.items()}
    found = compare(adapter, other(adapter, half))
    assert 1e-5 < found.overall["difference"] < 1e-3 and found.sentence.startswith("The same adapter to ")
    assert "Relatives" in compare(adapter, other(adapter, resize(adapter, Cut(3), F32).changes)).sentence
    assert "Another adapter" in compare(adapter, made(catalogue, "LoRA", 99)).sentence
    opposite = {key: replace(c, alpha=-c.alpha) for key, c in adapter.changes.items()}
    assert "opposite" in compare(adapter, other(adapter, opposite)).sentence


def test_a_difference_far_below_float32_is_seen(catalogue):
    """Norms by the law of cosines would drown it."""
    adapter = made(catalogue, "LoRA")
    key = next(iter(adapter.changes))
    nudged = dict(adapter.changes)
    nudged[key] = replace(nudged[key], up=nudged[key].up.double() * (1 + 1e-11))
    found = compare(adapter, other(adapter, nudged))
    assert 0 < found.overall["difference"] < 1e-11 and found.sentence.startswith("The same adapter to")


def test_modules_facts_and_words_that_differ_are_listed(catalogue):
    keys = [place.key for place in chosen(catalogue)]
    a, b = made(catalogue, "LoRA", keys=keys[:6]), made(catalogue, "LoRA", keys=keys[:6])
    extra = change("LoRA", catalogue.places[keys[6]])
    b.changes[keys[6]] = extra
    del b.changes[keys[0]]
    a.metadata, b.metadata = {"ss_steps": "100", "ss_seed": "1", "ss_network_dim": "3"}, {"ss_steps": "200", "ss_seed": "1", "modelspec.author": "you"}
    b.embeddings = {"tok": {"clip_l": torch.zeros(1, 4)}}
    found = compare(a, b)
    assert found.only_a == [".".join(keys[0])] and found.only_b == [".".join(keys[6])] and found.both == 5
    assert found.training == {"ss_steps": ["100", "200"], "modelspec.author": [None, "you"]} and found.words == {"tok": "B alone"}
    lost = float(a.changes[keys[0]].delta(torch.zeros(catalogue.places[keys[0]].shape)).norm())
    gained = float(extra.delta(torch.zeros(catalogue.places[keys[6]].shape)).norm())
    size = max(found.overall["a"], found.overall["b"])
    assert found.overall["difference"] == pytest.approx(math.hypot(lost, gained) / size, rel=1e-5)


def test_methods_that_depend_on_the_base_want_it(base, catalogue):
    a, b = made(catalogue, "LoRA"), made(catalogue, "DoRA")
    with pytest.raises(AdapterError, match=r"made\.safetensors: .* is DoRA, .*Name the base with --base"):
        compare(a, b)
    assert compare(b, made(catalogue, "DoRA"), base.weight).sentence == "The same adapter, exactly."


@pytest.mark.parametrize(
    ("difference", "cosine", "same", "words"),
    [
        (0.0, 1.0, False, "not the same modules"), (1.0, None, False, "changes nothing"), (0.3, 0.2, True, "something in common"),
        (1.3, -0.4, True, "pulls against"), (1.0, 0.01, True, "right angles"),
    ],
)  # fmt: skip
def test_verdicts(difference, cosine, same, words):
    assert words in verdict({"difference": difference, "cosine": cosine, "strength": cosine}, same)
