"""Every method keeps its contract: exact attach and detach, a fresh change is none, saved and loaded predicts the same, it learns."""

from contextlib import contextmanager

import pytest
import torch

from darkroom import pocket
from darkroom.jobs.train import prepare
from darkroom.methods import FullTuning, LoRA, LyCORIS, Pivotal, TextualInversion
from darkroom.methods.chosen import ADAPTER
from darkroom.methods.stack import Wear, worn
from darkroom.sdxl.adapters.inversion_files import holds_words
from darkroom.sdxl.formats import read_adapter, write_adapter
from darkroom.sdxl.inversion import read_embeddings
from darkroom.sdxl.model import load
from darkroom.sdxl.reader import encode_caption
from darkroom.train.loop import Trainer
from darkroom.train.recipe import Recipe

METHODS = {
    "attention": LoRA(rank=4),
    "everything": LoRA(rank=2, alpha=1.0, feed_forward=True, convolution=True, text_encoders=True),
    "text": LoRA(rank=2, attention=False, text_encoders=True),
    "uneven": LoRA(rank=4, alpha=2.0, convolution=True, conv_rank=2, conv_alpha=1.0, ranks={"mid_block": 3}, rates={"down_blocks.0": 0.0, "mid_block": 2.0}),
    "dora": LoRA(rank=2, convolution=True, dora=True),
    "locon": LyCORIS(algorithm="locon", rank=2, alpha=1.0, convolution=True),
    "loha": LyCORIS(algorithm="loha", rank=2, alpha=1.0, convolution=True, text_encoders=True),
    "lokr": LyCORIS(algorithm="lokr", rank=2, alpha=1.0, factor=4, convolution=True, feed_forward=True),
    "lokr in parts, dora": LyCORIS(algorithm="lokr", rank=1, decompose_both=True, dora=True),
    "ia3": LyCORIS(algorithm="ia3", feed_forward=True),
    "ia3 on input": LyCORIS(algorithm="ia3", on_input=True, convolution=True),
    "dylora": LyCORIS(algorithm="dylora", rank=4, alpha=2.0, block=2),
    "diag-oft": LyCORIS(algorithm="diag-oft", rank=4, constraint=0.01, rescale=True),
    "boft": LyCORIS(algorithm="boft", rank=10),
    "full": LyCORIS(algorithm="full", attention=False, convolution=True, dropout=0.2),
    "whole model": FullTuning(),
    "whole model, averaged": FullTuning(text_encoders=True, ema=0.9, rates={"down_blocks": 0.0}),
    "word": TextualInversion(word="TOK", vectors=2, start="cat"),
    "word, one encoder's": TextualInversion(word="TOK", vectors=3, norm="vocabulary", encoders="second"),
    "word and lora": Pivotal(inversion=TextualInversion(word="TOK", vectors=2), adapter=LoRA(rank=2, text_encoders=True)),
    "word and lokr": Pivotal(inversion=TextualInversion(word="TOK", norm="free"), adapter=LyCORIS(algorithm="lokr", rank=1, dora=True), until=0.5),
}
ADAPTERS = {name: method for name, method in METHODS.items() if method.product("TOK") == ADAPTER}


def predict(model, words=()):
    with torch.no_grad():
        text = encode_caption(model, "a photo of TOK cat", words)
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
        return model.unet(x, torch.tensor(500), text.states, added_cond_kwargs={"text_embeds": text.pooled, "time_ids": ids}).sample


def weights(model):
    return {f"{part}.{name}": tensor.clone() for part, root in model.parts.items() for name, tensor in root.state_dict().items()}


def disturb(attached):
    """Give every trained tensor a value, as training would."""
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i)) for i, (name, tensor) in enumerate(attached.state().items())
    }
    attached.load_state(state)


@contextmanager
def used(model, place, **how):
    """Within the block the file is worn, where it is an adapter, or the folder is the model; gives the words that it brings."""
    if place.is_dir():
        with taken_for(model, place if how.get("weight", 1.0) else pocket.folder()):
            yield ()
        return
    if holds_words(place):
        yield read_embeddings(place, model)
        return
    file = read_adapter(place, model)
    with worn(model, [Wear(file, **how)]):
        yield read_embeddings(place, model) if file.embeddings else ()


@contextmanager
def taken_for(model, folder):
    before = {**model.parts}
    for part, module in load(folder, model.device, model.dtype).parts.items():
        setattr(model, part, module)
    try:
        yield
    finally:
        for part, module in before.items():
            setattr(model, part, module)


def saved(attached, method, folder):
    place = folder / method.product("TOK")
    attached.write(place, torch.float32, lambda tensors: attached.metadata())
    attached.detach()
    return place


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
class TestEveryMethod:
    def test_fresh_changes_nothing_and_detach_is_exact(self, model, method):
        before, plain, named = weights(model), predict(model), [n for n, _ in model.unet.named_modules()]
        attached = method.attach(model, seed=3)
        assert torch.equal(predict(model), plain)
        fresh = predict(model, attached.words)
        assert attached.words or torch.equal(fresh, plain)
        disturb(attached)
        assert not torch.equal(predict(model, attached.words), fresh)
        attached.detach()
        after = weights(model)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(predict(model), plain)
        assert [n for n, _ in model.unet.named_modules()] == named

    def test_saved_and_used_predicts_the_same(self, model, method, tmp_path):
        attached = method.attach(model, seed=3)
        disturb(attached)
        learned = predict(model, attached.words)
        place = saved(attached, method, tmp_path)
        plain = predict(model)
        with used(model, place) as words:
            torch.testing.assert_close(predict(model, words), learned, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(predict(model, words), plain, atol=1e-5)
        assert torch.equal(predict(model), plain)
        with used(model, place, weight=0.0):
            torch.testing.assert_close(predict(model), plain, rtol=0, atol=0)

    def test_same_seed_same_start(self, model, method):
        states = []
        for seed in (3, 3, 4):
            attached = method.attach(model, seed=seed)
            states.append(attached.state())
            attached.detach()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        drawn = any(((tensor != 0) & (tensor != 1)).any() for name, tensor in states[0].items() if "dora_scale" not in name)
        if isinstance(method, FullTuning) or (isinstance(method, TextualInversion) and method.start):  # what is known is no draw
            drawn = False
        assert drawn == any(not torch.equal(states[0][name], states[2][name]) for name in states[0])

    def test_spec_survives_toml(self, method):
        import tomllib

        recipe = Recipe(method=method)
        assert Recipe.from_tree(tomllib.loads(recipe.to_toml()), "test") == recipe

    def test_thirty_steps_lower_the_loss(self, quick, method):
        import tomllib

        tree = tomllib.loads(quick.to_toml())
        rate = 1e-4 if "full" in (method.kind, getattr(method, "algorithm", "")) else 3e-3
        small = {"data": tree["data"] | {"resolution": 32}, "method": method.model_dump(), "optimizer": {"rate": rate}}
        recipe = Recipe.from_tree(tree | small, "test")
        model, plan = prepare(recipe)
        attached = method.attach(model, 0)
        try:
            trainer = Trainer(recipe, plan, model, attached)

            def loss():  # the same batches, noise and timesteps each time
                with torch.no_grad():
                    batches = [(trainer.feed.batch(n), n) for n in range(1000, 1004)]
                    drawn = [(b, trainer._draw(n, trainer.feed.shown(n), b.latents)) for b, n in batches]
                    return sum(float(recipe.objective.losses(trainer.predict, trainer.schedule, b, *draws).mean()) for b, draws in drawn)

            before = loss()
            for number in range(30):
                trainer.step(number)
            assert loss() < before
        finally:
            attached.detach()


@pytest.mark.parametrize("method", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_one_branch_alone_wears_it(model, method, tmp_path):
    attached = method.attach(model, seed=3)
    disturb(attached)
    place = saved(attached, method, tmp_path)
    plain, file = predict(model), read_adapter(place, model)
    with worn(model, [Wear(file)]) as wearing:
        learned = predict(model)
        wearing.turn("none")
        assert torch.equal(predict(model), plain)
    with worn(model, [Wear(file, branch="unconditional")]) as wearing:
        assert wearing.splits and torch.equal(predict(model), plain)
        wearing.turn("unconditional")
        assert torch.equal(predict(model), learned)


def test_several_worn_at_once_add_up_and_come_off_exactly(model, tmp_path):
    files = []
    for seed in range(5):
        attached = METHODS["everything" if seed % 2 else "attention"].attach(model, seed)
        disturb(attached)
        write_adapter(tmp_path / f"{seed}.safetensors", attached.tensors(torch.float32), {})
        attached.detach()
        files.append(read_adapter(tmp_path / f"{seed}.safetensors", model))
    before, plain = weights(model), predict(model)
    with worn(model, [Wear(file, weight) for file, weight in zip(files, (0.3, 0.2, 0.3, 0.7, 1.2), strict=True)]):
        stacked = predict(model)
        path = next(iter(files[0].changes))
        layer = model.parts[path[0]].get_submodule(path[1])
        total = sum(
            w * f.changes[path].alpha / f.changes[path].rank * f.changes[path].up @ f.changes[path].down
            for f, w in zip(files, (0.3, 0.2, 0.3, 0.7, 1.2), strict=True)
        )
        x = torch.randn(3, total.shape[1])
        torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ total.T, rtol=1e-4, atol=1e-5)
    assert not torch.equal(stacked, plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(model).items())
    assert torch.equal(predict(model), plain)


def random_change(place, kind):
    """A change of each method for a linear module (out, in), large enough to be seen."""
    from darkroom.sdxl.adapters.changes import Full, Hada, Ia3, Kron, LowRank, Oft

    draw = torch.Generator().manual_seed(len(str(place)))
    out, into = place.shape[:2]

    def rand(*shape):
        return torch.randn(*shape, generator=draw) * 0.2

    match kind:
        case "LoRA":
            return LowRank(rand(4, into), rand(out, 4), 4.0)
        case "DoRA":
            return LowRank(rand(4, into), rand(out, 4), 4.0, dora_scale=rand(out, 1).abs() + 1)
        case "LoHa":
            return Hada(rand(out, 4), rand(4, into), rand(out, 4), rand(4, into), 4.0)
        case "LoKr":
            return Kron(w1=rand(4, 4), w2=rand(out // 4, into // 4), alpha=1.0)
        case "(IA)^3":
            return Ia3(rand(out, 1), on_input=False)
        case "diag-OFT":
            return Oft(rand(out // 8, 8, 8))
        case "full":
            return Full(rand(out, into))


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "LoHa", "LoKr", "(IA)^3", "diag-OFT", "full"])
def test_every_method_of_the_field_is_worn_and_comes_off_exactly(model, kind):
    """W + weight * delta(W) while it is worn, on one branch alone where it is asked for; the very bits of before afterwards."""
    from pathlib import Path

    from darkroom.sdxl.adapters.layouts import Adapter
    from darkroom.sdxl.adapters.places import Catalogue

    catalogue = Catalogue.of(model)
    places = [p for p in catalogue.places.values() if p.part == "unet" and p.kind == "linear" and ".attn1.to_" in p.path][:6]
    changes = {place.key: random_change(place, kind) for place in places}
    adapter = Adapter(Path("made"), "", changes, catalogue=catalogue)
    before, plain = weights(model), predict(model)
    wanted = {key: before_of(model, key) + 0.7 * change.delta(before_of(model, key)) for key, change in changes.items()}
    with worn(model, [Wear(adapter, 0.7, branch="unconditional")]) as wearing:
        assert torch.equal(predict(model), plain)
        wearing.turn("unconditional")
        for (part, path), weight in wanted.items():
            module = model.parts[part].get_submodule(path)
            bias = 0 if module.bias is None else module.bias
            torch.testing.assert_close((module(torch.eye(weight.shape[1])) - bias).T, weight, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(predict(model), plain, atol=1e-4)
    after = weights(model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(predict(model), plain)


def before_of(model, key):
    return model.parts[key[0]].get_submodule(key[1]).weight.detach().clone()
