"""Swapped blocks: what is computed is the same to the last bit, two or three blocks are there at a time, and all weights are at home afterwards."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from darkroom.device import generator
from darkroom.errors import RecipeError
from darkroom.methods import LoRA, LyCORIS
from darkroom.sdxl import configs, quantised
from darkroom.train.swap import Lane, blocks, chosen, lodged, placed, swapped

METHODS = {"lora": LoRA(rank=2, feed_forward=True, convolution=True), "dora": LoRA(rank=2, dora=True), "loha": LyCORIS(rank=2, convolution=True)}


@pytest.fixture
def there(monkeypatch):
    """How many copies of blocks are alive, whoever holds them, each time that another one is made."""
    alive, counts = [], []
    real = Lane.copy

    def copy(lane, host):
        made, ready = real(lane, host)
        alive.append(weakref.ref(made.untyped_storage()))
        counts.append(sum(ref() is not None for ref in alive))
        return made, ready

    monkeypatch.setattr(Lane, "copy", copy)
    return counts


def losses(model, attached, times=1):
    """Loss and gradients of a few batches."""
    parameters, unet, found = [p for group in attached.groups(1.0) for p in group["params"]], model.unet, []
    for number in range(times):
        shapes = (2, 4, 16, 16), (2, 77, int(unet.config.cross_attention_dim)), (2, int(model.text_encoder_2.config.projection_dim))
        x, text, pooled = (torch.randn(shape, generator=generator(number, "swap", *shape)).to(model.device, model.dtype) for shape in shapes)
        t, ids = torch.tensor([500, 20], device=model.device), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2, device=model.device)
        loss = unet(x, t, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample.square().mean()
        loss.backward()
        found += [loss.detach(), *[p.grad.clone() for p in parameters]]
        for parameter in parameters:
            parameter.grad = None
    return found


@contextlib.contextmanager
def learning(model, method, checkpointing=False):
    attached = method.attach(model, 0)
    state = {name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator(1, name)) for name, tensor in attached.state().items()}
    attached.load_state(state)
    if checkpointing:
        model.unet.enable_gradient_checkpointing()
    try:
        yield attached
    finally:
        model.unet.disable_gradient_checkpointing()
        attached.detach()


def weights(model):
    return {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.unet.state_dict().items()}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("scheme", ["no", "fp8"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_nothing_changes_but_where_weights_are(model, there, method, scheme, checkpointing):
    before, every = weights(model), len(blocks(model.unet))
    with quantised.quantised(model, scheme), learning(model, method, checkpointing) as attached:
        plain = losses(model, attached, times=2)
        assert not there
        with swapped(model, every) as swap:
            assert all(held.home.device.type == "cpu" for unit in swap.units for held in unit.held)
            found = losses(model, attached, times=2)
        again = losses(model, attached, times=2)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert max(there) <= (3 if checkpointing else 2)
    assert len(there) >= 2 * 2 * (every - 2), "each block comes forwards and backwards in each of two steps"
    after = weights(model)
    assert before.keys() == after.keys()
    assert all(after[name][0] == place and torch.equal(after[name][1], tensor) for name, (place, tensor) in before.items())
    assert not quantised._lent


def test_pictures_are_drawn_through_it(model, there):
    with learning(model, METHODS["lora"]) as attached, torch.no_grad():
        args = torch.randn(1, 4, 16, 16), torch.tensor(7), torch.randn(1, 77, int(model.unet.config.cross_attention_dim))
        extra = {"text_embeds": torch.randn(1, int(model.text_encoder_2.config.projection_dim)), "time_ids": torch.ones(1, 6)}
        plain = model.unet(*args, added_cond_kwargs=extra).sample
        with swapped(model, 5):
            assert torch.equal(model.unet(*args, added_cond_kwargs=extra).sample, plain)
            assert torch.equal(model.unet(*args, added_cond_kwargs=extra).sample, plain)
        assert attached and max(there) == 2


def test_weights_are_read_from_outside_too(model):
    """A rounded weight that is asked for when its block is away brings the block."""
    with quantised.quantised(model, "int8"):
        path, block = next((path, block) for path, block in blocks(model.unet) if "transformer_blocks" in path)
        wanted = block.ff.net[2].weight.clone()
        with swapped(model, len(blocks(model.unet))) as swap:
            assert torch.equal(block.ff.net[2].weight, wanted)
            assert swap.units[swap.now].path == path


def test_blocks_are_in_the_order_in_which_they_run(model):
    ran = []
    hooks = [block.register_forward_pre_hook(lambda _, __, path=path: ran.append(path)) for path, block in blocks(model.unet)]
    try:
        with torch.no_grad(), learning(model, METHODS["lora"]) as attached, torch.enable_grad():
            losses(model, attached)
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == [path for path, _ in blocks(model.unet)]


def test_blocks_of_the_true_size():
    unet = configs.empty("base")["unet"]
    known = blocks(unet)
    inside = sum(p.numel() for _, block in known for p in block.parameters())
    assert sum("transformer_blocks" in path for path, _ in known) == 70 and sum("resnets" in path for path, _ in known) == 17
    assert inside / sum(p.numel() for p in unet.parameters()) > 0.97
    some = [path for path, _ in chosen(unet, 20)]
    assert some == [path for path, _ in known if path in some], "in the order in which they run"
    sizes = {path: sum(p.numel() for p in block.parameters()) for path, block in known}
    assert min(sizes[path] for path in some) >= max(size for path, size in sizes.items() if path not in some)


def test_equal_blocks_are_spread_evenly():
    """SDXL has 60 equal transformer blocks, 1280 wide; of each two that are swapped, one that is not can compute meanwhile."""
    unet = configs.empty("base")["unet"]
    deep = [path for path, block in blocks(unet) if "transformer_blocks" in path and block.norm1.normalized_shape == (1280,)]
    some = next(number for number in range(1, 90) if sum(path in deep for path, _ in chosen(unet, number)) == 30)
    taken = [deep.index(path) for path, _ in chosen(unet, some) if path in deep]
    assert len(deep) == 60 and {b - a for a, b in itertools.pairwise(taken)} == {2}


@pytest.fixture
def elsewhere(model):
    """A model on the CPU whose device is another one: what comes to it is float64, for a CPU has no other device."""
    return replace(model, device=torch.float64)


def test_parts_come_for_a_while(model, elsewhere):
    before = {name: p.data_ptr() for name, p in model.vae.named_parameters()}
    with lodged(elsewhere, "vae", "text_encoder_2", "text_encoder_3"):
        assert {p.dtype for p in model.vae.parameters()} == {torch.float64} == {p.dtype for p in model.text_encoder_2.parameters()}
        assert next(model.unet.parameters()).dtype == torch.float32
    assert {name: p.data_ptr() for name, p in model.vae.named_parameters()} == before


def test_before_a_method_is_attached_all_but_the_swapped_blocks_is_there_and_rounded(model, elsewhere):
    before = weights(model)
    away = [block for _, block in chosen(model.unet, 4)]
    with placed(elsewhere, "no", 4):
        assert model.unet.conv_in.weight.dtype == torch.float64 and {p.dtype for block in away for p in block.parameters()} == {torch.float32}
    with placed(model, "int8", 4):
        attached = METHODS["loha"].attach(model, 0)
        with swapped(model, 4):
            assert all(torch.isfinite(tensor).all() for tensor in losses(model, attached))
        attached.detach()
    assert all(tensor.data_ptr() == before[name][0] for name, tensor in model.unet.state_dict().items())


def test_what_is_learned_stays_and_the_rest_of_the_unet_comes(model, elsewhere):
    with learning(model, METHODS["lora"]):
        away = [block for _, block in chosen(model.unet, 3)]
        inside = {id(inner) for block in away for inner in block.modules()}
        with lodged(elsewhere, "unet", but=away):
            for owner in model.unet.modules():
                for parameter in owner.parameters(recurse=False):
                    stays = id(owner) in inside and not parameter.requires_grad
                    assert parameter.dtype == (torch.float32 if stays else torch.float64)
        frozen, learned = ([p.dtype for p in model.unet.parameters() if p.requires_grad is wanted] for wanted in (False, True))
        assert {*frozen} == {torch.float32} and {*learned} == {torch.float64}


@pytest.mark.parametrize("count", [10_000, 30])
def test_more_blocks_than_there_are_is_refused(model, count):
    known = len(blocks(model.unet))
    with pytest.raises(RecipeError, match=rf"swap_blocks = {count}: this U-Net has {known} blocks\. Set {known} at most"), swapped(model, count):
        pass


def test_learned_weights_are_refused(model):
    before = weights(model)
    model.unet.requires_grad_(True)
    try:
        with pytest.raises(RecipeError, match="is learned itself, and only frozen weights can be swapped"), swapped(model, 2):
            pass
    finally:
        model.unet.requires_grad_(False)
    assert all(tensor.data_ptr() == before[name][0] for name, tensor in model.unet.state_dict().items())


def test_why_group_offloading_of_diffusers_is_not_used():
    """It changes `parameter.data` after a block's forward pass. `linear` keeps what was sent away; a convolution goes backwards with what came after."""
    hooks = pytest.importorskip("diffusers.hooks.group_offloading")
    assert not [name for name in dir(hooks.GroupOffloadingHook) if "backward" in name]
    weight = torch.nn.Parameter(torch.randn(4, 4), requires_grad=False)
    alive = weakref.ref(weight.untyped_storage())
    out = functional.linear(torch.randn(2, 4, requires_grad=True), weight)
    weight.data = torch.zeros(4, 4)
    assert alive() is not None and out.grad_fn is not None
    x, weight = torch.randn(1, 2, 5, 5, requires_grad=True), torch.nn.Parameter(torch.randn(3, 2, 3, 3), requires_grad=False)
    out = functional.conv2d(x, weight)
    weight.data = torch.zeros_like(weight)
    out.sum().backward()
    assert not x.grad.any(), "the gradient of another weight, without a word"


@pytest.mark.gpu
def test_the_same_on_a_gpu(there):
    if not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    model, found = configs.build("base", 8, dtype=torch.bfloat16), []
    model.device = torch.device("cuda")
    for count in (0, len(blocks(model.unet))):
        cast = torch.autocast("cuda", torch.bfloat16)
        with quantised.quantised(model, "fp8"), learning(model, METHODS["lora"], True) as attached, swapped(model, count), cast:
            found.append(losses(model, attached, times=2))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert max(there) <= 5, "two blocks, one that autograd holds, two whose computation is queued"
