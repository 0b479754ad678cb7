"""Every way of drawing equals diffusers' own pipeline: largest difference 0 on the CPU in fp32, for every sampler tried, with the same draws."""

import diffusers
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw

from darkroom import pocket
from darkroom.device import generator
from darkroom.jobs.base import open_refiner
from darkroom.sampling.canvas import extend
from darkroom.sampling.draw import Kit, complete, draw_latents
from darkroom.sampling.request import Control, Refine, Request
from darkroom.sampling.start import noise
from darkroom.sdxl.latents import encode

SEED, STEPS = 11, 6
SAMPLERS = {  # as diffusers' own table of A1111's names has them
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}
MORE = {
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_sde": ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++", "lower_order_final": True}),
    "heun": ("HeunDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "leading", "clip_sample": False, "set_alpha_to_one": False}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
}


def scheduler_of(pipe, sampler, purpose="sampler"):
    """A fresh scheduler whose steps draw the noise that ours draws."""
    name, changes = (SAMPLERS | MORE)[sampler]
    scheduler = getattr(diffusers, name).from_pretrained(pipe.config._name_or_path, subfolder="scheduler", **changes)
    step, count = scheduler.step, iter(range(10_000))
    import inspect

    if "generator" in inspect.signature(step).parameters:

        def seeded(*args, generator_=None, generator=None, **more):
            return step(*args, generator=chance(purpose, next(count)), **more)

        scheduler.step = seeded
    return scheduler


def chance(purpose, index):
    return generator(SEED, purpose, index)


@pytest.fixture(scope="module")
def pipe():
    return StableDiffusionXLPipeline.from_pretrained(pocket.folder())


@pytest.fixture
def stock(pipe, monkeypatch):
    """A stock pipeline of another class over the same parts, whose own start noise is ours."""

    def make(cls, sampler, fresh, **more):
        module = __import__(cls.__module__, fromlist=["x"])
        if hasattr(module, "randn_tensor"):
            monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: fresh.clone())
        found = cls(**{**pipe.components, "scheduler": scheduler_of(pipe, sampler)}, **more)
        found.set_progress_bar_config(disable=True)
        return found

    return make


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    picture = Image.new("RGB", (64, 64), (200, 60, 40))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((12, 10, 50, 52), (250, 220, 90))
    pen.rectangle((30, 40, 60, 60), (20, 90, 160))
    picture.save(path)
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 63, 30), 255)
    mask.save(path.with_name("mask.png"))
    picture.crop((0, 0, 48, 64)).save(path.with_name("narrow.png"))
    return path


def ours(model, **asked):
    asked = {"prompt": "a 3d cat on a red background", "negative": "blurry", "seed": SEED, "steps": STEPS} | asked
    request = complete(model, Request(**asked))
    return request, draw_latents(Kit(model), request)


def call(pipe, request, **more):
    with torch.no_grad():
        return pipe(
            request.prompt, negative_prompt=request.negative, num_inference_steps=request.steps, guidance_scale=request.guidance,
            guidance_rescale=request.guidance_rescale, output_type="latent", **more,
        ).images  # fmt: skip


@pytest.mark.parametrize("sampler", [*SAMPLERS, *MORE])
def test_text(model, stock, sampler):
    request, found = ours(model, sampler=sampler, guidance_rescale=0.7)
    fresh = noise(SEED, 64, 64, 4)
    theirs = call(stock(StableDiffusionXLPipeline, sampler, fresh), request, latents=fresh, width=64, height=64)
    assert (found - theirs).abs().max() == 0


@pytest.mark.parametrize("sampler", [*SAMPLERS, "heun"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_image(model, stock, photo, sampler, strength):
    request, found = ours(model, sampler=sampler, image=str(photo), strength=strength)
    latents = encode(model, [Image.open(photo)])[0]
    pipe = stock(StableDiffusionXLImg2ImgPipeline, sampler, noise(SEED, 64, 64, 4))
    assert torch.equal(found, call(pipe, request, image=latents, strength=strength))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(model, stock, photo, sampler, strength):
    mask = photo.with_name("mask.png")
    request, found = ours(model, sampler=sampler, image=str(photo), mask=str(mask), strength=strength)
    latents = encode(model, [Image.open(photo)])[0]
    pipe = stock(StableDiffusionXLInpaintPipeline, sampler, noise(SEED, 64, 64, 4))
    assert torch.equal(found, call(pipe, request, image=latents, mask_image=Image.open(mask), strength=strength, width=64, height=64))
    assert torch.allclose(found[:, :, 9:], latents[:, :, 9:]), "what is masked out changed"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_outpainting(model, stock, photo, sampler):
    narrow = photo.with_name("narrow.png")
    request, found = ours(model, sampler=sampler, image=str(narrow), outpaint=(0, 0, 16, 0))
    canvas, drawn = extend(Image.open(narrow), 0, 0, 16, 0)
    pipe = stock(StableDiffusionXLInpaintPipeline, sampler, noise(SEED, 64, 64, 4))
    theirs = call(pipe, request, image=encode(model, [canvas])[0], mask_image=drawn, strength=1.0, width=64, height=64)
    assert canvas.size == (64, 64) and torch.equal(found, theirs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_inpainting_unet_of_nine_channels(model, stock, photo, sampler, monkeypatch):
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(dict(model.unet.config) | {"in_channels": 9}).eval()
    wide = type(model)(**{name: getattr(model, name) for name in model.__dataclass_fields__})
    wide.unet = unet
    mask = photo.with_name("mask.png")
    request, found = ours(wide, sampler=sampler, image=str(photo), mask=str(mask), strength=1.0)
    pipe = stock(StableDiffusionXLInpaintPipeline, sampler, noise(SEED, 64, 64, 4))
    pipe.unet = unet
    module = __import__(StableDiffusionXLInpaintPipeline.__module__, fromlist=["x"])
    monkeypatch.setattr(module, "retrieve_latents", lambda out, **_: out.latent_dist.mean)
    theirs = call(pipe, request, image=Image.open(photo), mask_image=Image.open(mask), strength=1.0, width=64, height=64)
    assert (found - theirs).abs().max() == 0


def controlnet(model, seed):
    network = ControlNetModel.from_unet(model.unet, conditioning_embedding_out_channels=(16, 32, 96)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for block in [*network.controlnet_down_blocks, network.controlnet_mid_block, network.controlnet_cond_embedding.conv_out]:
            for parameter in block.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2])
def test_controlnet(model, stock, photo, sampler, count):
    networks = [controlnet(model, seed) for seed in range(count)]
    controls = [Control(model="x", image=str(photo), weight=0.8, end=0.7), Control(model="y", image=str(photo), weight=0.5)][:count]
    request = complete(model, Request(prompt="a 3d cat", negative="blurry", seed=SEED, steps=STEPS, sampler=sampler, controls=tuple(controls)))
    found = draw_latents(Kit(model, networks=tuple(networks)), request)
    fresh = noise(SEED, 64, 64, 4)
    pipe = stock(StableDiffusionXLControlNetPipeline, sampler, fresh, controlnet=networks if count > 1 else networks[0])
    one = count == 1
    with torch.no_grad():
        theirs = pipe(
            request.prompt, negative_prompt=request.negative, num_inference_steps=STEPS, guidance_scale=5.0, latents=fresh, output_type="latent",
            image=Image.open(photo) if one else [Image.open(photo)] * 2, width=64, height=64,
            controlnet_conditioning_scale=[c.weight for c in controls][0 if one else slice(None)],
            control_guidance_end=[c.end for c in controls][0 if one else slice(None)],
        ).images  # fmt: skip
    assert (found - theirs).abs().max() == 0
    plain = ours(model, prompt="a 3d cat", sampler=sampler)[1]
    assert not torch.equal(found, plain), "the control does nothing: the test would prove nothing"


@pytest.fixture(scope="module")
def stock_refiner():
    found = StableDiffusionXLImg2ImgPipeline.from_pretrained(pocket.folder("refiner"))
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("negative", ["blurry", None])
def test_refiner_takes_over(model, stock, stock_refiner, sampler, fraction, negative):
    refiner = open_refiner("pocket-refiner", "pocket", "cpu", "fp32")
    request = complete(model, Request(prompt="a 3d cat", negative=negative, seed=SEED, steps=10, sampler=sampler, refiner=Refine(fraction=fraction)))
    found = draw_latents(Kit(model, refiner), request)
    fresh = noise(SEED, 64, 64, 4)
    half = call(stock(StableDiffusionXLPipeline, sampler, fresh), request, latents=fresh, width=64, height=64, denoising_end=fraction)
    stock_refiner.scheduler = scheduler_of(stock_refiner, sampler, "refiner")
    theirs = call(stock_refiner, request, image=half, denoising_start=fraction)
    assert (found - theirs).abs().max() == 0
    assert not torch.equal(found, half)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_refiner_over_the_finished_picture(model, stock, stock_refiner, sampler, monkeypatch):
    refiner = open_refiner("pocket-refiner", "pocket", "cpu", "fp32")
    asked = Refine(mode="img2img", strength=0.4)
    request = complete(model, Request(prompt="a 3d cat", negative="blurry", seed=SEED, steps=10, sampler=sampler, refiner=asked))
    found = draw_latents(Kit(model, refiner), request)
    fresh = noise(SEED, 64, 64, 4)
    whole = call(stock(StableDiffusionXLPipeline, sampler, fresh), request, latents=fresh, width=64, height=64)
    stock_refiner.scheduler = scheduler_of(stock_refiner, sampler, "refiner")
    module = __import__(StableDiffusionXLImg2ImgPipeline.__module__, fromlist=["x"])
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise(SEED, 64, 64, 4, purpose="refine"))
    assert torch.equal(found, call(stock_refiner, request, image=whole, strength=0.4))


def test_the_bases_adapters_never_leak_into_the_refiner(model, stock_refiner, tmp_path, monkeypatch):
    """Text encoder 2 is one module for both; what the refiner draws is what a stock refiner draws from the latents that were handed over."""
    from darkroom.methods import LoRA
    from darkroom.methods.stack import Wear, worn
    from darkroom.sampling import draw
    from darkroom.sdxl.formats import read_adapter, write_adapter

    refiner = open_refiner("pocket-refiner", "pocket", "cpu", "fp32")
    assert refiner.text_encoder_2 is model.text_encoder_2 and refiner.vae is model.vae
    attached = LoRA(rank=4, text_encoders=True).attach(model, 1)
    attached.load_state({name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in attached.state().items()})
    write_adapter(tmp_path / "a.safetensors", attached.tensors(torch.float32), attached.metadata())
    attached.detach()
    handed = []
    refine = draw._refined
    monkeypatch.setattr(draw, "_refined", lambda kit, request, x, *rest: handed.append(x) or refine(kit, request, x, *rest))
    request = complete(model, Request(prompt="a 3d cat", negative="blurry", seed=SEED, steps=10, refiner=Refine()))
    with worn(model, [Wear(read_adapter(tmp_path / "a.safetensors", model))]) as wearing:
        found = draw_latents(Kit(model, refiner, turn=wearing.turn), request)
    stock_refiner.scheduler = scheduler_of(stock_refiner, "euler", "refiner")
    assert (found - call(stock_refiner, request, image=handed[0], denoising_start=0.8)).abs().max() == 0
    plain = draw_latents(Kit(model, refiner), request)
    assert not torch.equal(handed[0], handed[1]) and not torch.equal(found, plain), "the adapter does nothing: the test would prove nothing"
