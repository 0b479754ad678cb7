"""Full fine-tuning: a plain loop's weights, an average that disturbs nothing, a model that other programs open, and a base that is what it was."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from darkroom import pocket
from darkroom.errors import AdapterError, ModelError, RecipeError, RunError
from darkroom.jobs.base import open_base
from darkroom.jobs.export import Export, export
from darkroom.jobs.generate import draw_files, parse_adapter
from darkroom.jobs.learned import word_of
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.methods import FullTuning
from darkroom.methods.ema import Average
from darkroom.sampling.request import read_request
from darkroom.sdxl.model import load
from darkroom.train.loop import Trainer
from darkroom.train.recipe import load_recipe

CPU = torch.device("cpu")
USUAL = ("train.length=4 steps", "train.save_every=2 steps", "preview.every=100 steps", "preview.steps=1", "device=cpu", "data.batch_size=2",
         "data.resolution=32", "optimizer.rate=1e-4", "optimizer.warmup=0", "train.save_dtype=fp32", "train.gradient_checkpointing=false")  # fmt: skip


def recipe_of(*settings, name="full", images=pocket.CATS / "train", **tables):
    return load_recipe(name, USUAL + settings, data={"images": str(images), "subject": "TOK cat"}, **tables)


def digest(folder):
    """Over every file of a folder."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(folder)}".encode() + file.read_bytes())
    return found.hexdigest()


def tensors_of(model):
    return {f"{part}.{name}": tensor.clone() for part, root in {**model.parts, "vae": model.vae}.items() for name, tensor in root.state_dict().items()}


@pytest.fixture
def attached():
    """Attach a method, and take it off again."""
    made = []

    def attach(spec, model):
        made.append(spec.attach(model, 0))
        return made[-1]

    yield attach
    for each in made:
        each.detach()


@pytest.fixture(scope="module")
def hard():
    """Everything that could depend on what came before: average, accumulation, dropout, shuffled tags, flips, prior preservation, text encoders."""
    return recipe_of(
        "train.fused=false", "train.accumulate=2", "method.ema=0.8", "method.text_encoders=true", "data.wording.dropout=0.3", "data.wording.shuffle=true",
        "data.flip=true", "optimizer.schedule=cosine", "train.max_grad_norm=1", "data.prior.prompt=a photo of a cat", "data.prior.count=2",
        "data.prior.steps=2", "method.single_file=true",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(hard, tmp_path_factory):
    return run_training(hard, tmp_path_factory.mktemp("whole") / "run")


class TestLearning:
    def test_three_steps_are_those_of_a_plain_loop(self, attached):
        """diffusers' U-Net and schedule, torch's AdamW over unet.parameters(), the mean squared error, and nothing of ours but the batches."""
        from diffusers import DDPMScheduler, UNet2DConditionModel

        recipe = recipe_of("optimizer.kind=adamw", "optimizer.eps=1e-6", "train.fused=false", "train.max_grad_norm=1", "objective.min_snr=0")
        model, plan = prepare(recipe)
        trainer = Trainer(recipe, plan, model, attached(recipe.method, model))
        unet = UNet2DConditionModel.from_pretrained(pocket.folder() / "unet", torch_dtype=torch.float32).train()
        schedule = DDPMScheduler.from_pretrained(pocket.folder() / "scheduler")
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-6)
        for number in range(3):
            batch = trainer.feed.batch(number)
            drawn = trainer._draw(number, trainer.feed.shown(number), batch.latents)
            loss = trainer.step(number)["loss"]
            noisy = schedule.add_noise(batch.latents, drawn.noise, drawn.t)
            added = {"text_embeds": batch.text.pooled, "time_ids": batch.ids}
            found = unet(noisy, drawn.t, batch.text.states, added_cond_kwargs=added).sample
            error = torch.nn.functional.mse_loss(found, drawn.noise, reduction="none").mean((1, 2, 3)).mean()  # added up in our order: Adam magnifies last bits
            assert loss == pytest.approx(error.item(), rel=1e-6)
            error.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        ours, start = model.unet.state_dict(), load_file(pocket.folder() / "unet" / "diffusion_pytorch_model.safetensors")
        for name, tensor in unet.state_dict().items():
            torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)
        assert sum(not torch.equal(start[name].float(), ours[name]) for name in ours) > 0.9 * len(ours)

    def test_the_held_out_loss_falls(self, tmp_path):
        recipe = recipe_of(
            "train.length=20 steps", "train.save_every=20 steps", "validation.every=20 steps", f'validation.pictures="{pocket.CATS / "held_out"}"',
            "data.caption={subject}", "objective.min_snr=0",
        )  # fmt: skip
        held = [row["validation"] for row in run_training(recipe, tmp_path / "run").read_log() if "validation" in row]
        assert len(held) == 2 and held[1] < 0.9 * held[0]

    def test_rates_by_place(self, model, attached):
        spec = FullTuning(text_encoders=True, text_rate=0.5, text_rate_2=0.1, rates={"down_blocks": 0.0, "down_blocks.0": 2.0, "mid_block": 0.25})
        found = attached(spec, model)
        groups = {group["name"]: group for group in found.groups(1e-3)}
        assert {name: group["lr"] for name, group in groups.items()} == pytest.approx({"x1": 1e-3, "x2": 2e-3, "x0.25": 2.5e-4, "x0.5": 5e-4, "x0.1": 1e-4})
        learned = {weight.name for weight in found.learned}
        assert not any(name.startswith("unet.down_blocks.1.") for name in learned)
        assert {"unet.down_blocks.0.resnets.0.norm1.bias", "unet.conv_in.weight", "unet.add_embedding.linear_1.weight"} <= learned
        assert all(parameter.requires_grad == (f"unet.{name}" in learned) for name, parameter in model.unet.named_parameters())

    def test_what_sdxl_does_not_read_of_encoder_1_is_left_out(self, model, attached):
        """Its last layer gives no state that the U-Net reads: everything that learns has a gradient."""
        from darkroom.sdxl.text import encode

        found = attached(FullTuning(text_encoders=True), model)
        text = encode(model, ["a cat"])
        (text.states.sum() + text.pooled.sum()).backward()
        of_text = [weight for weight in found.learned if not weight.name.startswith("unet.")]
        assert of_text and all(weight.parameter.grad is not None for weight in of_text)

    def test_places_that_are_not_there(self, model):
        with pytest.raises(RecipeError, match=r'"mid_blok" leads to no module\. Did you mean "mid_block'):
            FullTuning(rates={"mid_blok": 1.0}).attach(model, 0)
        with pytest.raises(RecipeError, match="nothing would learn"):
            FullTuning(rates={"unet": 0.0}).attach(model, 0)
        with pytest.raises(RecipeError, match=r'the model computes in float32\. Set train\.precision = "bf16"'):
            FullTuning(weights="bf16").attach(model, 0)
        assert not any(parameter.requires_grad for parameter in model.unet.parameters())


class TestHalfPrecision:
    def test_what_learns_begins_with_the_numbers_of_the_file_and_the_base_comes_back(self, attached):
        base = load(pocket.folder(), CPU, torch.bfloat16)
        before = tensors_of(base)
        spec = FullTuning(text_encoders=True).attach(base, 0)
        stored = load_file(pocket.folder() / "unet" / "diffusion_pytorch_model.safetensors")
        held = {weight.key[1]: weight.parameter for weight in spec.learned if weight.key[0] == "unet"}
        assert all(tensor.dtype == torch.float32 for tensor in held.values())
        assert all(torch.equal(held[name], tensor.float()) for name, tensor in stored.items())
        for parameter in held.values():
            parameter.data.add_(1)
        spec.detach()
        after = tensors_of(base)
        assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)

    @pytest.mark.parametrize("weights", ["fp32", "bf16"])
    def test_a_preview_is_what_generate_draws_with_the_model(self, weights, tmp_path):
        run = run_training(
            recipe_of("train.length=2 steps", "train.precision=bf16", f"method.weights={weights}", "method.text_encoders=true"), tmp_path / "run"
        )
        preview = run.folder / "previews" / "000002_0.png"
        asked = read_request(preview)
        again = asked.model_copy(update={"base": str(run.folder), "base_sha256": ""})
        draw_files([(again, tmp_path / "again.png")], "cpu", "bf16")
        assert pixels(tmp_path / "again.png") == pixels(preview)
        start = run.folder / "previews" / "000000_0.png"
        assert pixels(start) != pixels(preview)

    def test_bf16_weights_go_on_exactly(self):
        """Rounding by chance is a function of (seed, step, tensor), not of the sitting."""
        recipe = recipe_of("train.precision=bf16", "method.weights=bf16", "train.fused=false")
        whole, _ = stepped(recipe, range(4))
        half, facts = stepped(recipe, range(2))
        assert_equal(stepped(recipe, range(2, 4), half, facts)[0], whole)
        assert {tensor.dtype for name, tensor in whole.items() if name.startswith("weights.")} == {torch.bfloat16}


def stepped(recipe, numbers, tensors=None, facts=None, look=False):
    """State after these steps, from the state that is given."""
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, 0)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        if tensors:
            trainer.load_state(tensors, facts)
        for number in numbers:
            trainer.step(number)
            if look:
                shown(trainer)
        return trainer.state()
    finally:
        attached.detach()


def shown(trainer):
    """What the model predicts when it is looked at."""
    with torch.no_grad():
        batch = trainer.feed.batch(0)
        return trainer.predict(batch.latents, torch.full((len(batch.latents),), 500), batch)


def assert_equal(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def pixels(file):
    from PIL import Image

    with Image.open(file) as picture:
        return picture.convert("RGB").tobytes()


def cut(folder, to, step):
    """What a kill after checkpoint `step` leaves."""
    shutil.copytree(folder, to)
    shutil.rmtree(to / "model")
    for later in (to / "steps").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)


class TestAverage:
    @pytest.mark.parametrize(("after", "warmup"), [(0, False), (3, False), (0, True), (2, True)])
    def test_is_that_of_diffusers_to_the_last_bit(self, after, warmup):
        from diffusers.training_utils import EMAModel

        weights = [torch.nn.Parameter(torch.randn(5, 7)), torch.nn.Parameter(torch.randn(3))]
        ours = Average(weights, 0.6, after, warmup)
        theirs = EMAModel(weights, decay=0.6, update_after_step=after, use_ema_warmup=warmup)
        for _ in range(12):
            with torch.no_grad():
                for weight in weights:
                    weight.add_(torch.randn(weight.shape))
            ours.add(weights)
            theirs.step(weights)
            assert all(torch.equal(a, b) for a, b in zip(ours.shadows, theirs.shadow_params, strict=True))
        assert not torch.allclose(ours.shadows[0], weights[0])

    def test_learning_does_not_see_it_nor_who_looks_nor_where_it_lies(self):
        plain, _ = stepped(recipe_of(), range(3))
        watched, _ = stepped(recipe_of("method.ema=0.5"), range(3), look=True)
        hosted, _ = stepped(recipe_of("method.ema=0.5", "method.ema_on_host=true"), range(3))
        assert all(torch.equal(tensor, watched[name]) for name, tensor in plain.items())
        assert_equal(watched, hosted)
        assert int(watched["weights.ema.steps"]) == 3

    def test_is_what_is_looked_at_and_written(self, model, attached, tmp_path):
        recipe = recipe_of("method.ema=0.5")
        model, plan = prepare(recipe)
        found = attached(recipe.method, model)
        trainer = Trainer(recipe, plan, model, found)
        for number in range(2):
            trainer.step(number)
        averaged = shown(trainer)
        found.prepare(2)
        learning = shown(trainer)
        found.prepare(None)
        assert torch.equal(shown(trainer), averaged) and not torch.equal(averaged, learning)
        found.write(tmp_path / "model", torch.float32, lambda tensors: {})
        written = load_file(tmp_path / "model/unet/diffusion_pytorch_model.safetensors")
        state = found.state()
        assert all(torch.equal(tensor, state[f"ema.unet.{name}"]) for name, tensor in written.items())
        assert any(not torch.equal(tensor, state[f"unet.{name}"]) for name, tensor in written.items())

    def test_a_preview_shows_it(self, tmp_path):
        run = run_training(recipe_of("method.ema=0.5", "train.length=2 steps", "optimizer.rate=3e-4"), tmp_path / "run")
        preview = run.folder / "previews" / "000002_0.png"
        asked = read_request(preview).model_copy(update={"base": str(run.folder), "base_sha256": ""})
        draw_files([(asked, tmp_path / "again.png")], "cpu", "fp32")
        assert pixels(tmp_path / "again.png") == pixels(preview)


class TestResume:
    def test_gone_on_to_the_same_bytes(self, whole, tmp_path):
        cut(whole.folder, tmp_path / "run", 2)
        (tmp_path / "run" / ".model.half.part").mkdir()  # a kill while the model was written
        done = resume_training(tmp_path / "run")
        assert digest(done.product) == digest(whole.product)
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
        assert not list((tmp_path / "run").glob(".model*"))
        assert [row["loss"] for row in done.read_log()] == [row["loss"] for row in whole.read_log()]

    def test_a_run_is_finished_by_a_whole_model_alone(self, whole, tmp_path):
        cut(whole.folder, tmp_path / "run", 4)
        half = tmp_path / "run" / ".model.abc.part"
        shutil.copytree(whole.product, half)
        from darkroom.train.run import Run

        assert not Run.open(tmp_path / "run").finished

    def test_another_method_is_refused(self, whole, hard, tmp_path):
        cut(whole.folder, tmp_path / "run", 2)
        other = hard.model_copy(update={"method": hard.method.model_copy(update={"ema": 0.0})})
        (tmp_path / "run" / "recipe.toml").write_text(other.to_toml())
        with pytest.raises(RunError, match="another recipe"):
            resume_training(tmp_path / "run")


class TestProduct:
    def test_stock_diffusers_opens_it_and_draws_what_we_draw(self, whole):
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        stock = StableDiffusionXLPipeline.from_pretrained(whole.product)
        assert isinstance(stock.scheduler, EulerDiscreteScheduler)
        ours = tensors_of(open_base(str(whole.folder), "cpu", "fp32"))
        for part in ("unet", "text_encoder", "text_encoder_2", "vae"):
            for name, tensor in getattr(stock, part).state_dict().items():
                assert torch.equal(tensor.float(), ours[f"{part}.{name}"].float()), f"{part}.{name}"

    def test_parts_that_nothing_learned_are_the_bases_and_lie_there_once(self, whole):
        for part in ("vae", "tokenizer", "tokenizer_2"):
            for file in sorted((whole.product / part).iterdir()):
                assert file.read_bytes() == (pocket.folder() / part / file.name).read_bytes()
                assert not file.samefile(pocket.folder() / part / file.name), "who writes into the run's model must not write into the base"
        weights = "vae/diffusion_pytorch_model.safetensors"
        assert (whole.product / weights).samefile(whole.folder / "steps/000002/model" / weights)
        unet = "unet/diffusion_pytorch_model.safetensors"
        assert (whole.product / unet).samefile(whole.folder / "steps/000004/model" / unet), "the last checkpoint's model is the run's"
        assert not (whole.product / unet).samefile(whole.folder / "steps/000002/model" / unet)

    def test_one_file_holds_the_same_numbers_and_says_what_it_is(self, whole):
        from darkroom.sdxl.checkpoint import read_single_file

        single = tensors_of(read_single_file(whole.folder / "model.safetensors", CPU, torch.float32, config=pocket.folder()))
        folder = tensors_of(load(whole.product, CPU, torch.float32))
        assert single.keys() == folder.keys() and all(torch.equal(single[name], folder[name]) for name in single)
        with safe_open(whole.folder / "model.safetensors", "pt") as opened:
            said = opened.metadata()
        assert said["modelspec.architecture"] == "stable-diffusion-xl-v1-base" and said["modelspec.title"] == "TOK cat"
        assert json.loads(said["darkroom.recipe"])["method"]["kind"] == "full"
        assert json.loads(said["darkroom.receipt"])["base"] == "pocket"
        assert not any(key.startswith("ss_") for key in said) and str(pocket.CATS) not in json.dumps(said)
        beside = json.loads((whole.product / "darkroom.json").read_text())
        assert beside == {key: value for key, value in said.items() if key != "modelspec.hash_sha256"}

    def test_the_number_format_is_that_of_what_learned(self, tmp_path):
        run = run_training(recipe_of("train.length=1 steps", "train.save_dtype=fp16"), tmp_path / "run")
        assert {tensor.dtype for tensor in load_file(run.product / "unet/diffusion_pytorch_model.safetensors").values()} == {torch.float16}
        stored = load_file(pocket.folder() / "vae/diffusion_pytorch_model.safetensors")
        kept = load_file(run.product / "vae/diffusion_pytorch_model.safetensors")
        assert all(torch.equal(tensor, kept[name]) and tensor.dtype == kept[name].dtype for name, tensor in stored.items())

    def test_a_base_of_one_file(self, whole, tmp_path):
        """What did not learn is read from the file, whatever number format computed."""
        recipe = recipe_of("train.length=1 steps", "train.precision=bf16", 'method.rates={"unet"=0,"mid_block"=1}')
        recipe = recipe.model_copy(update={"base": str(whole.folder / "model.safetensors"), "base_config": str(pocket.folder())})
        run = run_training(recipe, tmp_path / "run")
        before, after = (load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (whole.product, run.product))
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved and all(name.startswith("mid_block.") for name in moved)
        texts = [tensors_of(load(folder, CPU, torch.float32)) for folder in (whole.product, run.product)]
        assert all(torch.equal(tensor, texts[1][name]) for name, tensor in texts[0].items() if not name.startswith("unet."))

    def test_the_schedule_says_what_was_learned(self, tmp_path):
        run = run_training(recipe_of("train.length=1 steps", "objective.prediction=v_prediction", "objective.zero_terminal_snr=true", "objective.min_snr=0",
                                     "method.single_file=true"), tmp_path / "run")  # fmt: skip
        schedule = json.loads((run.product / "scheduler/scheduler_config.json").read_text())
        assert schedule["prediction_type"] == "v_prediction" and schedule["rescale_betas_zero_snr"] and schedule["timestep_spacing"] == "trailing"
        with safe_open(run.folder / "model.safetensors", "pt") as opened:
            assert {"v_pred", "ztsnr"} <= set(opened.keys()) and opened.metadata()["modelspec.prediction_type"] == "v"


class TestUsing:
    def test_a_run_is_a_base(self, whole):
        named = [open_base(f"{whole.folder}{at}", "cpu", "fp32").hash for at in ("", "@4", "@2")]
        assert named[0] == named[1] != named[2]

    def test_what_is_not_there_is_said(self, whole, tmp_path):
        with pytest.raises(ModelError, match=r"has no checkpoint of step 3. It has: 2, 4"):
            open_base(f"{whole.folder}@3")
        cut(whole.folder, tmp_path / "run", 2)
        with pytest.raises(ModelError, match=r"is not finished: go on with `darkroom resume .*`, or take a checkpoint, as in .*@2"):
            open_base(str(tmp_path / "run"))
        shutil.rmtree(tmp_path / "run" / "steps")
        with pytest.raises(ModelError, match=r"learned no whole model.*--adapter"):
            open_base(str(tmp_path / "run"))

    @pytest.mark.parametrize("at", ["", "@2"])
    def test_it_is_no_adapter(self, whole, at):
        with pytest.raises(AdapterError, match=f"learned a whole model.*--base {whole.folder}{at}"):
            parse_adapter(f"{whole.folder}{at}")
        with pytest.raises(AdapterError, match=f"learned a whole model, not a new word.*--base {whole.folder}{at}"):
            word_of(f"{whole.folder}{at}")

    def test_export_says_that_it_is_ready(self, whole, tmp_path):
        with pytest.raises(RunError, match=r"darkroom base convert .*/model --to single"):
            export(Export(whole.folder, tmp_path / "out"))


def test_dreambooth_with_prior_preservation(tmp_path):
    """The recipe, and what its comment says of the class."""
    small = ("train.length=2 steps", "train.save_every=1 steps", "data.prior.count=2", "data.prior.steps=1", "data.batch_size=1")
    assert not recipe_of(*small, name="dreambooth-full").data.prior.prompt
    run = run_training(recipe_of(*small, "data.prior.prompt=a photo of a cat", name="dreambooth-full"), tmp_path / "run")
    assert run.facts["preflight"]["prior"]["pictures"] == 2
    cut(run.folder, tmp_path / "cut", 1)
    assert digest(resume_training(tmp_path / "cut").product) == digest(run.product)
