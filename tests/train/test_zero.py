"""`train.sharding = "zero2" | "zero3"`: a model divided by DeepSpeed learns what one process learns, and its checkpoints are gone on with by any number."""

import importlib.util
import json
import sys
import types

import pytest
import torch

from darkroom.errors import RecipeError
from darkroom.jobs.processes import resume_together, train_together
from darkroom.jobs.train import resume_training
from darkroom.methods.zeroed import configured
from darkroom.train.forecast import forecast
from darkroom.train.launch import asked, check_precision
from darkroom.train.recipe import Recipe
from darkroom.train.run import Run
from darkroom.train.zero import zero_given
from support.crews import begun_by_two_ended_by_three, brief, compared, full, killed, weights

deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install sdxl-darkroom[deepspeed]")


# ---- processes ----------------------------------------------------------------------------------------------------------------------------------------------


@deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["zero2", "zero3"])
def test_divided_among_two_of_which_one_is_killed_and_ended_by_one(quick, tmp_path, sharding):
    """20 steps, equal to one process to 1e-6."""
    recipe = full(brief(quick), sharding=sharding, save_every="8 steps")
    at = killed(recipe, tmp_path / "run", 9)
    saved = Run(tmp_path / "run").checkpoints()[-1]
    assert saved.parted and len(saved.facts["parts"]) == 2 and saved.step == at
    compared(resume_training(tmp_path / "run"), recipe, tmp_path / "one")


@deepspeed
@pytest.mark.slow
@pytest.mark.parametrize(("sharding", "more"), [("zero2", {"text_encoders": True}), ("zero3", {})], ids=["zero2", "zero3"])
def test_all_at_once_in_two_then_in_one_then_in_three(quick, tmp_path, sharding, more):
    method = {"ema": 0.8, "rates": {"mid_block": 0.5, "down_blocks.0": 0.0}, **more}
    recipe = full(brief(quick), method, sharding=sharding, save_every="8 steps", accumulate=2, gradient_checkpointing=True)
    begun_by_two_ended_by_three(recipe, tmp_path / "run", tmp_path / "one")


@deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("order", [("zero3", "fsdp"), ("fsdp", "zero2")], ids="-".join)
def test_a_checkpoint_of_one_way_of_dividing_is_gone_on_with_by_another(quick, tmp_path, order):
    before, after = order
    recipe, folder = full(brief(quick), sharding=before, save_every="8 steps"), tmp_path / "run"
    killed(recipe, folder, 9)
    written = folder / "recipe.toml"
    written.write_text(written.read_text().replace(f'sharding = "{before}"', f'sharding = "{after}"'))
    compared(resume_together(folder, 2), recipe, tmp_path / "one")


@deepspeed
@pytest.mark.slow
def test_bf16_beside_weights_in_fp32_learns_what_fsdp_does(quick, model, tmp_path):
    """In autocast; stage 3 adds a layer's bias after the product was rounded, so that the last bits of bf16 differ from the first step on."""
    start = {f"unet.{name}": tensor.clone() for name, tensor in model.unet.state_dict().items()}
    runs = {}
    for sharding in ("fsdp", "zero2", "zero3"):
        recipe = full(brief(quick), sharding=sharding, precision="bf16", length="3 steps")
        runs[sharding] = train_together(recipe, tmp_path / sharding, 2)
    learned, rows = weights(runs["fsdp"]), runs["fsdp"].read_log()
    moved = _mean_distance(learned, start)
    for sharding in ("zero2", "zero3"):
        assert _mean_distance(weights(runs[sharding]), learned) < moved / 20
        for mine, theirs in zip(runs[sharding].read_log(), rows, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.01) and mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.01)


def _mean_distance(one, other):
    return sum(float((one[name] - other[name]).abs().sum()) for name in other) / sum(tensor.numel() for tensor in other.values())


# ---- what is configured, and what is refused ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def accelerated(monkeypatch):
    """As under `accelerate launch` with DeepSpeed."""

    def set_up(file=None, **told):
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        for name, value in {"ZERO_STAGE": "2", "CONFIG_FILE": str(file or "none"), **told}.items():
            monkeypatch.setenv(name if name.startswith("ACCELERATE") else f"ACCELERATE_DEEPSPEED_{name}", value)

    return set_up


def test_accelerates_stage_is_the_recipes_and_its_file_goes_before_what_is_chosen_here(quick, accelerated, tmp_path):
    whole, file = full(brief(quick)), tmp_path / "ds.json"
    accelerated(ZERO_STAGE="3")
    assert asked(whole).train.sharding == "zero3" and zero_given() == {}
    with pytest.raises(RecipeError, match=r'method.kind = "lora" learns a small part.*asks for DeepSpeed. Without: distributed_type: MULTI_GPU'):
        asked(quick)
    table = {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 1000, "allgather_bucket_size": "auto", "offload_optimizer": {"device": "none"}}
    file.write_text(json.dumps({"zero_optimization": table, "train_batch_size": "auto", "gradient_clipping": "auto", "bf16": {"enabled": True}}))
    accelerated(file)
    assert asked(whole).train.sharding == "zero2"
    made = configured(2, 7_000, torch.bfloat16, zero_given())
    zero = made["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"], zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (2, True, 1000, 7000)
    assert made["gradient_clipping"] == 0 and made["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert "torch_autocast" not in configured(3, 7_000, torch.float32, {})
    with pytest.raises(RecipeError, match=r'mixed_precision = "bf16": the recipe computes in float32 here'):
        check_precision(torch.float32)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ZERO_STAGE": "1"}, "zero_stage = 1. zero_stage: 2 divides"),
        ({"OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, 'offload_optimizer_device = "cpu"'),
        ({"OFFLOAD_PARAM_DEVICE": "nvme"}, 'offload_param_device = "nvme"'),
        ({"ACCELERATE_GRADIENT_CLIPPING": "0.5"}, "gradient_clipping = 0.5, and the recipe has train.max_grad_norm = 1. Set train.max_grad_norm = 0.5"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "the recipe has train.accumulate = 1"),
    ],
)
def test_what_accelerate_says_of_deepspeed_and_darkroom_does_not(quick, accelerated, told, words):
    accelerated(**told)
    with pytest.raises(RecipeError, match=words):
        asked(full(brief(quick)))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("{", "deepspeed_config_file cannot be read"),
        ("[]", "is no table"),
        ({"optimizer": {"type": "AdamW"}}, r"has optimizer: here the optimizer is the recipe's .* Leave it out of .*ds.json"),
        ({"train_micro_batch_size_per_gpu": 4}, "data.batch_size"),
        ({"fp16": {"enabled": True}}, 'Set train.precision = "bf16"'),
        ({"gradient_clipping": 2}, "train.max_grad_norm = 2 where that is meant"),
        ({"zero_optimization": {"stage": 0}}, "zero_stage = 0"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, "offload_param_device"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_gradients": True}}, "zero_quantized_gradients = true"),
    ],
)
def test_what_deepspeeds_file_says_and_darkroom_does_not(quick, accelerated, tmp_path, file, words):
    place = tmp_path / "ds.json"
    place.write_text(file if isinstance(file, str) else json.dumps(file))
    accelerated(place)
    with pytest.raises(RecipeError, match=words):
        asked(full(brief(quick)))


@pytest.mark.parametrize(
    ("sharding", "settings", "words"),
    [
        ("zero2", {"method": {"kind": "lora"}}, "learns a small part beside it"),
        ("zero3", {"train": {"fused": True, "max_grad_norm": 0}}, "Set train.fused = false"),
        ("zero2", {"optimizer": {"kind": "adafactor"}}, "averages of whole rows and columns"),
        ("zero3", {"train": {"precision": "fp16"}}, 'Set train.precision = "bf16"'),
        ("zero2", {"train": {"quantise": "nf4"}}, "learns them"),
        ("zero3", {"train": {"swap_blocks": 2}}, "learns them"),
        ("zero2", {"method": {"kind": "full", "weights": "bf16"}, "train": {"precision": "bf16"}}, 'Set method.weights = "fp32", or train.sharding = "fsdp"'),
        ("zero3", {"method": {"kind": "full", "text_encoders": True}}, 'Set train.sharding = "zero2" or "fsdp"'),
    ],
)
def test_what_does_not_go_with_zero(quick, sharding, settings, words):
    tree = full(brief(quick), sharding=sharding).model_dump(mode="json")
    for table, values in settings.items():
        tree[table] = values if "kind" in values else tree[table] | values
    with pytest.raises(RecipeError, match=words):
        Recipe.from_tree(tree, "test")


def test_deepspeed_that_is_not_installed(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r'"zero2" or "zero3" is DeepSpeed\'s, which is not installed .* pip install "sdxl-darkroom\[deepspeed\]"'):
        asked(full(brief(quick), sharding="zero3"))


def test_deepspeed_of_another_release(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", types.SimpleNamespace(__version__="0.9.2"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"DeepSpeed 0.9.2 is installed.* 0.19.x was tried"):
        asked(full(brief(quick), sharding="zero2"))


def test_the_forecast_knows_what_each_stage_divides(quick, model):
    whole = full(brief(quick), sharding="zero2")
    two, three = (forecast(full(whole, sharding=word), model, (32, 32), 4) for word in ("zero2", "zero3"))
    fsdp = forecast(full(whole, sharding="fsdp"), model, (32, 32), 4)
    assert two.optimizer == three.optimizer == fsdp.optimizer
    learned = sum(parameter.nbytes for parameter in model.unet.parameters())
    assert two.model - fsdp.model == learned and three.model - fsdp.model == learned / 4
