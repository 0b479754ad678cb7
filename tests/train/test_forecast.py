"""Memory is foretold: against what torch really allocates, by component, for every method; and where it does not suffice, in words with ways out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from darkroom.errors import RecipeError, RunError
from darkroom.jobs.train import prepare
from darkroom.methods import LoRA, LyCORIS
from darkroom.methods.controlnet import ControlNet
from darkroom.methods.full import FullTuning
from darkroom.methods.inversion import TextualInversion
from darkroom.methods.pivotal import Pivotal
from darkroom.sdxl import configs
from darkroom.sdxl.quantised import pack, quantised
from darkroom.train import forecast as module
from darkroom.train.crew import Crew
from darkroom.train.forecast import Forecast, Peak, checked, forecast
from darkroom.train.loop import Trainer, checkpointing
from darkroom.train.optimizers import Adafactor
from darkroom.train.rehearsal import decoding, encoding, rehearse
from darkroom.train.shortage import GIB, Room, available, memory_in_words, out_of_memory, ran_out, room_for, shortage, ways_out
from darkroom.train.swap import blocks, swapped


def changed(recipe, **tables):
    return recipe.model_copy(
        update={name: value if not isinstance(value, dict) else getattr(recipe, name).model_copy(update=value) for name, value in tables.items()}
    )


def allocated(work, place):
    """The largest growth of torch's allocations, bytes, as its profiler saw every one of them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    profiler.export_chrome_trace(str(place))
    now = peak = 0
    for event in json.loads(place.read_text())["traceEvents"]:
        if event.get("name") == "[memory]":
            now += event["args"]["Bytes"]
            peak = max(peak, now)
    return peak


CASES = {
    "lora": ({"method": LoRA(rank=4)}, 1.07),
    "all layers, checkpointed": ({"method": LoRA(rank=4, convolution=True, feed_forward=True), "train": {"gradient_checkpointing": True}}, 1.1),
    "text encoders": ({"method": LoRA(rank=4, text_encoders=True), "data": {"batch_size": 1}}, 1.1),  # of several pictures of one caption it is encoded once
    "loha": ({"method": LyCORIS(rank=4, convolution=True)}, 1.1),
    "bf16": ({"method": LoRA(rank=4), "train": {"precision": "bf16"}}, 1.1),
}


@pytest.mark.parametrize(("changes", "most"), CASES.values(), ids=CASES.keys())
def test_a_step_takes_what_was_foretold(quick, tmp_path, changes, most):
    recipe = changed(quick, **{"data": {"batch_size": 4}, **changes})
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        with checkpointing(recipe, model):
            trainer.step(0)
            trainer.optimizer.zero_grad(set_to_none=True)
            truth = allocated(lambda: trainer.step(2), tmp_path / "trace.json")
        found = forecast(recipe, model, plan.fits[0].bucket)
        told = found.activations + found.gradients
        assert 1 / most < told / truth < most, f"{told / truth:.3f} of {truth >> 10} KiB"
        assert found.adapter == sum(p.nbytes for p in trainer.parameters)
        states = [t for state in trainer.optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        assert found.optimizer == pytest.approx(sum(t.nbytes for t in states), rel=0.05), "what no gradient reaches has no states"
        assert found.model == sum(t.nbytes for t in (*model.unet.parameters(), *model.unet.buffers())) - (_inside(model.unet))
        assert not found.rough and found.moment == "training" and found.total == sum(found.parts.values()) == max(found.moments.values())
    finally:
        attached.detach()


@pytest.mark.parametrize("fused", [False, True], ids=["gradients held", "fused"])
def test_a_full_tuning_takes_what_was_foretold(quick, tmp_path, fused):
    """Weights, gradients and states are exact; the step's peak, in which gradients come as activations go, within a tenth."""
    recipe = changed(quick, method=FullTuning(), optimizer=Adafactor(), train={"fused": fused, "max_grad_norm": 0.0, "clip": "all"})
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        trainer.step(0)
        trainer.optimizer.zero_grad(set_to_none=True)
        truth = allocated(lambda: trainer.step(2), tmp_path / "trace.json")
        found = forecast(recipe, model, plan.fits[0].bucket)
        weights = [p.nbytes for p in trainer.parameters]
        assert found.model >= sum(weights) and found.adapter == 0
        assert found.gradients == (max(weights) if fused else sum(weights))
        assert 0.9 < (found.activations + found.gradients) / truth < 1.15
        if fused:
            assert truth < 0.8 * sum(weights) + found.activations, "gradients are not all held"
    finally:
        attached.detach()


@pytest.mark.parametrize("method", [TextualInversion(), Pivotal(), ControlNet(), FullTuning(ema=0.99)], ids=lambda method: method.kind)
def test_every_kind_of_method_can_be_rehearsed(quick, model, method):
    found = forecast(changed(quick, method=method), model, (64, 64))
    assert not found.rough and found.activations > 0 and (found.average > 0) == (method.kind == "full")


def _inside(unet):
    """Bytes of adapters that peft put inside."""
    return sum(p.nbytes for name, p in unet.named_parameters() if ".lora_" in name)


@pytest.mark.parametrize("bucket", [(256, 256), (384, 128)])
def test_encoding_and_drawing_take_what_was_foretold(model, tmp_path, bucket):
    with torch.no_grad():
        pixels, latents = torch.randn(1, 3, bucket[1], bucket[0]), torch.randn(1, 4, bucket[1] // 4, bucket[0] // 4)
        for told, work in ((encoding(model, bucket), lambda: model.vae.encode(pixels)), (decoding(model, bucket), lambda: model.vae.decode(latents))):
            work()
            assert told == pytest.approx(allocated(work, tmp_path / "trace.json"), rel=0.2)  # what a kernel takes for itself is not counted


@pytest.fixture
def cuda(model):
    """The pocket model as if it lay on a GPU: a forecast asks for its shapes."""
    return replace(model, device=torch.device("cuda"))


def test_rounding_and_swapping_are_counted_to_the_byte(model, cuda, quick):
    """Against the real modules: rounded bytes, and what swapped blocks leave on the device."""
    plain = forecast(quick, cuda, (64, 64))
    for scheme in ("fp8", "int8", "nf4"):
        recipe = changed(quick, train={"quantise": scheme})
        with quantised(model, scheme):
            real = sum(t.nbytes for t in (*model.unet.parameters(), *model.unet.buffers()))
            made = 2 * max(layer.weight.nbytes - sum(t.nbytes for t in pack(layer.weight, scheme)) for layer in _rounded(model.unet))
        found = forecast(recipe, cuda, (64, 64))
        assert found.model == real + made
        assert found.text_encoders == found.vae == 0 or found.moment == "drawing"
    every = len(blocks(model.unet))
    with swapped(model, every) as swap:
        sizes = sorted(sum(held.home.nbytes for held in unit.held) for unit in swap.units)
    found = forecast(changed(quick, train={"swap_blocks": every}), cuda, (64, 64))
    assert plain.model - found.model == sum(sizes[:-2])


def _rounded(unet):
    from darkroom.sdxl.quantised import Rounded

    return [layer for layer in unet.modules() if isinstance(layer, Rounded)]


@pytest.mark.slow
def test_the_true_size_fits_where_the_issue_says(quick):
    """LoRA of rank 16 at 1024 px in 10 GiB, in 6 GiB rounded and swapped (forecast: no GPU measured it)."""
    parts = {name: part.to(torch.bfloat16) for name, part in configs.empty("base").items()}
    sdxl = configs.assemble(parts, dict(configs.SCHEDULER), "sdxl", torch.device("cuda"), torch.bfloat16)
    shape = {"data": {"batch_size": 1}, "method": LoRA()}
    plain = forecast(changed(quick, **shape, train={"gradient_checkpointing": True}), sdxl, (1024, 1024))
    assert 6.5 * GIB < plain.total < 10 * GIB and plain.moment == "drawing"
    small = forecast(changed(quick, **shape, train={"gradient_checkpointing": True, "quantise": "nf4", "swap_blocks": 40}), sdxl, (1024, 1024))
    assert small.total < 6 * GIB


def test_a_method_that_cannot_be_rehearsed_goes_by_its_numbers(quick, model, monkeypatch):
    exact = forecast(quick, model, (64, 64))
    real = rehearse

    def only_plain(recipe, model, bucket):
        if recipe.method.rank != 16:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return real(recipe, model, bucket)

    monkeypatch.setattr(module, "rehearse", only_plain)
    monkeypatch.setattr(module, "_KNOWN", {})
    rough = forecast(quick, model, (64, 64))
    assert rough.rough and not exact.rough
    assert rough.adapter == exact.adapter and rough.total == pytest.approx(exact.total, rel=0.1)
    assert checked(rough, 0)["rough"]


def test_too_little_memory_is_told_with_ways_that_fit(quick, cuda):
    recipe = changed(quick, data={"batch_size": 4}, method=LoRA())
    found = forecast(recipe, cuda, (64, 64))
    ways = {way.setting: way for way in ways_out(recipe, found)}
    assert {"train.gradient_checkpointing = true", "data.batch_size = 1 with train.accumulate = 4", 'train.quantise = "nf4"'} <= ways.keys()
    for way in ways.values():
        assert found.total - forecast(way.recipe, cuda, (64, 64)).total == way.saved > 0
    best = next(iter(ways.values()))
    assert best.saved == max(way.saved for way in ways.values())
    assert shortage(recipe, found, 2 * found.total) is None and shortage(recipe, found, None) is None
    said = shortage(recipe, found, int(found.total - best.saved * 0.8))
    assert said.startswith("Memory will not suffice: about ") and "It would fit with one of: " in said and best.setting in said
    assert "Several of them together save more" in shortage(recipe, found, 1 << 20)
    assert available(torch.device("cpu")) is None


class Cards:
    """Four cards of which the third is nearly full."""

    free = (8 * GIB, 9 * GIB, GIB, 10 * GIB)

    def __init__(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(self.free))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free[device.index or 0], 0))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)


def test_the_room_is_that_of_the_devices_that_will_be_used(monkeypatch):
    """Not of the first card, whichever a training takes."""
    Cards(monkeypatch)
    assert room_for(torch.device("cuda:2"), Crew()) == Room(GIB) and room_for(torch.device("cuda"), Crew()) == Room(8 * GIB)
    assert room_for(torch.device("cuda"), Crew(), 2) == Room(8 * GIB, "cuda:0"), "two processes take the first two"
    assert room_for(torch.device("cuda"), Crew(), 4) == Room(GIB, "cuda:2")
    with pytest.raises(RecipeError, match=r"--processes 5: this machine has 4 GPUs, and each process wants its own. Start 4"):
        room_for(torch.device("cuda"), Crew(), 5)
    assert room_for(torch.device("cpu"), Crew(), 9) == Room() == Room(None)


FORESEEN = Forecast(model=4 * GIB, text_encoders=0, vae=0, adapter=0, gradients=0, optimizer=0, average=0, activations=GIB, moment="training", moments={})


def test_of_a_crew_the_fullest_card_is_told(quick, monkeypatch):
    """The first process alone speaks, and the others' cards may be full."""
    Cards(monkeypatch)

    class Second(Crew):
        def told(self, words):
            return [words, json.dumps([GIB, "process 1 of 2 on beta"])]

    room = room_for(torch.device("cuda:3"), Second(0, 2))
    assert room == Room(GIB, "process 1 of 2 on beta")
    said = shortage(quick, FORESEEN, room.size, room.where)
    assert "5.0 GiB are wanted" in said and "1.0 GiB are there on process 1 of 2 on beta." in said
    assert shortage(quick, FORESEEN, 8 * GIB, room.where) is None


def test_the_preflight_warns_of_the_card_that_is_asked_for(quick, model, monkeypatch):
    from darkroom.train import preflight

    asked = []
    monkeypatch.setattr(preflight, "available", lambda device: asked.append(device))
    monkeypatch.setattr(preflight, "forecast", lambda *_: FORESEEN)
    _, found = prepare(quick)
    assert not asked, "prepare has looked"
    short = preflight.plan(quick, found.photos, model, room=Room(1 << 20, "cuda:2")).facts["remarks"][-1]
    assert short.startswith("Memory will not suffice") and "1 MiB are there on cuda:2" in short


def test_an_allocation_that_fails_is_told_in_words(quick, cuda):
    recipe = changed(quick, method=LoRA(), data={"batch_size": 4})
    found = forecast(recipe, cuda, (64, 64))
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 GiB is free.")
    said = str(out_of_memory(error, recipe, found))
    assert said.startswith("The memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB). Forecast were ")
    assert "train.gradient_checkpointing = true (saves " in said
    with pytest.raises(RunError, match="The memory ran out"), memory_in_words(recipe, found):
        raise error
    with pytest.raises(RunError, match="can't allocate memory"), memory_in_words(recipe, found):
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="size mismatch"), memory_in_words(recipe, found):
        raise RuntimeError("size mismatch")
    assert ran_out(MemoryError()) and not ran_out(ValueError("out of bounds"))


def test_the_peak_of_main_memory_is_measured_from_where_it_begins():
    peak = Peak(torch.device("cpu"))
    if not peak.began:
        pytest.skip("this system does not tell")
    big = torch.ones(16 << 20)
    del big
    assert 0.9 < (peak.measured(1 << 20) - (1 << 20)) / (64 << 20) < 1.3
    again = Peak(torch.device("cpu"))
    assert again.measured(0) < 32 << 20, "an earlier peak is forgotten"


def test_forecast_and_truth_stand_side_by_side(quick, model):
    found = forecast(quick, model, (64, 64))
    told = checked(found, 2 * found.total)
    assert told["ratio"] == 0.5 and told["forecast_mib"] == found.mib and told["measured_mib"] == pytest.approx(2 * found.total / (1 << 20), abs=0.1)
    assert "ratio" not in checked(found, 0)
    assert found.mib["total"] == pytest.approx(sum(size for name, size in found.mib.items() if name != "total"), abs=0.5)
