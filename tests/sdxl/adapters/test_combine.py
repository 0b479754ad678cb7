"""Several adapters in one add what each adds; the error that is stated is the one that a plain float64 reckoning finds."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darkroom import pocket
from darkroom.errors import AdapterError, RecipeError
from darkroom.sdxl.adapters import heritage
from darkroom.sdxl.adapters.changes import Full, LowRank, Norm
from darkroom.sdxl.adapters.combine import bundled, combine, resize, widest
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.level import uneven
from darkroom.sdxl.adapters.matrices import Cut
from darkroom.sdxl.adapters.share import Share, words
from support.adapters import ALONE, ON_BASE, change, chosen, made, norms

F32, F16 = torch.float32, torch.float16
LOW = tuple(method for method in ALONE if method not in ("full", "LoKr whole"))
QUERY = ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")


def exact(base, shares):
    """{module: sum of weight * delta}, by the changes' own formulas on the base's weights."""
    found = {}
    for share in shares:
        for key, one in share.adapter.changes.items():
            found[key] = found.get(key, 0) + share.at(key) * one.delta(base.weight(key).float()).double()
    return found


def distance(base, changes, wanted):
    """Relative Frobenius over all modules."""
    off = size = 0.0
    for key, delta in wanted.items():
        got = changes[key].delta(base.weight(key).float()).double() if key in changes else torch.zeros_like(delta)
        off += float((got - delta).square().sum())
        size += float(delta.square().sum())
    return math.sqrt(off / size)


@pytest.mark.parametrize("method", LOW)
def test_concatenation_is_exact_and_ranks_add_up(method, base, catalogue):
    shares = [Share(made(catalogue, method, 1, rank=2), 0.7), Share(made(catalogue, "LoRA", 2, rank=3), -1.3)]
    found = combine(shares, "concat", Cut(), F32)
    assert distance(base, found.changes, exact(base, shares)) < 1e-6
    assert found.ruler.error < 1e-6
    assert not uneven(found.changes) and all(isinstance(one, LowRank) for one in found.changes.values())
    if method == "LoRA":
        assert {one.rank for one in found.changes.values()} == {5}


def test_concatenation_keeps_the_files_own_numbers_in_down(catalogue):
    one, two = made(catalogue, "LoRA", 1, rank=2), made(catalogue, "LoRA", 2, rank=3)
    for key, there in combine([Share(one, -0.3), Share(two, 2.0)], "concat", Cut(), F32).changes.items():
        assert torch.equal(there.down, torch.cat([one.changes[key].down, two.changes[key].down]))


@pytest.mark.parametrize("method", [*ALONE, *ON_BASE])
def test_a_sum_is_exact_for_every_method(method, base, catalogue):
    shares = [Share(made(catalogue, method, 1), 0.7), Share(made(catalogue, "LoRA", 2), -1.3), Share(norms(catalogue), 0.5)]
    found = combine(shares, "sum", Cut(), F32, base.weight)
    wanted = exact(base, shares)
    assert distance(base, found.changes, wanted) < 1e-6 and found.ruler.error < 1e-6
    for key, one in found.changes.items():
        bias = sum((share.at(key) * b.float() for share in shares if (c := share.adapter.changes.get(key)) and (b := c.bias) is not None), torch.zeros(()))
        assert (one.bias is None) == (not bias.any()) and (one.bias is None or torch.allclose(one.bias, bias, atol=1e-6))
        assert isinstance(one, Norm if catalogue.places[key].kind == "norm" else Full)


@pytest.mark.parametrize("method", [*ALONE, *ON_BASE])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_svd_states_its_error(method, dtype, base, catalogue):
    """Over all and by block, in the tensors as they are written; and it is the least that this rank can have (numpy's singular values)."""
    shares = [Share(made(catalogue, method, 1), 0.7), Share(made(catalogue, "LoRA", 2), -1.3)]
    found = combine(shares, "svd", Cut(4), dtype, base.weight)
    wanted = exact(base, shares)
    stated, blocks = found.ruler.error, found.ruler.blocks()
    assert stated == pytest.approx(distance(base, found.changes, wanted), rel=1e-3, abs=1e-6)
    for block, fact in blocks.items():
        here = {key: delta for key, delta in wanted.items() if words(catalogue, key)[0] == block}
        assert fact["error"] == pytest.approx(distance(base, found.changes, here), rel=1e-3, abs=1e-6) and fact["modules"] == len(here)
        assert fact["norm"] == pytest.approx(math.sqrt(sum(float(delta.square().sum()) for delta in here.values())), rel=1e-5)
    tails = {key: torch.linalg.svdvals(delta.flatten(1))[4:].square().sum() for key, delta in wanted.items()}
    least = math.sqrt(float(sum(tails.values())) / sum(float(delta.square().sum()) for delta in wanted.values()))
    assert least * (1 - 1e-6) - 1e-6 <= stated < least * 1.01 + (1e-6 if dtype == F32 else 1e-3)
    assert not uneven(found.changes)


def test_svd_of_enough_ranks_is_exact(base, catalogue):
    shares = [Share(made(catalogue, "LoRA", 1, rank=2), 0.7), Share(made(catalogue, "LoHa", 2, rank=2), -1.3)]
    assert combine(shares, "svd", Cut(6), F32).ruler.error < 1e-6


def test_places_have_their_factors_in_the_sum(base, catalogue):
    blocks = {"unet": 0.5, "middle_block": 0.0, "text_encoder": -1.0}
    shares = [Share(made(catalogue, "LoRA", 1), 0.7, 0.3, blocks), Share(made(catalogue, "LoRA", 2), 1.0)]
    found = combine(shares, "concat", Cut(), F32)
    assert distance(base, found.changes, exact(base, shares)) < 1e-6
    assert found.changes[QUERY if QUERY in found.changes else next(k for k in found.changes if words(catalogue, k)[0] == "middle_block")].rank == 3


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_mixture_that_is_written_is_read_again_and_adds_the_sum(data, base, catalogue, tmp_path):
    places = data.draw(st.lists(st.sampled_from(chosen(catalogue)), min_size=1, max_size=4, unique_by=lambda place: place.key))
    shares = []
    for number in range(data.draw(st.integers(1, 3))):
        held = data.draw(st.lists(st.sampled_from(places), min_size=1, unique_by=lambda place: place.key))
        changes = {p.key: change(data.draw(st.sampled_from(LOW)), p, data.draw(st.integers(0, 9)), data.draw(st.integers(1, 2))) for p in held}
        weight = data.draw(st.floats(-2, 2).filter(lambda w: abs(w) > 0.01))
        shares.append(Share(Adapter(tmp_path / f"{number}.safetensors", str(number), changes, catalogue=catalogue), weight))
    wanted = exact(base, shares)
    if sum(float(delta.square().sum()) for delta in wanted.values()) < 1e-12:
        return
    for how in ("concat", "sum"):
        found = combine(shares, how, Cut(), F32)
        write(tmp_path / "x.safetensors", Adapter(tmp_path / "x", "", found.changes, catalogue=catalogue), "kohya")
        assert distance(base, read(tmp_path / "x.safetensors", catalogue).changes, wanted) < 1e-5
        assert found.ruler.error < 1e-5


# ---- resize -------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LOW)
def test_a_resized_adapter_is_the_nearest(method, base, catalogue):
    adapter = made(catalogue, method, 1, rank=3)
    found = resize(adapter, Cut(2), F32)
    wanted = exact(base, [Share(adapter)])
    assert {one.rank for one in found.changes.values()} == {2} and {one.alpha for one in found.changes.values()} == {2.0}
    tails = sum(float(torch.linalg.svdvals(delta.flatten(1))[2:].square().sum()) for delta in wanted.values())
    least = math.sqrt(tails / sum(float(delta.square().sum()) for delta in wanted.values()))
    assert found.ruler.error == pytest.approx(least, rel=1e-4) == pytest.approx(distance(base, found.changes, wanted), rel=1e-4)


def test_energy_chooses_each_modules_rank_and_bounds_its_error(base, catalogue):
    adapter = made(catalogue, "LoRA", 1, rank=6)
    found = resize(adapter, Cut(energy=0.9), F32)
    ranks = {one.rank for one in found.changes.values()}
    assert min(ranks) < 6 and not uneven(found.changes)
    for key, delta in exact(base, [Share(adapter)]).items():
        assert distance(base, found.changes, {key: delta}) <= math.sqrt(0.1) + 1e-6
    assert max(one.rank for one in resize(adapter, Cut(2, energy=0.9), F32).changes.values()) == 2


def test_norms_stay_and_biases_are_said_to_be_lost(base, catalogue):
    changes = {**norms(catalogue).changes, **made(catalogue, "full").changes}
    found = resize(Adapter(pocket.folder(), "", changes, catalogue=catalogue), Cut(4), F32)
    assert found.lost["biases"] == sum(one.bias is not None for one in made(catalogue, "full").changes.values()) > 0
    key = next(iter(norms(catalogue).changes))
    assert torch.allclose(found.changes[key].w_norm, changes[key].w_norm)


def test_what_changes_nothing_is_left_out_and_counted(catalogue):
    adapter = made(catalogue, "LoRA", 1)
    key = next(iter(adapter.changes))
    adapter.changes[key] = LowRank(adapter.changes[key].down, torch.zeros_like(adapter.changes[key].up), 1.0)
    found = resize(adapter, Cut(2), F32)
    assert found.lost == {"modules that change nothing": 1} and key not in found.changes
    one = made(catalogue, "LoRA", 1)
    with pytest.raises(AdapterError, match="nothing is left"):
        combine([Share(one, 1.0), Share(Adapter(pocket.folder(), "other", one.changes, catalogue=catalogue), -1.0)], "sum", Cut(), F32)


# ---- what is refused, and what the header says --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(base, catalogue):
    lora, dora, full = (Share(made(catalogue, method, seed)) for seed, method in enumerate(("LoRA", "DoRA", "full")))
    for shares, how, by, kind, word in (
        ([lora, dora], "concat", Cut(), AdapterError, "is DoRA, .* Name the base with --base, and --how svd or sum"),
        ([lora, dora], "svd", Cut(4), AdapterError, "is DoRA, .* Name the base with --base"),
        ([lora, full], "concat", Cut(), AdapterError, "is full, which has no low rank"),
        ([lora, Share(made(catalogue, "LoKr whole", 5))], "concat", Cut(), AdapterError, "is LoKr, which has no low rank"),
        ([lora], "svd", Cut(), RecipeError, "must be at least 1"), ([lora], "svd", Cut(99), RecipeError, "no more than 3 ranks"),
        ([lora, lora], "concat", Cut(), RecipeError, "same file"), ([], "sum", Cut(), RecipeError, "no adapter was given"),
        ([Share(lora.adapter, 1e38)], "concat", Cut(), AdapterError, "too large for float16"),
    ):  # fmt: skip
        with pytest.raises(kind, match=word):
            combine(shares, how, by, F16)
    with pytest.raises(AdapterError, match='"concat" takes'):
        combine([lora, dora], "concat", Cut(), F32)
    assert combine([lora, dora], "svd", Cut(4), F32, base.weight).ruler.error < 1


def test_bundled_words_come_along_and_two_alike_are_refused(catalogue):
    one, two = made(catalogue, "LoRA", 1), made(catalogue, "LoRA", 2)
    one.embeddings, two.embeddings = {"tok": {"clip_l": torch.zeros(1, 64)}}, {"other": {"clip_l": torch.zeros(1, 64)}}
    assert set(bundled([Share(one), Share(two)])) == {"tok", "other"}
    two.embeddings = one.embeddings
    with pytest.raises(AdapterError, match="'tok', and so does another"):
        bundled([Share(one), Share(two)])


def test_the_widest_dtype(catalogue):
    def of(dtype):
        one = change("LoRA", catalogue.places[chosen(catalogue)[0].key])
        return Adapter(pocket.folder(), "", {QUERY: LowRank(one.down.to(dtype), one.up.to(dtype), 1.0)}, catalogue=catalogue)

    assert widest([of(F16), of(F16)]) == F16 and widest([of(F16), of(torch.bfloat16)]) == F32 == widest([of(F32)])
    assert widest([of(torch.float8_e4m3fn)]) == F32


def test_the_header_says_what_it_was_made_of_and_nothing_stale(catalogue, tmp_path):
    shared = {"ss_sd_model_name": "pocket", "modelspec.license": "mit", "modelspec.resolution": "64x64", "sshs_model_hash": "old", "ss_network_dim": "3"}
    one, two = made(catalogue, "LoRA", 1, rank=2, name="one"), made(catalogue, "LoRA", 2, name="two")
    one.metadata = shared | {"ss_steps": "100", "modelspec.trigger_phrase": "tok, cat", "modelspec.author": "me"}
    two.metadata = shared | {"ss_steps": "200", "modelspec.trigger_phrase": "zwx, cat", "modelspec.author": "you"}
    shares = [Share(one, 0.7), Share(two, -1.0, None, {"middle_block": 0.5})]
    found = combine(shares, "concat", Cut(), F32)
    adapter = Adapter(tmp_path / "both.safetensors", "", found.changes, catalogue=catalogue)
    write(adapter.path, adapter, "kohya", heritage.merged(adapter, shares, "both", {"how": "concat", "error": found.ruler.error}))
    said = read(adapter.path, catalogue).metadata
    assert said["modelspec.merged_from"] == "one, two" and said["modelspec.trigger_phrase"] == "tok, cat, zwx"
    assert said["modelspec.license"] == "mit" and "modelspec.author" not in said and "ss_steps" not in said
    assert said["ss_network_dim"] == "5" == said["ss_network_alpha"].removesuffix(".0") and said["ss_sd_model_name"] == "pocket"
    assert said["sshs_model_hash"] != "old" and said["modelspec.resolution"] == "64x64"
    told = json.loads(said["darkroom.merge"])
    assert told["adapters"] == [
        {"file": "one.safetensors", "sha256": "one-1", "weight": 0.7},
        {"file": "two.safetensors", "sha256": "two-2", "weight": -1.0, "blocks": {"middle_block": 0.5}},
    ]


def test_a_resized_header_keeps_the_trainings_facts(catalogue):
    adapter = made(catalogue, "LoRA", 1)
    adapter.metadata = {"ss_steps": "100", "ss_network_dim": "3", "ss_network_alpha": "2.0", "ss_network_args": "{}", "modelspec.hash_sha256": "0x0"}
    found = Adapter(adapter.path, "", resize(adapter, Cut(2), F32).changes, catalogue=catalogue)
    said = heritage.resized(found, adapter, {"error": 0.5})
    assert said["ss_steps"] == "100" and said["ss_network_dim"] == "2" and said["ss_network_alpha"] == "2.0" and "modelspec.hash_sha256" not in said
    assert json.loads(said["darkroom.resize"])["sha256"] == adapter.sha256
