"""What is extracted is what a checkpoint has beyond its base: exact where the ranks suffice, the stated error where they do not, the rest named."""

import math

import pytest
import torch

from darkroom.errors import AdapterError, ModelError, RecipeError
from darkroom.sdxl.adapters.extract import Extraction, extract
from darkroom.sdxl.adapters.into import Dressed
from darkroom.sdxl.adapters.layouts import Adapter, read, write
from darkroom.sdxl.adapters.level import uneven
from darkroom.sdxl.adapters.matrices import Cut
from darkroom.sdxl.adapters.share import Share, words
from darkroom.sdxl.configs import build
from darkroom.sdxl.folder import write_folder
from darkroom.sdxl.unread import Unread, write_model
from support.adapters import made, norms

F32 = torch.float32


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """Pocket with a LoRA of rank 3 merged in, in float32: (the model, the adapter)."""
    adapter = made(base.catalogue, "LoRA")
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    write_model(base.model, Dressed(base.tensor, base.catalogue, [Share(adapter, 0.8)], F32).tensor, path, F32, {})
    return Unread.open(path, base.place), adapter


def test_enough_ranks_give_back_what_was_merged(base, tuned, tmp_path):
    found = extract(tuned[0], base, Extraction(Cut(3)), F32)
    assert found.made.changes.keys() == tuned[1].changes.keys() and not found.left_out
    for key, there in found.made.changes.items():
        delta = 0.8 * tuned[1].changes[key].delta(base.weight(key).float())
        torch.testing.assert_close(there.delta(delta), delta, rtol=0, atol=1e-5 * float(delta.abs().max()) + 2e-7)
    assert found.made.ruler.error < 1e-4 and found.error_of_all == pytest.approx(found.made.ruler.error)
    assert not uneven(found.made.changes) and found.dtypes == ("float32", "float16")
    write(tmp_path / "x.safetensors", Adapter(tmp_path, "", found.made.changes, catalogue=base.catalogue), "kohya", {})
    assert read(tmp_path / "x.safetensors", base.catalogue).changes.keys() == found.made.changes.keys()


@pytest.mark.parametrize("dtype", [F32, torch.float16])
def test_the_error_is_the_tail_of_the_singular_values(base, tuned, dtype):
    found = extract(tuned[0], base, Extraction(Cut(1)), dtype)
    tails, sizes = {}, {}
    for key in found.made.changes:
        sigma = torch.linalg.svdvals((tuned[0].weight(key).double() - base.weight(key).double()).flatten(1))
        block = words(base.catalogue, key)[0]
        tails[block] = tails.get(block, 0) + float(sigma[1:].square().sum())
        sizes[block] = sizes.get(block, 0) + float(sigma.square().sum())
    for block, fact in found.made.ruler.blocks().items():
        assert fact["error"] == pytest.approx(math.sqrt(tails[block] / sizes[block]), rel=1e-4)
    assert found.made.ruler.error == pytest.approx(math.sqrt(sum(tails.values()) / sum(sizes.values())), rel=1e-4)


def test_parts_and_convolutions_are_options(base, tuned):
    unet = extract(tuned[0], base, Extraction(Cut(2), conv_rank=0, text_encoders=False), F32)
    assert {part for part, _ in unet.made.changes} == {"unet"}
    assert not any(len(base.catalogue.places[key].shape) == 4 and base.catalogue.places[key].shape[-1] > 1 for key in unet.made.changes)
    assert set(unet.left_out) == {"convolutions, which were not asked for", "text encoders, which were not asked for"}
    narrow = extract(tuned[0], base, Extraction(Cut(3), conv_rank=1), F32)
    ranks = {len(base.catalogue.places[key].shape): one.rank for key, one in narrow.made.changes.items() if base.catalogue.places[key].shape[2:] != (1, 1)}
    assert ranks == {2: 3, 4: 1} and not uneven(narrow.made.changes)


def test_what_no_lora_holds_is_measured(base, tuned, tmp_path):
    """Norms, biases, embeddings and the VAE; their share of the change is stated, and together with the error it is what is missing."""
    shares = [Share(tuned[1], 0.8), Share(norms(base.catalogue), 0.01)]
    dressed = Dressed(base.tensor, base.catalogue, shares, F32)
    table, bias = ("text_encoder", "embeddings.token_embedding.weight"), ("unet", "mid_block.attentions.0.proj_in.bias")

    def tensor(part, name):
        found = dressed.tensor(part, name)
        return found.float() + 0.001 if (part, name) in (table, bias) or (part == "vae" and name == "quant_conv.bias") else found

    write_model(base.model, tensor, tmp_path / "x.safetensors", F32, {})
    other = Unread.open(tmp_path / "x.safetensors", base.place)
    found = extract(other, base, Extraction(Cut(2)), F32)
    count = sum(2 if one.bias is not None else 1 for one in norms(base.catalogue).changes.values())
    assert {label: fact["tensors"] for label, fact in found.left_out.items()} == {"norms": count, "biases": 1, "embeddings": 1, "vae": 1}
    squares = dict.fromkeys(("all", "missed"), 0.0)
    for part, module in base.model.parts.items():
        for name in module.state_dict():
            delta = other.tensor(part, name).double() - base.tensor(part, name).double()
            key = (part, name.removesuffix(".weight"))
            got = found.made.changes[key].delta(delta).double() if key in found.made.changes and name.endswith(".weight") else torch.zeros_like(delta)
            squares["all"] += float(delta.square().sum())
            squares["missed"] += float((delta - got).square().sum())
    assert found.error_of_all == pytest.approx(math.sqrt(squares["missed"] / squares["all"]), rel=1e-5)
    assert found.error_of_all > found.made.ruler.error and math.isnan(found.left_out["vae"]["share"])


def test_what_cannot_be_is_refused(base, tuned, tmp_path):
    with pytest.raises(AdapterError, match=r"is equal to .*: there is nothing to extract"):
        extract(base, base, Extraction(Cut(4)), F32)
    for wanted, word in (
        (Extraction(Cut()), "rank must be at least 1"), (Extraction(Cut(100_000)), "rank = 100000: the largest module has"),
        (Extraction(Cut(4), conv_rank=-1), "cannot be below 0"), (Extraction(Cut(4), conv_rank=99_999), "conv rank = 99999"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=word):
            extract(tuned[0], base, wanted, F32)
    write_folder(build("refiner", 32), tmp_path / "refiner", F32)
    with pytest.raises(ModelError, match="Only models of one shape have a difference"):
        extract(Unread.open(tmp_path / "refiner"), base, Extraction(Cut(4)), F32)
    only = Dressed(base.tensor, base.catalogue, [Share(norms(base.catalogue))], F32)
    write_model(base.model, only.tensor, tmp_path / "norms.safetensors", F32, {})
    with pytest.raises(AdapterError, match=r"in nothing that this LoRA would hold, but in norms \("):
        extract(Unread.open(tmp_path / "norms.safetensors", base.place), base, Extraction(Cut(4)), F32)


def test_a_broken_model_is_named(base, tuned):
    class Broken(Unread):
        def tensor(self, part, name):
            found = super().tensor(part, name)
            return found.float() * math.nan if name == "mid_block.attentions.0.proj_in.weight" else found

    with pytest.raises(ModelError, match=r"tuned\.safetensors: unet\.mid_block\.attentions\.0\.proj_in\.weight holds NaN"):
        extract(Broken(tuned[0].place, tuned[0].source, tuned[0].model), base, Extraction(Cut(2)), F32)
